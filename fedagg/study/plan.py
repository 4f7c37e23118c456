"""What a study consists of: a YAML file, and the runs that follow from it. docs/studies.md shows one with all keys."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from fedagg.console import suggest
from fedagg.errors import ConfigError
from fedagg.overrides import matching, parsed, values_of, written
from fedagg.study.tuned import Settings

SETTINGS = ("workers", "launcher", "address", "store")  # how a study is carried out; also study.KEY on the command line
LAUNCHERS = ("local", "ray")
KEYS = ("question", "config", "axes", "runs", "skip", "seeds", "report", "tune", "tuned", *SETTINGS)
LISTED = "listed"  # the axis of the listed runs
RESERVED = ("run", "seed", LISTED, "round", "split", "client", "metric", "value")
REPORT_KEYS = ("metric", "protocol", "rows")
Overrides = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One run of a study: where it stands on the axes, and the overrides that make it."""

    axes: dict[str, str]
    seed: int
    overrides: tuple[str, ...]

    @property
    def title(self) -> str:
        """The job in a few words."""
        return " ".join([*(f"{name}={label}" for name, label in self.axes.items()), f"seed={self.seed}"])


@dataclass(frozen=True)
class Study:
    """A study as its file describes it.

    Args:
        name: that of its folder.
        folder: where the file is; config groups of its own may lie beside it.
        question: what it is to answer.
        config: overrides all runs share, by key.
        axes: axis -> label of a point -> the overrides it stands for.
        runs: further overrides, one mapping per listed run.
        skip: combinations of labels that are left out.
        seeds: the seeds of every point.
        report: ``metric`` and ``protocol`` of its report, and the axis whose points are its ``rows``.
        tune: what ``fedagg tune`` searches; see ``fedagg.study.tune.Search``.
        tuned: the table of what it found, from which every run takes the setting of its place.
        workers: runs at once; None is as many as the cores have room for, and one on Ray.
        launcher: ``local``, processes of this machine, or ``ray``.
        address: of the cluster that Ray's launcher joins; None starts one here.
        store: folder of the runs.
        forced: overrides of the command line as they were typed, by key; they win over everything else.
    """

    name: str
    folder: Path
    question: str = ""
    config: Overrides = field(default_factory=dict)
    axes: dict[str, dict[str, Overrides]] = field(default_factory=dict)
    runs: tuple[Overrides, ...] = ()
    skip: tuple[dict[str, str], ...] = ()
    seeds: tuple[int, ...] = (0,)
    report: dict[str, str] = field(default_factory=dict)
    tune: dict[str, Any] = field(default_factory=dict)
    tuned: Path | None = None
    workers: int | None = None
    launcher: str = "local"
    address: str | None = None
    store: Path = Path("runs")
    forced: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, where: str | Path) -> Study:
        """Read a study from its file, its folder, or by its name below ``experiments``.

        Raises:
            ConfigError: naming the file and what is wrong in it.
        """
        file = find(where)
        try:
            raw = OmegaConf.to_container(OmegaConf.load(file))  # as configs are read: 1e-3 is a number, a date is text
        except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
            raise ConfigError(f"{file} cannot be read: {' '.join(str(error).split())}") from None
        try:
            return cls(file.parent.resolve().name, file.parent.resolve())._filled(raw)
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from None

    def _filled(self, raw: Any) -> Study:
        if not isinstance(raw, Mapping) or not raw:
            raise ConfigError(f"a study is a mapping with the keys {', '.join(KEYS)}")
        for key in raw:
            known(str(key), KEYS, "a study")
        report = _mapping(raw.get("report"), "report")
        for key in report:
            known(str(key), REPORT_KEYS, "report")
        axes = {
            str(name): _points(str(name), points, self.folder) for name, points in _mapping(raw.get("axes"), "axes").items()
        }
        study = replace(
            self,
            question=str(raw.get("question", "")),
            config=_flat(_mapping(raw.get("config"), "config")),
            axes=axes,
            runs=tuple(_flat(_mapping(run, "runs")) for run in _sequence(raw.get("runs"), "runs")),
            skip=tuple(
                {str(axis): label_of(label) for axis, label in _mapping(cell, "skip").items()}
                for cell in _sequence(raw.get("skip"), "skip")
            ),
            seeds=_seeds(raw.get("seeds", (0,))),
            tune=dict(_mapping(raw.get("tune"), "tune")),
            tuned=self.folder / str(raw["tuned"]) if raw.get("tuned") is not None else None,
            report={key: str(value) for key, value in report.items()},
            store=Path("runs") / self.name,
        )
        for key in SETTINGS:
            if key in raw:
                study = study._set(key, raw[key])
        if "rows" in study.report:
            known(study.report["rows"], study.axes, "report.rows")
        for cell in study.skip:
            for axis, label in cell.items():
                known(axis, study.axes, "skip")
                known(label, study.axes[axis], f"skip.{axis}")
        return study

    def with_overrides(self, overrides: Sequence[str]) -> Study:
        """Return the study with keys changed as on the command line: an axis, ``seed``, or a key that all runs share.

        ``strategy=krum,median`` and ``seed=0,1`` replace the points of an axis, or make a new one.
        """
        study = self
        for override in overrides:
            key = override.partition("=")[0]
            values = values_of(override, self.folder)
            if key.startswith("study."):
                known(key.removeprefix("study."), SETTINGS, "study")
                study = study._set(key.removeprefix("study."), values[0])
            elif key == "seed":
                study = replace(study, seeds=_seeds(values))
            elif key in study.axes:
                study = replace(study, axes={**study.axes, key: study._narrowed(key, values)})
            elif parsed(override).is_sweep_override():
                study = replace(study, axes={**study.axes, key: _points(key, values, self.folder)})
            else:
                study = replace(study, forced={**study.forced, key: override})
        return study

    def jobs(self) -> list[Job]:
        """Return the runs in their order: axes as they are written, the last one fastest, seeds fastest of all.

        Raises:
            ConfigError: everything was skipped.
        """
        listed = {_told(run): run for run in self.runs}
        axes = {**self.axes, **({LISTED: listed} if listed else {})}
        jobs = []
        for labels in product(*axes.values()):
            place = dict(zip(axes, labels, strict=True))
            if any(all(place[axis] == label for axis, label in cell.items()) for cell in self.skip):
                continue
            jobs += [self.job(place, seed, axes) for seed in self.seeds]
        if not jobs:
            raise ConfigError(f"the study {self.name} has no run: all of them are skipped, or an axis has no points")
        return jobs

    def job(self, place: Mapping[str, str], seed: int, axes: Mapping[str, Mapping[str, Overrides]]) -> Job:
        """Return the job at one place on these axes."""
        merged = dict(self.config)
        for axis, label in place.items():
            merged.update(axes[axis][label])
        if self._settings:
            merged.update(self._settings.at(place))
        if "seed" in merged:
            raise ConfigError("seeds go under seeds:, or as seed=0,1 on the command line, and not into config, axes or runs")
        kept = (written(key, value) for key, value in merged.items() if key not in self.forced)
        return Job(dict(place), seed, (*kept, *self.forced.values(), f"seed={seed}"))

    @cached_property
    def _settings(self) -> Settings | None:  # read when it is needed: the search that writes it loads the study as well
        return Settings.read(self.tuned) if self.tuned else None

    def _set(self, key: str, value: Any) -> Study:
        """Return the study carried out in another way."""
        if key == "workers" and value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ConfigError(f"study.workers must be an integer >= 1; got {value}")
        if key == "launcher":
            known(str(value), LAUNCHERS, "study.launcher")
        if key == "store" and not isinstance(value, str):
            raise ConfigError(f"study.store must be a folder; got {value}")
        changed: dict[str, Any] = {key: Path(value) if key == "store" else value}
        return replace(self, **changed)

    def _narrowed(self, axis: str, values: Sequence[Any]) -> dict[str, Overrides]:
        """Return other points of an axis; one of named points can only be narrowed. A name means the point that bears it."""
        named = self.axes[axis]
        if all(set(point) == {axis} for point in named.values()):
            return {label: named.get(label, point) for label, point in _points(axis, values, self.folder).items()}
        for value in values:
            known(label_of(value), named, f"axis {axis}")
        return {label_of(value): named[label_of(value)] for value in values}


def find(where: str | Path) -> Path:
    """Return the file of a study, given itself, its folder, or its name below ``experiments``.

    Raises:
        ConfigError: naming the studies there are.
    """
    path = Path(where)
    roots = [Path("experiments"), Path(__file__).resolve().parents[2] / "experiments"]
    for candidate in (path, *(root / path for root in roots)):
        if candidate.is_file():
            return candidate
        if (candidate / "study.yaml").is_file():
            return candidate / "study.yaml"
    names = sorted({file.parent.name for root in roots for file in root.glob("*/study.yaml")})
    known = ", ".join(names) or "none"
    raise ConfigError(f"no study {where}{suggest(str(where), names)}: there is no study.yaml. Known: {known}")


def _points(axis: str, points: Any, folder: Path) -> dict[str, Overrides]:
    if axis in RESERVED:
        raise ConfigError(f"an axis cannot be called {axis}: that is a column of the table. Seeds go under seeds:")
    if isinstance(points, str):
        points = matching(points, axis, folder)
    if isinstance(points, Mapping):
        return {label_of(label): _flat(_mapping(overrides, f"axes.{axis}.{label}")) for label, overrides in points.items()}
    values = _sequence(points, f"axes.{axis}")
    if not values:
        raise ConfigError(f"axes.{axis} has no points")
    made = {label_of(value): {axis: value} for value in values}
    if len(made) < len(values):
        raise ConfigError(f"axes.{axis} names a point twice: {', '.join(map(label_of, values))}")
    return made


def label_of(value: Any) -> str:
    """Return what a value is called on an axis, the same for ``1e-3`` in a file and on the command line."""
    return value if isinstance(value, str) else json.dumps(value)


def _told(run: Overrides) -> str:
    return ",".join(f"{key}={label_of(value)}" for key, value in run.items())


def _seeds(raw: Any) -> tuple[int, ...]:
    seeds = tuple(range(raw)) if isinstance(raw, int) and not isinstance(raw, bool) else tuple(_sequence(raw, "seeds"))
    wrong = [seed for seed in seeds if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0]
    if wrong or not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds must be how many, or a list of different integers >= 0; got {raw}")
    return seeds


def _flat(config: Mapping[str, Any], prefix: str = "") -> Overrides:
    """Return nested keys with dots: ``{partition: {alpha: 1}}`` is ``partition.alpha``."""
    flat: Overrides = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _mapping(raw: Any, what: str) -> Mapping[str, Any]:
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{what} must be a mapping of keys to values; got {raw!r}")
    return raw


def _sequence(raw: Any, what: str) -> Sequence[Any]:
    if raw is None:
        return ()
    if isinstance(raw, str) or not isinstance(raw, Sequence):
        raise ConfigError(f"{what} must be a list; got {raw!r}")
    return raw


def known(name: str, names: Sequence[str] | Mapping[str, Any], where: str) -> None:
    """Raise ``ConfigError``, with the nearest right name, unless ``name`` is one of these."""
    if name not in names:
        raise ConfigError(f"{where} has no {name}{suggest(name, names)}; it has {', '.join(names)}")
