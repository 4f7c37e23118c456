"""Tell the trackers of a run what happens to it, and let none of them do it any harm."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from types import TracebackType
from typing import Any

from omegaconf import DictConfig

from fedagg.errors import ConfigError
from fedagg.instantiate import make
from fedagg.loop import Callback, Round
from fedagg.results import RunDirectory, read_run
from fedagg.trackers.base import About, Tracker

logger = logging.getLogger(__name__)
FILES = ("config.yaml", "metrics.csv", "run.json")


class Tracking(Callback):
    """The trackers of a run. As a context manager it closes them with the status that the run directory then has.

    It keeps no state of its own: a run that goes on tells its trackers everything again, out of the run directory.

    Args:
        trackers: by the names they have in the config.
    """

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        self.trackers = dict(trackers)  # those that still work
        self._record: RunDirectory | None = None
        self._told = True  # of the rounds before this process

    @classmethod
    def of(cls, cfg: DictConfig) -> Tracking:
        """Make the trackers that ``logger`` names.

        Raises:
            ConfigError: naming the key, or the package that is missing and what brings it.
        """
        trackers = {}
        for name in cfg.get("logger") or ():
            tracker = trackers[name] = make(cfg, f"logger.{name}")
            if not isinstance(tracker, Tracker):
                kind = type(tracker).__qualname__
                raise ConfigError(f"logger.{name} must be a fedagg.trackers.Tracker; {kind} is not. Derive it from Tracker")
        return cls(trackers)

    def start(self, record: RunDirectory, config: Mapping[str, Any], resumed: bool) -> None:
        """Begin the records, or go on with them.

        Args:
            record: the run directory, begun.
            config: the resolved config.
            resumed: whether there may be rounds that an earlier process has finished.
        """
        self._record, self._told = record, not resumed
        info = record.info
        about = About(record.path, config, info["label"], info["seed"], info["rounds"])
        known = info.get("trackers", {})
        ids: dict[str, str] = {}

        def begin(name: str, tracker: Tracker) -> None:
            id = tracker.start(about, known.get(name))
            if id is not None:
                ids[name] = id

        self._each(begin)
        if ids:
            record.update(trackers={**known, **ids})

    def round_finished(self, done: Round) -> None:
        self._tell_the_past(done.round)
        metrics = {f"{split}/{metric}": value for _, split, client, metric, value in done.rows if client is None}
        self._each(lambda name, tracker: tracker.log(done.round, metrics))

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._record is None:
            return
        self._tell_the_past()
        info = self._record.info
        status = "failed" if info["status"] == "running" else info["status"]  # the disk was full, even for the status
        files = [self._record.path / name for name in FILES]
        self._each(lambda name, tracker: tracker.finish(status, files, info["error"]))

    def _tell_the_past(self, before: float = math.inf) -> None:
        """Tell of the rounds before this one that earlier processes have finished; once."""
        record = self._record

        def tell(name: str, tracker: Tracker) -> None:
            for round, metrics in _rounds(record) if record else ():
                if round < before:
                    tracker.log(round, metrics)

        if not self._told:
            self._each(tell)
        self._told = True

    def _each(self, call: Callable[[str, Tracker], object]) -> None:
        """Call something with every tracker; those that fail are named and left out from then on."""
        for name, tracker in list(self.trackers.items()):
            try:
                call(name, tracker)
            except Exception as error:
                del self.trackers[name]
                why = f"{type(error).__name__}: {error}"
                logger.warning("logger %s failed and is told no more; the run directory has everything: %s", name, why)


def _rounds(record: RunDirectory) -> Iterator[tuple[int, dict[str, float]]]:
    """The aggregate metrics in a run directory, by round, ascending."""
    table = read_run(record.path).metrics
    own = table.client < 0
    columns = (table.round[own].tolist(), table.split[own], table.metric[own], table.value[own].tolist())
    for round, rows in groupby(zip(*columns, strict=True), key=lambda row: row[0]):
        yield round, {f"{split}/{metric}": value for _, split, metric, value in rows}
