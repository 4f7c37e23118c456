"""What a tracker is, and what it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from fedagg.errors import ConfigError


@dataclass(frozen=True)
class About:
    """What is known about a run when it starts.

    Args:
        directory: the run directory.
        config: the resolved config, of plain dicts, lists and scalars.
        label: config group -> choice: strategy, attack, data, model, partition and so on.
        seed: the run's seed.
        rounds: how many rounds there will be.
    """

    directory: Path
    config: Mapping[str, Any]
    label: Mapping[str, str]
    seed: int
    rounds: int

    @property
    def method(self) -> str:
        """Strategy and attack in a few words."""
        return f"{self.label.get('strategy', '?')} x {self.label.get('attack', '?')}"

    @property
    def name(self) -> str:
        """The run in a few words."""
        return f"{self.method}, seed {self.seed}"


class Tracker:
    """Where a run is shown as well. Override what you need.

    The calls are ``start``, ``log`` for every round, ``finish``; a process that is killed does not come to the last. When a
    run goes on, ``log`` is called for **all** its rounds from 0 on, with the same values, so that a tracker that knew some of
    them, or none, ends with all. One that keeps them by round need not care; others leave out what they have.

    A tracker that raises is named in a warning and told nothing more; the run goes on.
    """

    def start(self, about: About, id: str | None) -> str | None:
        """Begin a record, or go on with one.

        Args:
            about: the run.
            id: what this method returned when the run began; None for a run that is new to this tracker.

        Returns:
            What the tracker needs to find its record again; it is kept in ``run.json``. None if it needs nothing.
        """
        return None

    def log(self, round: int, metrics: Mapping[str, float]) -> None:
        """Take the aggregate metrics of a round, named as in ``test/accuracy``; they may be nan or infinite."""

    def finish(self, status: str, files: Sequence[Path], error: str | None) -> None:
        """Close the record.

        Args:
            status: completed, failed or interrupted.
            files: what the run left that is worth keeping beside the record: config.yaml, metrics.csv, run.json.
            error: why it failed.
        """


def library(name: str, module: str | None = None) -> Any:
    """Import what a tracker writes with.

    Args:
        name: of the tracker, of the package it needs and of our extra that brings it, which are the same.
        module: what to import, where that is not the package itself.

    Raises:
        ConfigError: it cannot be imported.
    """
    try:
        return import_module(module or name)
    except ImportError as error:
        raise ConfigError(
            f"logger={name} needs the package {name}, which cannot be imported here ({error}). "
            f"Install it with: pip install 'fedagg[{name}]'"
        ) from error
