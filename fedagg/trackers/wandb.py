"""Weights & Biases, offline unless asked otherwise."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from fedagg.console import suggest
from fedagg.errors import ConfigError
from fedagg.trackers.base import About, Tracker, library

MODES = ("offline", "online")


class WandB(Tracker):
    """A W&B run: history by round, config, tags, the files of the run directory as an artifact at the end.

    Offline it writes a folder ``wandb/offline-run-...`` in the run directory, which ``wandb sync FOLDER`` uploads. A run that
    goes on keeps its id. Online it adds the rounds that are missing; offline it writes a further folder with all rounds, so
    the newest one alone is to be uploaded.

    Args:
        project: where runs are put.
        entity: whose project; None: the default of the account.
        mode: offline or online.
        group: what the run belongs to; None: the name of the folder it is in, which is that of its sweep or study.

    Raises:
        ConfigError: wandb is not installed, or there is no such mode.
    """

    def __init__(
        self, project: str = "fedagg", entity: str | None = None, mode: str = "offline", group: str | None = None
    ) -> None:
        if mode not in MODES:
            raise ConfigError(f"logger.wandb.mode must be one of {', '.join(MODES)}; got {mode}{suggest(str(mode), MODES)}")
        self.project, self.entity, self.mode, self.group = project, entity, mode, group
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # offline should mean that nothing is sent
        self._library = library("wandb")

    def start(self, about: About, id: str | None) -> str:
        """Begin a W&B run, or go on with it; return its id."""
        self._run: Any = self._library.init(
            project=self.project,
            entity=self.entity,
            mode=self.mode,
            dir=str(about.directory),
            id=id or uuid4().hex[:12],
            resume="allow" if self.mode == "online" else None,
            reinit="create_new",  # a process may work on several runs
            name=about.name,
            group=self.group or about.directory.resolve().parent.name,
            job_type=about.method,
            tags=[f"{key}={value}"[:64] for key, value in about.label.items()],
            config={**about.config, "label": dict(about.label)},
            settings=self._library.Settings(console="off", quiet=True),  # what is printed is not its to catch
        )
        self._run.define_metric("round")
        self._run.define_metric("*", step_metric="round")
        return str(self._run.id)

    def log(self, round: int, metrics: Mapping[str, float]) -> None:
        """Add a round to the history, unless W&B has it already."""
        if round >= self._run.step:
            self._run.log({"round": round, **metrics}, step=round, commit=True)

    def finish(self, status: str, files: Sequence[Path], error: str | None) -> None:
        """Add the files, and close the W&B run as finished or failed."""
        artifact = self._library.Artifact(f"run-{self._run.id}", type="run")
        for file in files:
            artifact.add_file(str(file))
        self._run.log_artifact(artifact)
        self._run.summary.update({"status": status, **({"error": error} if error else {})})
        self._run.finish(exit_code=0 if status == "completed" else 1)
