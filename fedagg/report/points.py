"""Tables whose rows are the points of a study's axis, where strategies alone would not do.

A method is often more than a strategy: a learning rate that was tuned for it, a half that runs at the clients. As settings
these would put every method into a table of its own.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedagg.errors import ConfigError
from fedagg.report.grouping import METHOD, flatten
from fedagg.results import Run

Place = dict[str, str]
OWN = "each its own"


def as_strategies(runs: Sequence[Run], axis: str) -> list[Run]:
    """Return the runs of a study as if each point of an axis were a strategy, called as it is there.

    Settings that follow from the point are then part of the row. A setting does if it is the same wherever all axes stand
    alike, and changes with the point at some place of the others. Where the attack does, its column is ``each its own``.

    Args:
        runs: read from the store of a study.
        axis: one of its axes.

    Raises:
        ConfigError: a run was not placed on this axis by a study.
    """
    stores = {store: _places(store) for store in {run.path.resolve().parent for run in runs}}
    places = [stores[run.path.resolve().parent].get(run.path.resolve().name, {}) for run in runs]
    for run, place in zip(runs, places, strict=True):
        if axis not in place:
            axes = f"the axes of its study are {', '.join(place)}" if place else "no study placed it on axes"
            raise ConfigError(f"rows={axis}: {run.path} has no point on that axis; {axes}")
    own = _own_settings(runs, places, axis)
    return [_as_strategy(run, place[axis], own) for run, place in zip(runs, places, strict=True)]


def _places(store: Path) -> dict[str, Place]:
    """Return run -> axis -> point, as the manifest of a study tells; empty where there is none."""
    with suppress(OSError, ValueError, KeyError, TypeError):  # whoever opens the study complains
        return {job["run"]: job["axes"] for job in json.loads((store / "study.json").read_text(encoding="utf-8"))["jobs"]}
    return {}


def _own_settings(runs: Sequence[Run], places: Sequence[Place], axis: str) -> set[str]:
    """Return the keys, of configs and labels, that follow from the point."""
    found: dict[str, dict[Any, dict[str, set[str]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(set)))
    facts = [{**flatten(run.config), **run.label} for run in runs]
    keys = {key for fact in facts for key in fact}
    for run, place, fact in zip(runs, places, facts, strict=True):
        if run.status != "completed":
            continue  # others may have no config
        rest = (run.seed, *((name, point) for name, point in place.items() if name != axis))
        for key in keys:
            found[key][rest][place[axis]].add(fact.get(key, ""))
    return {key for key, by_rest in found.items() if _follows(list(by_rest.values()))}


def _follows(by_rest: Sequence[Mapping[str, set[str]]]) -> bool:
    alike = all(len(values) == 1 for by_point in by_rest for values in by_point.values())
    return alike and any(len(set.union(*by_point.values())) > 1 for by_point in by_rest)


def _as_strategy(run: Run, point: str, own: set[str]) -> Run:
    label = {key: value for key, value in run.label.items() if key not in own} | {"strategy": point}
    if "attack" in own:
        label["attack"] = OWN
    return replace(run, info={**run.info, "label": label}, config=_without(run.config, own))


def _without(config: Mapping[str, Any], own: set[str], prefix: str = "") -> dict[str, Any]:
    """Return a config without these keys; those of a method, which are no settings, stay."""
    kept: dict[str, Any] = {}
    for key, value in config.items():
        if not prefix and key in METHOD:
            kept[key] = value
        elif isinstance(value, Mapping) and value:
            if rest := _without(value, own, f"{prefix}{key}."):
                kept[key] = rest
        elif f"{prefix}{key}" not in own:
            kept[key] = value
    return kept
