"""From the jobs of a study to the configs of its runs, and the names of their directories."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedagg.console import config_dir
from fedagg.errors import ConfigError
from fedagg.hydra_app import compose_with_choices, explain
from fedagg.overrides import parsed
from fedagg.results import run_id
from fedagg.study.plan import Job, Study


@dataclass(frozen=True)
class Planned:
    """A job, ready to run.

    Args:
        job: where it stands on the axes.
        run: the name of its directory, which follows from the resolved config.
        config: the config, with its interpolations.
        choices: config group -> choice.
        rounds: how many it has.
        threads: how many it computes with.
    """

    job: Job
    run: str
    config: dict[str, Any]
    choices: dict[str, str]
    rounds: int
    threads: int


def resolve(study: Study, jobs: Sequence[Job]) -> list[Planned]:
    """Return the runs that these jobs of a study are.

    Raises:
        ConfigError: naming the job, what is unknown, and the nearest name that is known.
    """
    composer = _Composer(study)
    planned = []
    for job in jobs:
        try:
            cfg, choices = composer.compose(job.overrides)
            name = run_id(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
            config: dict[str, Any] = OmegaConf.to_container(cfg)  # type: ignore[assignment]
            rounds, threads = (_count(cfg, key) for key in ("rounds", "engine.threads"))
        except OmegaConfBaseException as error:
            raise ConfigError(f"{job.title}: {explain(error, job.overrides)}") from None
        except ConfigError as error:
            raise ConfigError(f"{job.title}: {error}") from None
        planned.append(Planned(job, name, config, choices, rounds, threads))
    return planned


def _count(cfg: DictConfig, key: str) -> int:
    value = OmegaConf.select(cfg, key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{key} must be an integer >= 1; got {value}")
    return value


def _meet(one: str, other: str) -> bool:
    """Whether one of two dotted keys is, or lies in, the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


class _Composer:
    """Composes configs as Hydra does, once for all jobs that choose from the config groups alike.

    Hydra takes a tenth of a second. Setting plain values, which is most of what the jobs of a study differ in, is what it does
    last, and needs no files.
    """

    def __init__(self, study: Study) -> None:
        self._folder = study.folder
        self._groups = {path.name for root in (config_dir(), study.folder) for path in root.iterdir() if path.is_dir()}
        self._composed: dict[tuple[str, ...], tuple[DictConfig, dict[str, str]]] = {}

    def compose(self, overrides: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
        """Return a config of its own, and the choices it is made of."""
        plain = [override for override in overrides if self._sets_a_value(override)]
        choosing = tuple(override for override in overrides if not self._sets_a_value(override))
        added = [parsed(override).key_or_group for override in choosing if override[0] in "+~"]
        if any(_meet(parsed(override).key_or_group, key) for override in plain for key in added):
            return compose_with_choices(overrides, self._folder)  # which of them wins is a matter of their order
        if choosing not in self._composed:
            self._composed[choosing] = compose_with_choices(choosing, self._folder)
        composed, choices = self._composed[choosing]
        cfg = copy.deepcopy(composed)
        try:
            for override in plain:
                found = parsed(override)
                OmegaConf.update(cfg, found.key_or_group, found.value(), merge=True)
        except OmegaConfBaseException:
            return compose_with_choices(overrides, self._folder)  # refuses in words
        return cfg, choices

    def _sets_a_value(self, override: str) -> bool:
        found = parsed(override)
        group = found.key_or_group in self._groups or "/" in found.key_or_group or found.package is not None
        return not (group or found.is_add() or found.is_force_add() or found.is_delete() or override.startswith("hydra."))
