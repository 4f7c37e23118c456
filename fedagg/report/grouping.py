"""Which runs belong into one cell of a table: same setting, same strategy, same attack, and only the seed differs."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedagg.console import method
from fedagg.results import Run

NO_ATTACK = "none"
UNNAMED = "unnamed"

# Top-level keys that are the axes of a table, follow from others, or cannot change a number in metrics.csv.
# ``trusted`` is among them, since it is what the strategy asks for.
METHOD = {"strategy", "weighting", "pre_aggregators", "pre_aggregation", "trusted", "attack"}
NOT_A_SETTING = METHOD | {"seed", "task", "engine", "callbacks", "logger", "checkpoint", "resume"}
# How many attackers there are is a setting and no part of an attack; in a run without an attack it says little.
ABOUT_ATTACKERS = ("attack.fraction", "attack.sampling", "f")
KNOWLEDGE = {
    "own": "their own data and updates",
    "corrupted": "the honest updates of corrupted clients",
    "honest": "all honest updates",
    "aggregator": "all honest updates and the rule",
    "history": "all honest updates, the rule and the last aggregate",
}

Facts = dict[str, str]
Setting = tuple[Facts, list[Run], Facts]  # what tells it apart, its runs, and all that is fixed in it
Key = tuple[str | None, ...]


@dataclass(frozen=True)
class Note:
    """Something the reader of a table must know: a sentence, and the things it is about."""

    text: str
    items: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text + (": " + "; ".join(self.items) if self.items else "")

    def short(self, limit: int = 4) -> str:
        """The sentence with its first few items and a count of the others."""
        more = len(self.items) - limit
        if more <= 1:
            return str(self)
        return f"{self.text}: {'; '.join(self.items[:limit])}; and {more} more"


@dataclass(frozen=True)
class Group:
    """The runs of one setting, by (strategy, attack) and in the order of their seeds.

    ``setting`` is what tells it apart from the others, ``facts`` all that is fixed in its attacked runs.
    """

    setting: Facts
    cells: dict[tuple[str, str], list[Run]]
    facts: Facts

    @property
    def title(self) -> str:
        """The keys in which this setting differs from the others, e.g. ``partition.alpha=0.1``."""
        return in_words(self.setting)


def in_words(facts: Mapping[str, str]) -> str:
    """``data=digits, partition.alpha=0.1``."""
    return ", ".join(f"{key}={value}" for key, value in facts.items())


def group_runs(runs: Iterable[Run]) -> tuple[list[Group], list[Note]]:
    """Sort runs into settings and cells, and say what was left out or joined on the way."""
    runs = list(runs)
    done, notes = _completed(runs)
    settings, joined = _settings(done)
    notes += joined
    rows, row_notes = _variants(settings, "strategy", "attack")
    columns, column_notes = _variants(settings, "attack", "strategy")
    notes += row_notes + column_notes
    groups, replaced = [], []
    for setting, members, facts in settings:
        cells: dict[tuple[str, str], dict[Any, Run]] = {}
        for run in sorted(members, key=lambda run: str(run.info.get("started"))):
            cell = cells.setdefault((rows[run.path], columns[run.path]), {})
            if run.seed in cell:
                replaced.append(f"{cell[run.seed].path} gives way to {run.path}")
            cell[run.seed] = run
        ordered = {at: [cell[s] for s in sorted(cell, key=natural)] for at, cell in cells.items()}
        groups.append(Group(setting, ordered, facts))
    if replaced:
        replaced = sorted(set(replaced))
        notes.append(Note(f"{_runs(len(replaced))} repeated with the same seed; the latest started is kept", tuple(replaced)))
    seen: dict[str, set[str]] = {}
    for run in done:
        if kind := run.info.get("knowledge"):
            seen.setdefault(KNOWLEDGE.get(str(kind), str(kind)), set()).add(columns[run.path])
    if seen:
        items = tuple(f"{what} ({', '.join(sorted(attacks))})" for what, attacks in sorted(seen.items()))
        notes.append(Note("What attackers see", items))
    versions = _versions(done)
    if versions:
        notes.append(Note("The runs were made with different versions", versions))
    return groups, notes


def _completed(runs: Sequence[Run]) -> tuple[list[Run], list[Note]]:
    done = [run for run in runs if run.status == "completed"]
    notes = []
    unfinished = [run for run in runs if run.status not in ("completed", "unreadable")]
    if unfinished:
        items = tuple(f"{run.path} ({_how_far(run)})" for run in unfinished)
        notes.append(Note(f"{len(unfinished)} of {_runs(len(runs))} left out, not completed", items))
    broken = [run for run in runs if run.status == "unreadable"]
    if broken:
        items = tuple(str(run.problem) for run in broken)
        notes.append(Note(f"{len(broken)} of {_runs(len(runs))} left out, unreadable", items))
    cut = [run for run in done if _is_cut(run)]
    if cut:
        items = tuple(f"{run.path} (to round {_last(run)} of {run.info.get('rounds_done')})" for run in cut)
        notes.append(Note(f"{len(cut)} of {_runs(len(runs))} lost the end of metrics.csv, and are read up to there", items))
    return done, notes


def _is_cut(run: Run) -> bool:
    """Whether a completed run has lost lines: its rounds are not all there, or its last line has no end."""
    with open(run.path / "metrics.csv", "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n" or _last(run) < int(run.info.get("rounds_done") or 0)


def _last(run: Run) -> int:
    return int(run.metrics.round.max(initial=0))


def _how_far(run: Run) -> str:
    done = max(_last(run), int(run.info.get("rounds_done") or 0))  # a killed run has told only its metrics how far it came
    rounds = f"{run.status} after {done} of {run.info.get('rounds') or '?'} rounds"
    error = str(run.info.get("error") or "").strip().splitlines()
    return f"{rounds}: {error[0]}" if error else rounds


def _settings(runs: Sequence[Run]) -> tuple[list[Setting], list[Note]]:
    facts = _without_seeds(runs, [_setting_facts(run) for run in runs])
    named, also = distinguishing(facts)
    differing = named + also
    notes = []
    members: dict[Key, list[Run]] = {}
    for run, fact in zip(runs, facts, strict=True):
        members.setdefault(tuple(fact.get(key) for key in differing), []).append(run)
    moot = [key for key in differing if key in ABOUT_ATTACKERS]
    if moot:
        members, lent = _lend_clean_runs(members, [differing.index(key) for key in moot])
        if lent:
            notes.append(Note("Runs without an attack stand beside attacked ones although these settings differ", tuple(moot)))
    also = [key for key in also if key.split(".")[0] not in named]  # data=digits stands for all of data.*
    facts_of = {run.path: fact for run, fact in zip(runs, facts, strict=True)}

    def fixed(its_runs: Sequence[Run]) -> Facts:
        """What is fixed in attacked runs; clean ones may have been lent."""
        return facts_of[next((run for run in its_runs if _label(run, "attack") != NO_ATTACK), its_runs[0]).path]

    if len(members) == 1:
        return [({}, its_runs, fixed(its_runs)) for its_runs in members.values()], notes
    if also:
        notes.append(Note("These keys differ between the tables too", tuple(also)))
    settings = []
    for values, its_runs in members.items():
        setting = {key: value for key, value in zip(named, values, strict=False) if value is not None}
        settings.append((setting or dict.fromkeys(named, "unset"), its_runs, fixed(its_runs)))
    settings.sort(key=lambda parts: [(key, natural(value)) for key, value in parts[0].items()])
    return settings, notes


def _setting_facts(run: Run) -> dict[str, str]:
    """What is fixed in a run, in words: its label first, then every key of its config; the axes of a table aside."""
    flat = flatten(run.config)
    facts = run.label | {key: value for key, value in flat.items() if key not in run.label}
    facts = {
        key: value for key, value in facts.items() if key.split(".")[0] not in NOT_A_SETTING and key not in ABOUT_ATTACKERS
    }
    return facts | {key: flat[key] for key in ABOUT_ATTACKERS if key in flat}


def _without_seeds(runs: Sequence[Run], facts: list[dict[str, str]]) -> list[dict[str, str]]:
    """Leave out the keys that only repeat the run's seed, such as ``partition.seed`` where it is ``${seed}``."""
    pairs = list(zip(runs, facts, strict=True))
    seeds = {key for fact in facts for key in fact if key.endswith("seed")}
    tied = {key for key in seeds if all(fact.get(key, str(run.seed)) == str(run.seed) for run, fact in pairs)}
    return [{key: value for key, value in fact.items() if key not in tied} for fact in facts]


def _lend_clean_runs(settings: dict[Key, list[Run]], moot: Sequence[int]) -> tuple[dict[Key, list[Run]], bool]:
    """Give a table without clean runs of a strategy those of a table that holds nothing else, and drop the latter.

    The two may differ only at the ``moot`` places of their keys; of several lenders the one that differs least is taken.
    """

    def rest(key: Key) -> Key:
        return tuple(value for place, value in enumerate(key) if place not in moot)

    lenders = [key for key, runs in settings.items() if all(_label(run, "attack") == NO_ATTACK for run in runs)]
    borrowers = {key: list(runs) for key, runs in settings.items() if key not in lenders}
    taken = False
    for key, runs in borrowers.items():
        near = [lender for lender in lenders if rest(lender) == rest(key)]
        for lender in sorted(near, key=lambda lender: sum(lender[place] != key[place] for place in moot)):
            have = {_label(run, "strategy") for run in runs if _label(run, "attack") == NO_ATTACK}
            borrowed = [run for run in settings[lender] if _label(run, "strategy") not in have]
            runs += borrowed
            taken = taken or bool(borrowed)
    attacked = {rest(key) for key in borrowers}
    return borrowers | {key: settings[key] for key in lenders if rest(key) not in attacked}, taken


def _variants(settings: Sequence[Setting], axis: str, other: str) -> tuple[dict[Path, str], list[Note]]:
    """Name the rows (or columns): the label, and what tells configs of one label apart where they would share a cell."""
    names: dict[Path, str] = {}
    unlike = []
    everything = {run.path: run for _, members, _ in settings for run in members}
    for label in sorted({_label(run, axis) for run in everything.values()}):
        mine = [run for run in everything.values() if _label(run, axis) == label]
        facts = _without_seeds(mine, [_method_facts(run, axis) for run in mine])
        config_of = {run.path: fact for run, fact in zip(mine, facts, strict=True)}
        named, _ = distinguishing(facts)
        in_cell, in_table = defaultdict(set), defaultdict(set)
        met = defaultdict(set)
        for number, (_, members, _) in enumerate(settings):
            for run in members:
                if run.path in config_of:
                    config = tuple(sorted(config_of[run.path].items()))
                    in_cell[number, _label(run, other)].add(config)
                    in_table[number].add(config)
                    met[_told(config_of[run.path], named)].add(_label(run, other))
        ambiguous = any(len(configs) > 1 for configs in in_cell.values())
        for path, fact in config_of.items():
            told = _told(fact, named)
            names[path] = f"{label} ({told})" if ambiguous and told else label
        if not ambiguous and any(len(configs) > 1 for configs in in_table.values()):
            where = " and ".join(f"{told or 'other'} ({', '.join(sorted(met[told]))})" for told in sorted(met))
            unlike.append(f"{label} has {where}")
    return names, [Note(f"Not every {axis} is configured alike in all of its cells", tuple(unlike))] if unlike else []


def _method_facts(run: Run, axis: str) -> dict[str, str]:
    """The config of a strategy, with what is chosen beside it, or of an attack, as far as it is no setting."""
    beside = ("pre_aggregators", "weighting") if axis == "strategy" else ()
    parts = [run.config.get(key) for key in (axis, *beside)]
    facts = {key: value for part in parts if isinstance(part, Mapping) for key, value in flatten(part).items()}
    return {key: value for key, value in facts.items() if f"{axis}.{key}" not in ABOUT_ATTACKERS}


def _told(facts: Mapping[str, str], keys: Sequence[str]) -> str:
    return ", ".join(f"{key}={facts[key]}" for key in keys if key in facts)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested config as ``{"partition.alpha": "0.1"}``; a list is one value.

    Example:
        >>> flatten({"partition": {"alpha": 0.1}, "hidden": [64, 32]})
        {'partition.alpha': '0.1', 'hidden': '[64, 32]'}
    """
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat


def distinguishing(facts: Sequence[Mapping[str, str]]) -> tuple[list[str], list[str]]:
    """The keys that tell these apart, the fewest that do in order of appearance, and the keys that differ along with them."""
    keys = list(dict.fromkeys(key for fact in facts for key in fact))
    classes = [0] * len(facts)
    named: list[str] = []
    also: list[str] = []
    for key in keys:
        values = [fact.get(key) for fact in facts]
        if len(set(values)) < 2:
            continue
        numbers: dict[tuple[int, str | None], int] = {}
        finer = [numbers.setdefault(pair, len(numbers)) for pair in zip(classes, values, strict=True)]
        (named if len(numbers) > len(set(classes)) else also).append(key)
        classes = finer
    return named, also


def _versions(runs: Sequence[Run]) -> tuple[str, ...]:
    found: dict[str, set[str]] = {}
    for run in runs:
        for name, version in (run.info.get("versions") or {}).items():
            found.setdefault(str(name), set()).add(str(version))
    return tuple(f"{name} {', '.join(sorted(have))}" for name, have in sorted(found.items()) if len(have) > 1)


def _label(run: Run, axis: str) -> str:
    label = run.label.get(axis) or (NO_ATTACK if axis == "attack" else UNNAMED)
    return label if axis != "strategy" else method({**run.label, "strategy": label})


def natural(value: Any) -> tuple[int, float, str]:
    """Sort numbers as numbers, then words."""
    try:
        return 0, float(value), ""
    except (TypeError, ValueError):
        return 1, 0.0, str(value)


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
