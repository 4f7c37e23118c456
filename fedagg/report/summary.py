"""The statistics of a report: what one run scored, what its seeds say together, and which attack was worst."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from fedagg.errors import ConfigError
from fedagg.report.grouping import NO_ATTACK, Group, Note
from fedagg.report.measures import Floats, Metric, Protocol
from fedagg.results import Run

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over ``n`` seeds and the ends of its 95 % interval, NaN where there is none (one seed, or a value not finite)."""

    n: int
    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half of the interval: the number after ±."""
        return (self.high - self.low) / 2

    @property
    def has_interval(self) -> bool:
        """Whether there is an interval to show."""
        return bool(np.isfinite(self.half))

    @property
    def ends(self) -> tuple[str, str]:
        """The ends of the interval in full, for files with data; empty where there is none."""
        return (repr(self.low), repr(self.high)) if self.has_interval else ("", "")


def interval(values: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean, low and high end of the 95 % Student-t interval of every column of ``values`` [n seeds, k].

    mean ± t(0.975, n - 1) s / sqrt(n), with s the standard deviation over seeds (n - 1 in its denominator).

    Example:
        >>> mean, low, high = interval(np.array([[0.0], [1.0], [2.0]]))
        >>> f"{mean[0]:.3f} {low[0]:.3f} {high[0]:.3f}"
        '1.000 -1.484 3.484'
    """
    n = len(values)
    with np.errstate(invalid="ignore", over="ignore"):
        mean = values.mean(axis=0)
        if n == 1:
            return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
        half = stdtrit(n - 1, (1 + CONFIDENCE) / 2) * values.std(axis=0, ddof=1) / np.sqrt(n)
        return mean, mean - half, mean + half


def estimate(values: Iterable[float]) -> Estimate:
    """The mean over seeds with its interval."""
    column = np.array(list(values), np.float64)[:, None]
    mean, low, high = interval(column)
    return Estimate(len(column), float(mean[0]), float(low[0]), float(high[0]))


@dataclass(frozen=True)
class Cell:
    """What one strategy scored under one attack: the estimate, and for every run its value and its last evaluated round."""

    estimate: Estimate
    runs: tuple[Run, ...]
    values: tuple[float, ...]
    ends: tuple[int, ...]
    curve: Curve

    @property
    def seeds(self) -> tuple[int | None, ...]:
        """The seeds of the runs."""
        return tuple(run.seed for run in self.runs)


@dataclass(frozen=True)
class Curve:
    """The metric over ``x``: the rounds that all seeds of a cell evaluated, or the values of a key."""

    n: int
    x: NDArray[np.int64] | Floats
    mean: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Table:
    """One setting: strategies as rows, best worst case first; attacks as columns, ``none`` first.

    ``facts`` is all that is fixed in the setting, ``title`` what tells it apart from the other settings.
    """

    setting: dict[str, str]
    facts: dict[str, str]
    title: str
    metric: Metric
    protocol: Protocol
    cells: dict[tuple[str, str], Cell]

    @property
    def data(self) -> str:
        """The name of the data."""
        return self.facts.get("data", "unnamed data")

    @property
    def measured_on(self) -> str:
        """``the test set of digits``."""
        held_out = f"what clients hold out of {self.data}"
        where = {"test": f"the test set of {self.data}", "clients": held_out, "client": held_out}
        return where.get(self.metric.split, self.data)

    @property
    def runs(self) -> list[Run]:
        """Every run behind a cell."""
        return [run for cell in self.cells.values() for run in cell.runs]

    @cached_property
    def attacks(self) -> list[str]:
        """The columns."""
        return sorted({attack for _, attack in self.cells}, key=lambda attack: (attack != NO_ATTACK, attack))

    @cached_property
    def real_attacks(self) -> list[str]:
        """The columns among which the worst is looked for: all but ``none``."""
        return [attack for attack in self.attacks if attack != NO_ATTACK]

    @cached_property
    def strategies(self) -> list[str]:
        """The rows: those measured under every attack by their worst case, then the others likewise."""
        return sorted({strategy for strategy, _ in self.cells}, key=self._rank)

    def worst(self, strategy: str) -> str | None:
        """The attack under which the strategy scored worst on average; ``none`` is not an attack."""
        met = [attack for attack in self.real_attacks if (strategy, attack) in self.cells]
        return min(met, key=lambda attack: self._goodness(strategy, attack), default=None)

    def worst_cell(self, strategy: str) -> Cell | None:
        """The cell of the worst attack."""
        attack = self.worst(strategy)
        return None if attack is None else self.cells[strategy, attack]

    def row(self, strategy: str) -> list[Cell | None]:
        """The strategy's cells by attack, then its worst one where there are attacks; None was not measured."""
        cells = [self.cells.get((strategy, attack)) for attack in self.attacks]
        return cells + ([self.worst_cell(strategy)] if self.real_attacks else [])

    @cached_property
    def complete(self) -> list[str]:
        """Strategies measured under every attack: only their worst cases compare."""
        return [s for s in self.strategies if all((s, attack) in self.cells for attack in self.real_attacks)]

    def _goodness(self, strategy: str, attack: str) -> float:
        mean = self.cells[strategy, attack].estimate.mean
        return -np.inf if np.isnan(mean) else -mean if self.metric.lower_is_better else mean

    def _rank(self, strategy: str) -> tuple[bool, float, str]:
        met = [attack for attack in self.real_attacks or self.attacks if (strategy, attack) in self.cells]
        worst = min((self._goodness(strategy, attack) for attack in met), default=-np.inf)
        return len(met) < len(self.real_attacks or self.attacks), -worst, strategy


def summarize(groups: Sequence[Group], metric: Metric, protocol: Protocol) -> tuple[list[Table], list[Note]]:
    """One table per setting; runs that lack the metric, or the rounds that the protocol needs, are left out and named.

    A metric that is only measured under some attacks leaves out the others, and those are named instead of their runs.
    """
    tables: list[Table] = []
    without: list[tuple[str, str, str]] = []  # attack, run, reason
    for group in groups:
        cells = {}
        for at, runs in group.cells.items():
            cell, left_out = _cell(runs, metric, protocol)
            without += [(at[1], *words) for words in left_out]
            if cell is not None:
                cells[at] = cell
        if cells:
            tables.append(Table(group.setting, group.facts, group.title, metric, protocol, cells))
    if not tables:
        _refuse(groups, metric, [f"{run} ({reason})" for _, run, reason in without])
    named = {attack for table in tables for _, attack in table.cells}
    named |= {attack for attack, _, reason in without if reason != _no(metric)}
    apart = {attack for attack, *_ in without} - named
    single = sorted({f"{run} ({reason})" for attack, run, reason in without if attack in named})
    notes = [Note(f"Left out, {_no(metric)}", tuple(sorted(apart)))] if apart else []
    notes += [Note("Left out too", tuple(single))] if single else []
    for table in tables:
        ends = {end for cell in table.cells.values() for end in cell.ends}
        if len(ends) > 1:
            where = f"In the table of {table.title}, the" if table.title else "The"
            notes.append(Note(f"{where} last evaluated round is not the same for all runs: {min(ends)} to {max(ends)}"))
    return tables, notes


def _cell(runs: Sequence[Run], metric: Metric, protocol: Protocol) -> tuple[Cell | None, list[tuple[str, str]]]:
    """A cell of these runs, if one of them can be judged, and those that cannot, each with the reason."""
    judged, values, series = [], [], []
    without: list[tuple[str, str]] = []
    for run in runs:
        rounds, trace = run.series(metric.name, metric.split)
        try:
            if not len(rounds):
                raise ValueError(_no(metric))
            values.append(protocol.apply(rounds, trace, metric))
        except ValueError as reason:
            without.append((str(run.path), str(reason)))
            continue
        judged.append(run)
        series.append(dict(zip(rounds.tolist(), trace.tolist(), strict=True)))
    if not values:
        return None, without
    common = sorted(set.intersection(*(set(trace) for trace in series)))
    mean, low, high = interval(np.array([[trace[r] for r in common] for trace in series]).reshape(len(series), len(common)))
    curve = Curve(len(series), np.array(common, np.int64), mean, low, high)
    return Cell(estimate(values), tuple(judged), tuple(values), tuple(max(trace) for trace in series), curve), without


def _no(metric: Metric) -> str:
    return f"no {metric.split}/{metric.name}"


def _refuse(groups: Sequence[Group], metric: Metric, without: Sequence[str]) -> None:
    names = sorted({name for group in groups for runs in group.cells.values() for run in runs for name in run.names})
    wanted = f"{metric.split}/{metric.name}"
    if wanted in names:
        raise ConfigError(f"no run can be judged that way: {without[0]}")
    near = difflib.get_close_matches(wanted, names, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(f"no run recorded {wanted}; recorded are {', '.join(names) or 'no metrics'}{hint}")
