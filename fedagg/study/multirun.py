"""Hydra's multirun as a study: its runs go into a store like any other's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from fedagg.overrides import parsed, values_of
from fedagg.study.plan import label_of
from fedagg.study.store import Entry, Store
from fedagg.study.table import write_table


class WriteTable(Callback):
    """Write the table of a multirun when it has ended."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write it into the folder of the sweep."""
        store = Store(Path(config.hydra.sweep.dir))
        if store.exists():
            print(f"table     {write_table(store)[0]}", flush=True)


def enter_job(settings: Any, cfg: DictConfig, arguments: Iterable[str], command: str) -> None:
    """Enter one job of a multirun into the manifest of the folder it writes to.

    Args:
        settings: what Hydra knows about the job.
        cfg: its config.
        arguments: the command line; what sweeps there, or in ``hydra.sweeper.params``, are the axes.
        command: repeats the job alone.
    """
    params = settings.sweeper.get("params") or {}
    swept = [word for word in arguments if "=" in word and not word.startswith("-")]
    swept += [f"{key}={text}" for key, text in params.items()]
    axes = {parsed(override).get_key_element() for override in swept if parsed(override).is_sweep_override()} - {"seed"}
    chosen = {parsed(override).get_key_element(): override for override in settings.overrides.task}
    place = {key: label_of(values_of(override)[0]) for key, override in chosen.items() if key in axes}
    store, run = Store(Path(settings.sweep.dir)), Path(settings.runtime.output_dir).name
    entry = Entry(run, place, cfg.seed, cfg.rounds, command)
    known = store.manifest() if store.exists() else {}
    about = known.get("name", store.folder.name), known.get("question", ""), known.get("report", {})
    store.enter(*about, [entry])
