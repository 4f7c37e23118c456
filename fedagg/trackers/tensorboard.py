"""TensorBoard: event files in the run directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from fedagg.results import flat
from fedagg.trackers.base import About, Tracker, library

MEASURED = ("test/accuracy", "test/loss")  # what the table of hyperparameters shows of every run


class TensorBoard(Tracker):
    """Scalars by ``split/metric`` and round, the config as text and hyperparameters, in the folder ``tensorboard`` of a run.

    ``tensorboard --logdir runs`` then shows all runs below a folder. A run that goes on replaces the event file by one with
    all rounds, which tells a TensorBoard that is open to forget what it has read.

    Raises:
        ConfigError: tensorboard is not installed.
    """

    def __init__(self) -> None:
        self._library = library("tensorboard", "torch.utils.tensorboard")
        self._plugin_data = library("tensorboard", "tensorboard.plugins.hparams.plugin_data_pb2")

    def start(self, about: About, id: str | None) -> None:
        """Open an event file and write the config."""
        folder = about.directory / "tensorboard"
        for old in folder.glob("events.*"):
            old.unlink()
        self._writer = self._library.SummaryWriter(str(folder), purge_step=0, flush_secs=5)
        settings = {key: _scalar(value) for key, value in flat(about.config)}
        experiment, start, self._end = self._library.summary.hparams({**settings, **about.label}, dict.fromkeys(MEASURED, 0.0))
        for summary in (experiment, start):
            self._writer.file_writer.add_summary(summary, 0)
        self._text("config", yaml.safe_dump(dict(about.config), sort_keys=False, allow_unicode=True))

    def log(self, round: int, metrics: Mapping[str, float]) -> None:
        """Write one scalar a metric."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, round)

    def finish(self, status: str, files: Sequence[Path], error: str | None) -> None:
        """Write how the run ended, and close the file."""
        self._text("status", f"{status}\n{error or ''}".strip())
        content = self._plugin_data.HParamsPluginData.FromString(self._end.value[0].metadata.plugin_data.content)
        content.session_end_info.status = {"completed": 1, "failed": 2}.get(status, 0)  # success, failure, unknown
        self._end.value[0].metadata.plugin_data.content = content.SerializeToString()
        self._writer.file_writer.add_summary(self._end, 0)
        self._writer.close()

    def _text(self, tag: str, text: str) -> None:
        indented = "\n".join(f"    {line}" for line in text.splitlines())  # Markdown for: as it is
        self._writer.add_text(tag, indented, 0)


def _scalar(value: Any) -> bool | float | str:
    return value if isinstance(value, bool | int | float | str) else str(value)
