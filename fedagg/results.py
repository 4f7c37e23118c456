"""What a run leaves behind, and how it is read back.

A run directory holds ``config.yaml`` (the resolved config), ``run.json`` (one record of what ran and how it ended),
``metrics.csv`` (tidy, append-only, deterministic) and ``timing.csv`` (the wall clock, kept apart because it never repeats).
All four are plain text: ``pandas.read_csv("metrics.csv")`` needs nothing from here.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]
from numpy.typing import NDArray

from fedagg.disk import write_whole, writing
from fedagg.errors import ConfigError, FedaggError

FORMAT = 1
METRICS_HEADER = ("round", "split", "client", "metric", "value")
TIMING_HEADER = ("round", "phase", "seconds")
TABLES = {"metrics.csv": METRICS_HEADER, "timing.csv": TIMING_HEADER}
FILES = ("run.json", "config.yaml", "model.pt", *TABLES)
RESULT_KEYS = ("device", "executor", "precision", "threads", "batch")  # engine settings that can change the bits of a result
ENDS = ("completed", "failed", "interrupted")

MetricRow = tuple[int, str, int | None, str, float]
TimingRow = tuple[int, str, float]
Series = tuple[NDArray[np.int64], NDArray[np.float64]]


class RunDirectory:
    """The writer of one run directory. Whatever it has been given is on disk when the call returns.

    ``run.json`` is replaced as a whole, so a reader never meets half of it; the two tables only grow, so a process that is
    killed loses at most the line it was writing, and readers ignore that line.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "krum-0"
        >>> run = RunDirectory.create(path, {"seed": 0}, {"strategy": "krum", "attack": "alie"}, seed=0, rounds=1)
        >>> run.append([(1, "test", None, "accuracy", 0.5), (1, "client", 7, "accuracy", 0.25)])
        >>> run.finish("completed")
        >>> read_run(path).series("accuracy")
        (array([1]), array([0.5]))
    """

    def __init__(self, path: Path, info: dict[str, Any]) -> None:
        self.path, self.info = path, info

    @classmethod
    def create(
        cls, path: str | Path, config: Mapping[str, Any], label: Mapping[str, str], seed: int, **fields: Any
    ) -> RunDirectory:
        """Start a run in a directory that holds none, or one that was killed while it was being made.

        Other files there (logs, ``.hydra``) are left alone.

        Args:
            path: the directory; made if it does not exist.
            config: the resolved config, of plain dicts, lists and scalars.
            label: the short names that tables group by: strategy, attack, data, model, partition.
            seed: the run's seed.
            fields: whatever else is known at the start and belongs in ``run.json`` (rounds, command, versions, ...).

        Raises:
            ConfigError: the directory already holds a run. Nothing is overwritten.
        """
        path = Path(path)
        started = datetime.now(UTC).isoformat()
        info: dict[str, Any] = {"format": FORMAT, "status": "running", "label": dict(label), "seed": seed}
        info |= {"rounds": None, "rounds_done": 0, "command": "", "versions": {}, "hardware": {}, "data": {}, "byzantine": []}
        info |= {"error": None, "started": started, "finished": None, "parameters": None} | fields
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
        taken = ConfigError(
            f"{path} already holds a run, and results are never overwritten; choose another directory with hydra.run.dir=..."
        )
        if half_made(path):
            (path / "run.json").unlink()
        elif (path / "metrics.csv").exists():
            raise taken
        try:
            write_whole(path / "run.json", _json(info), replace=False)
        except FileExistsError:
            raise taken from None
        write_whole(path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
        for name, header in TABLES.items():
            write_whole(path / name, ",".join(header) + "\n")
        return cls(path, info)

    @classmethod
    def reopen(cls, path: str | Path) -> RunDirectory:
        """Go on with a run that was not completed; nobody else may be writing it. What a killed process left half goes.

        Raises:
            ConfigError: there is no run, or it is complete.
        """
        path = Path(path)
        info = read_info(path)
        if info.get("status") == "completed":
            raise ConfigError(f"the run in {path} is complete; there is nothing to go on with")
        for torn in (file for name in FILES for file in path.glob(f".{name}.*")):
            torn.unlink(missing_ok=True)
        directory = cls(path, info)
        directory.update(status="running", error=None, finished=None)
        return directory

    def ends(self) -> dict[str, int]:
        """Return the lengths in bytes of the two tables, which are on the disk up to there when the call returns."""
        lengths = {}
        for name in TABLES:
            with writing(self.path / name), open(self.path / name, "rb") as file:
                os.fsync(file.fileno())
                lengths[name] = file.seek(0, os.SEEK_END)
        return lengths

    def cut(self, ends: Mapping[str, int] | None = None) -> None:
        """Cut the two tables back to these lengths; None leaves their headers.

        Raises:
            FedaggError: a table is shorter than that, so something has been lost.
        """
        for name, header in TABLES.items():
            end = len(",".join(header)) + 1 if ends is None else ends[name]
            with writing(self.path / name), open(self.path / name, "r+b") as file:
                length = file.seek(0, os.SEEK_END)
                if length < end:
                    raise FedaggError(
                        f"{self.path / name} has lost lines since the checkpoint: it holds {length} bytes, and held {end}. "
                        "Put the whole file back, or start over in a new directory"
                    )
                file.truncate(end)

    def append(self, rows: Iterable[MetricRow]) -> None:
        """Add rows ``(round, split, client, metric, value)``; ``client`` is None for an aggregate."""
        rows = list(rows)
        self._add("metrics.csv", ((r, s, "" if c is None else int(c), m, repr(float(v))) for r, s, c, m, v in rows))
        self.info["rounds_done"] = max([self.info["rounds_done"], *(row[0] for row in rows)])  # written when the run ends

    def append_timing(self, rows: Iterable[TimingRow]) -> None:
        """Add rows ``(round, phase, seconds)``."""
        self._add("timing.csv", ((r, phase, repr(float(seconds))) for r, phase, seconds in rows))

    def update(self, **fields: Any) -> None:
        """Change fields of ``run.json``, atomically."""
        self.info.update(fields)
        write_whole(self.path / "run.json", _json(self.info))

    def finish(self, status: str, error: str | None = None, **fields: Any) -> None:
        """Record how the run ended: completed, failed or interrupted; and further fields of ``run.json``."""
        if status not in ENDS:
            raise ValueError(f"a run ends as one of {', '.join(ENDS)}; got {status!r}")
        self.update(status=status, error=error, finished=datetime.now(UTC).isoformat(), **fields)

    def _add(self, name: str, rows: Iterable[tuple[Any, ...]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        with writing(self.path / name), open(self.path / name, "a", encoding="utf-8", newline="") as file:
            file.write(text.getvalue())


@dataclass(frozen=True)
class Metrics:
    """The rows of ``metrics.csv`` as columns of equal length; ``client`` is -1 for an aggregate."""

    round: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    split: NDArray[np.object_] = field(default_factory=lambda: np.empty(0, object))
    client: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    metric: NDArray[np.object_] = field(default_factory=lambda: np.empty(0, object))
    value: NDArray[np.float64] = field(default_factory=lambda: np.empty(0, np.float64))

    def __len__(self) -> int:
        return len(self.round)


@dataclass(frozen=True)
class Run:
    """A run read back. Where it cannot be read, ``problem`` says why and its status is ``unreadable``."""

    path: Path
    info: dict[str, Any]
    config: dict[str, Any]
    metrics: Metrics
    problem: str | None = None

    @property
    def status(self) -> str:
        """running, completed, failed, interrupted or unreadable."""
        return "unreadable" if self.problem else str(self.info.get("status"))

    @property
    def label(self) -> dict[str, str]:
        """The short names of what ran: strategy, attack, data, model, partition."""
        return {key: str(value) for key, value in (self.info.get("label") or {}).items()}

    @property
    def seed(self) -> int | None:
        """The run's seed."""
        return self.info.get("seed")

    @cached_property
    def names(self) -> list[str]:
        """Every aggregate metric there is, as ``split/metric``."""
        rows = self.metrics.client < 0
        return sorted({f"{s}/{m}" for s, m in zip(self.metrics.split[rows], self.metrics.metric[rows], strict=True)})

    def series(self, metric: str, split: str = "test", client: int | None = None) -> Series:
        """Rounds, ascending, and the metric's value in each; of a round that was written twice the later value."""
        rows = self.metrics
        pick = (rows.metric == metric) & (rows.split == split) & (rows.client == (-1 if client is None else client))
        found = dict(zip(rows.round[pick].tolist(), rows.value[pick].tolist(), strict=True))
        rounds = sorted(found)
        return np.array(rounds, np.int64), np.array([found[r] for r in rounds], np.float64)


def half_made(path: Path) -> bool:
    """Whether a directory holds a run that was killed before it had all its files, so before anything was computed."""
    metrics = path / "metrics.csv"
    if not (path / "run.json").exists() or (path / "timing.csv").exists():
        return False
    empty = not metrics.exists() or metrics.stat().st_size <= len(",".join(METRICS_HEADER)) + 1
    return empty and read_info(path).get("status") == "running"


def read_run(path: str | Path) -> Run:
    """Read one run directory. A last line that was torn by a kill is ignored.

    Raises:
        ConfigError: there is no run in the directory.
        FedaggError: the run's files are damaged; the message says which one and how.
    """
    path = Path(path)
    info = read_info(path)
    try:
        config = yaml.load((path / "config.yaml").read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FedaggError(f"{path / 'config.yaml'} cannot be read: {_first_line(error)}") from None
    if not isinstance(config, dict):
        raise FedaggError(f"{path / 'config.yaml'} holds no mapping")
    return Run(path, info, config, _read_metrics(path / "metrics.csv"))


def find_runs(*paths: str | Path) -> list[Run]:
    """Every run in or below the paths, each once, sorted by directory; in the store of a study without those superseded.

    A run that cannot be read is among them, with an empty table and its ``problem`` in words.

    Raises:
        ConfigError: a path does not exist, or holds no run.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise ConfigError(f"{path} does not exist; give a run directory or a folder that holds some")
        directories = sorted(_run_directories(path))
        if not directories:
            raise ConfigError(f"no run in {path}: neither it nor a folder below it holds a run.json")
        for directory in directories:
            found.setdefault(directory.resolve(), directory)
    return [_read_or_explain(directory) for directory in sorted(found.values())]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings in which two resolved configs differ, with both values, if they can change a result.

    How often checkpoints are written, where clients run and what else shows the run cannot: those settings may differ.
    """
    before, after = dict(flat(old)), dict(flat(new))
    pairs = {key: (before.get(key, "(absent)"), after.get(key, "(absent)")) for key in sorted(before.keys() | after.keys())}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1] and _matters(key)}


def run_id(config: Mapping[str, Any]) -> str:
    """Return what names the run of a resolved config: 12 hexadecimal digits of the hash of what can change its result."""
    settings = {key: value for key, value in flat(config) if _matters(key)}
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:12]


def check_same(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise ``ConfigError``, listing the settings that differ, unless what ``path`` holds is a run of this config."""
    if changed := differences(old, new):
        lines = [f"{key}: {before} there, {now} here" for key, (before, now) in changed.items()]
        raise ConfigError("\n  ".join([f"{path} holds a run of another config:", *lines]))


def _matters(key: str) -> bool:
    group, _, rest = key.partition(".")
    return group not in ("checkpoint", "resume", "logger") and not (group == "engine" and rest not in RESULT_KEYS)


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings of a config by dotted keys."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _run_directories(path: Path) -> Iterator[Path]:
    if path.is_file():
        path = path.parent
    for folder, folders, files in os.walk(path, followlinks=False):
        if "study.json" in files:
            with suppress(OSError, ValueError, AttributeError):  # whoever opens the study complains
                left_out = set(json.loads((Path(folder) / "study.json").read_text(encoding="utf-8")).get("superseded", []))
                folders[:] = set(folders) - left_out
        folders.sort()
        if "run.json" in files:
            yield Path(folder)


def _read_or_explain(path: Path) -> Run:
    try:
        return read_run(path)
    except FedaggError as error:
        return Run(path, {}, {}, Metrics(), problem=str(error))


def read_info(path: Path) -> dict[str, Any]:
    """Return what ``run.json`` holds, which the writer replaces as a whole.

    Raises:
        ConfigError: there is none.
        FedaggError: it is damaged, or of another version.
    """
    file = path / "run.json"
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no run in {path}: it holds no run.json") from None
    except (OSError, ValueError) as error:
        raise FedaggError(f"{file} cannot be read: {_first_line(error)}") from None
    if not isinstance(info, dict) or not isinstance(info.get("label", {}), dict):
        raise FedaggError(f"{file} is not the record of a run")
    if info.get("format") != FORMAT:
        raise FedaggError(f"{file} has format {info.get('format')}; this version reads format {FORMAT}")
    return info


def _read_metrics(file: Path) -> Metrics:
    try:
        head, *lines = _whole_lines(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise FedaggError(f"{file} cannot be read: {_first_line(error)}") from None
    if tuple(head.strip().split(",")) != METRICS_HEADER:
        raise FedaggError(f"{file} should begin with {','.join(METRICS_HEADER)}; it begins with {head.strip()!r}")
    names: dict[str, str] = {}  # one object per name: a long table then costs a pointer per row
    rounds, splits, clients, metrics, values = [], [], [], [], []
    table = csv.reader(lines)
    try:
        for r, split, client, metric, value in table:
            rounds.append(int(r))
            splits.append(names.setdefault(split, split))
            clients.append(int(client) if client else -1)
            metrics.append(names.setdefault(metric, metric))
            values.append(float(value))
    except (ValueError, csv.Error) as error:
        raise FedaggError(f"{file} is damaged at line {table.line_num + 1}: {_first_line(error)}") from None
    return Metrics(
        np.array(rounds, np.int64),
        np.array(splits, object),
        np.array(clients, np.int64),
        np.array(metrics, object),
        np.array(values, np.float64),
    )


def _whole_lines(text: str) -> list[str]:
    """The lines that end in a newline, which keep it; a file without any counts as one empty line."""
    lines = text.split("\n")[:-1]
    return [line + "\n" for line in lines] or [""]


def _json(info: dict[str, Any]) -> str:
    return json.dumps(info, indent=2, ensure_ascii=False, default=_plain) + "\n"


def _plain(value: Any) -> Any:
    """NumPy scalars and arrays as numbers and lists, anything else as its text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
