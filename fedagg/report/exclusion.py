"""Whom a rule gives no weight: how many of those are Byzantine (precision), and how many of the Byzantine ones (recall)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedagg.report.captions import MISSING, mean_of, text
from fedagg.report.measures import Metric
from fedagg.report.sheets import Entry, Line, Sheet, mark_columns, rule_of_marks
from fedagg.report.summary import Cell, Estimate, Table, estimate

MEASURES = (Metric("server", "exclusion_precision"), Metric("server", "exclusion_recall"))
_TITLES = {"exclusion_precision": "Exclusion precision (%)", "exclusion_recall": "Exclusion recall (%)"}
_MEANING = {
    "exclusion_precision": "Share of Byzantine clients among those that the rule gave no weight",
    "exclusion_recall": "Share of those that the rule gave no weight among the Byzantine clients",
}


@dataclass(frozen=True)
class Exclusion:
    """Precision or recall of one setting, by (strategy, attack): over seeds, of the mean over the rounds that define it."""

    table: Table
    metric: Metric
    cells: dict[tuple[str, str], Estimate]

    @property
    def strategies(self) -> list[str]:
        """The rules that have it, in the table's order."""
        return [
            strategy for strategy in self.table.strategies if any((strategy, attack) in self.cells for attack in self.attacks)
        ]

    @property
    def attacks(self) -> list[str]:
        """The attacks under which any rule has it."""
        return [attack for attack in self.table.attacks if any(at[1] == attack for at in self.cells)]


def exclusions(table: Table) -> list[Exclusion]:
    """Precision and recall of a setting, as far as any run recorded them."""
    found = []
    for metric in MEASURES:
        cells = {at: value for at, cell in table.cells.items() if (value := _over_seeds(cell, metric)) is not None}
        if cells:
            found.append(Exclusion(table, metric, cells))
    return found


def _over_seeds(cell: Cell, metric: Metric) -> Estimate | None:
    traces = [run.series(metric.name, metric.split)[1] for run in cell.runs]
    means = [float(np.nanmean(trace)) for trace in traces if not np.isnan(trace).all()]
    return estimate(means) if means else None


def exclusion_sheet(found: Exclusion, name: str) -> Sheet:
    """One of the two as a table: a row per rule, a column per attack."""
    grid = [[found.cells.get((strategy, attack)) for attack in found.attacks] for strategy in found.strategies]
    marked = mark_columns(grid, found.metric)
    rows = [
        [Entry(strategy), *(Entry(text(value, found.metric), mark) if value else Entry(MISSING) for value, mark in line)]
        for strategy, line in zip(found.strategies, marked, strict=True)
    ]
    caption = [
        f"{_MEANING[found.metric.name]}; mean over the rounds in which there are such clients.",
        mean_of(found.cells.values()),
        f"Recorded while training on {found.table.data}, in all rounds, whatever the protocol ({found.table.protocol}).",
        rule_of_marks("highest"),
    ]
    return Sheet(name, _TITLES[found.metric.name], found.table.title, caption, ["strategy", *found.attacks], rows)


def exclusion_csv(every: Sequence[Exclusion]) -> list[Line]:
    """All of them as one tidy file, settings as columns, numbers in full."""
    keys = list(dict.fromkeys(key for found in every for key in found.table.setting))
    lines: list[Line] = [(*keys, "strategy", "attack", "metric", "data", "n", "mean", "low", "high")]
    for found in every:
        setting = [found.table.setting.get(key, "") for key in keys]
        for (strategy, attack), value in sorted(found.cells.items()):
            what = (strategy, attack, found.metric.name, found.table.data, value.n)
            lines.append((*setting, *what, repr(value.mean), *value.ends))
    return lines
