"""The metric against a key that settings differ in: how much of an attack, or of heterogeneity, a strategy stands."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from fedagg.report.captions import MISSING, heading, judged, mean_of, text
from fedagg.report.grouping import NO_ATTACK, distinguishing, in_words
from fedagg.report.measures import Metric
from fedagg.report.sheets import Entry, Line, Sheet, mark_columns, rule_of_marks
from fedagg.report.summary import Estimate, Table

FRACTION = "attack.fraction"
KEYS = {FRACTION: "Byzantine fraction", "partition.alpha": "Dirichlet alpha"}
FOLLOWS = {FRACTION: ("f",)}  # what a server believes follows from how many attackers there are, unless it was set apart


@dataclass(frozen=True)
class Sweep:
    """Settings that differ in one key only.

    Args:
        key: which, such as ``partition.alpha``.
        setting: what tells this sweep apart from the others over the same key.
        tables: the settings by their value of the key, ascending; two at least.
    """

    key: str
    setting: dict[str, str]
    tables: dict[float, Table]

    @property
    def title(self) -> str:
        """The setting in words."""
        return in_words(self.setting)

    @property
    def words(self) -> str:
        """The key in words."""
        return f"{KEYS[self.key]} ({self.key})"

    @property
    def values(self) -> list[float]:
        """The values of the key, ascending."""
        return list(self.tables)

    @property
    def table(self) -> Table:
        """Any of the settings: they share metric, protocol and data."""
        return self.tables[self.values[0]]

    @property
    def metric(self) -> Metric:
        """What is measured."""
        return self.table.metric

    @cached_property
    def lines(self) -> dict[tuple[str, str], dict[float, Estimate]]:
        """By (strategy, attack), the estimate at each value of the key; at least two of them."""
        lines: dict[tuple[str, str], dict[float, Estimate]] = defaultdict(dict)
        for value, table in self.tables.items():
            for at, cell in table.cells.items():
                if self.key != FRACTION or at[1] != NO_ATTACK:  # nobody attacks, so there is no fraction
                    lines[at][value] = cell.estimate
        return {at: line for at, line in lines.items() if len(line) > 1}

    @property
    def strategies(self) -> list[str]:
        """Those that have a line."""
        return sorted({strategy for strategy, _ in self.lines})

    @property
    def attacks(self) -> list[str]:
        """Those under which there is a line, ``none`` first."""
        return sorted({attack for _, attack in self.lines}, key=lambda attack: (attack != NO_ATTACK, attack))


def find_sweeps(tables: Sequence[Table]) -> list[Sweep]:
    """Every set of settings that differ in one of the keys alone, and in what follows from it."""
    return [sweep for key in KEYS for sweep in _sweeps(tables, key) if sweep.lines]


def _sweeps(tables: Sequence[Table], key: str) -> list[Sweep]:
    placed = [(value, table) for table in tables if (value := _number(table.facts.get(key))) is not None]
    aside = {key, *FOLLOWS.get(key, ())}
    pools = _pool(placed, aside)
    if any(len({value for value, _ in pool}) < len(pool) for pool in pools):
        aside = {key}  # what might follow was set apart
        pools = _pool(placed, aside)
    pools = [pool for pool in pools if len(pool) > 1]
    facts = [{k: v for k, v in pool[0][1].facts.items() if k not in aside} for pool in pools]
    named, _ = distinguishing(facts)
    return [
        Sweep(key, {k: fact[k] for k in named if k in fact}, dict(sorted(pool, key=lambda pair: pair[0])))
        for pool, fact in zip(pools, facts, strict=True)
    ]


def _pool(placed: Iterable[tuple[float, Table]], aside: set[str]) -> list[list[tuple[float, Table]]]:
    pools = defaultdict(list)
    for value, table in placed:
        pools[tuple(sorted((k, v) for k, v in table.facts.items() if k not in aside))].append((value, table))
    return list(pools.values())


def _number(text: str | None) -> float | None:
    try:
        value = float(str(text))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def sweep_sheet(sweep: Sweep, name: str) -> Sheet:
    """The sweep as a table: a row per strategy and attack, a column per value."""
    rows = []
    for attack in sweep.attacks:
        strategies = [strategy for strategy in sweep.strategies if (strategy, attack) in sweep.lines]
        grid = [[sweep.lines[strategy, attack].get(value) for value in sweep.values] for strategy in strategies]
        for strategy, line in zip(strategies, mark_columns(grid, sweep.metric), strict=True):
            entries = [Entry(text(value, sweep.metric), mark) if value else Entry(MISSING) for value, mark in line]
            rows.append([Entry(f"{strategy}, {attack}"), *entries])
    caption = [mean_of(value for line in sweep.lines.values() for value in line.values()), judged(sweep.table)]
    caption.append(rule_of_marks(sweep.metric.best, "attack and column"))
    header = ["strategy, attack", *(f"{value:g}" for value in sweep.values)]
    return Sheet(name, f"{heading(sweep.metric)} against {sweep.words}", sweep.title, caption, header, rows)


def sweep_csv(sweep: Sweep) -> list[Line]:
    """The sweep as a tidy file, numbers in full."""
    head = (sweep.key, "strategy", "attack", "metric", "protocol", "measured_on", "n", "mean", "low", "high")
    lines: list[Line] = [head]
    what = (str(sweep.metric), str(sweep.table.protocol), sweep.table.measured_on)
    for attack in sweep.attacks:
        for strategy in sweep.strategies:
            for value, found in sweep.lines.get((strategy, attack), {}).items():
                lines.append((repr(value), strategy, attack, *what, found.n, repr(found.mean), *found.ends))
    return lines
