"""What a round costs: seconds by phase, and bytes to and from the clients."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from fedagg.report.captions import MISSING
from fedagg.report.sheets import Entry, Line, Sheet, marks, rule_of_marks
from fedagg.report.summary import Table
from fedagg.results import Run

TOTAL = "total"
TRAFFIC = {"bytes_down": "MB down", "bytes_up": "MB up"}


@dataclass(frozen=True)
class Costs:
    """One setting: by strategy and by phase or direction, the median over rounds (0 aside) and runs; seconds and bytes."""

    table: Table
    by_strategy: dict[str, dict[str, float]]

    @property
    def columns(self) -> list[str]:
        """The phases in the order of a round, their sum, and the directions; those that any run recorded."""
        known = dict.fromkeys(name for found in self.by_strategy.values() for name in found)
        last = [TOTAL, *TRAFFIC]
        return [name for name in known if name not in last] + [name for name in last if name in known]


def costs(table: Table) -> Costs | None:
    """What the rounds of a setting cost; None where no run recorded it."""
    found = {}
    for strategy in table.strategies:
        runs = [run for (name, _), cell in table.cells.items() if name == strategy for run in cell.runs]
        samples: dict[str, list[float]] = defaultdict(list)
        for run in runs:
            for name, values in _samples(run).items():
                samples[name] += values
        if samples:
            found[strategy] = {name: median(values) for name, values in samples.items()}
    return Costs(table, found) if found else None


def _samples(run: Run) -> dict[str, list[float]]:
    """The cost of every round by phase, in all, and by direction."""
    samples: dict[str, list[float]] = defaultdict(list)
    totals: dict[int, float] = defaultdict(float)
    for r, phase, seconds in read_timing(run.path / "timing.csv"):
        if r > 0:
            samples[phase].append(seconds)
            totals[r] += seconds
    if totals:
        samples[TOTAL] = list(totals.values())
    for name in TRAFFIC:
        values = run.series(name, "server")[1].tolist()
        if values:
            samples[name] = values
    return samples


def read_timing(file: Path) -> list[tuple[int, str, float]]:
    """The rows of a ``timing.csv``: round, phase, seconds. It is read up to where it is damaged; none if there is no file."""
    if not file.exists():
        return []
    rows = []
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n")[1:-1]  # what follows the last newline was torn
    for line in csv.reader(lines):
        try:
            r, phase, seconds = line
            rows.append((int(r), phase, float(seconds)))
        except ValueError:
            break
    return rows


def costs_sheet(found: Costs, name: str) -> Sheet:
    """The costs as a table: a row per strategy."""
    strategies = list(found.by_strategy)
    columns = []
    for column in found.columns:
        factor = 1e-6 if column in TRAFFIC else 1.0
        values = [found.by_strategy[strategy].get(column) for strategy in strategies]
        digits = _decimals(factor * min((value for value in values if value), default=0.0))
        shown = [(math.nan, MISSING) if value is None else (value, f"{factor * value:.{digits}f}") for value in values]
        columns.append([Entry(text, mark) for (_, text), mark in zip(shown, marks(shown, lower_is_better=True), strict=True)])
    rows = [[Entry(strategy), *(column[i] for column in columns)] for i, strategy in enumerate(strategies)]
    caption = ["Median over rounds (the initial model aside) and runs, all attacks together.", _hardware(found.table)]
    if any(name in found.columns for name in TRAFFIC):
        caption.append("MB: 10^6 bytes of arrays, of all clients together.")
    caption.append(
        f"Recorded while training on {found.table.data}, in all rounds, whatever the protocol ({found.table.protocol})."
    )
    caption.append(rule_of_marks("lowest"))
    header = ["strategy", *(TRAFFIC.get(column, f"{column} (s)") for column in found.columns)]
    return Sheet(name, "Time and communication per round", found.table.title, caption, header, rows)


def _decimals(smallest: float) -> int:
    """So many that the smallest number of a column shows two digits, and the others are as precise."""
    return min(6, max(0, 1 - math.floor(math.log10(smallest)))) if smallest > 0 else 0


def _hardware(table: Table) -> str:
    machines = set()
    for run in table.runs:
        have = run.info.get("hardware") or {}
        words = [f"{have[key]}{unit}" for key, unit in (("machine", ""), ("cores", " cores"), ("device", "")) if have.get(key)]
        machines.add(", ".join(words + ([str(have["gpu"])] if have.get("gpu") else [])) or "unknown hardware")
    return f"Wall clock on {' / '.join(sorted(machines))}; what else ran there counts too."


def costs_csv(every: Sequence[Costs]) -> list[Line]:
    """All settings as one tidy file: a line per strategy and kind of cost, in full."""
    keys = list(dict.fromkeys(key for found in every for key in found.table.setting))
    lines: list[Line] = [(*keys, "strategy", "data", "cost", "unit", "median")]
    for found in every:
        setting = [found.table.setting.get(key, "") for key in keys]
        for strategy, values in found.by_strategy.items():
            for column in found.columns:
                if column in values:
                    unit = "bytes" if column in TRAFFIC else "seconds"
                    lines.append((*setting, strategy, found.table.data, column, unit, repr(values[column])))
    return lines
