"""Strategies in the order of their mean over attacks, and which of them the seeds tell apart from the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedagg.report.captions import INTERVAL, MISSING, cases, judged, text
from fedagg.report.grouping import NO_ATTACK
from fedagg.report.measures import Metric
from fedagg.report.paired import ALPHA, Comparison, compare
from fedagg.report.sheets import Entry, Line, Sheet, mark_columns, rule_of_marks
from fedagg.report.summary import Estimate, Table, estimate

CSV_COLUMNS = (
    *("strategy", "rank", "tied", "metric", "protocol", "measured_on", "n", "mean", "low", "high"),
    *("worst_attack", "worst_mean", "difference", "p_holm", "pairs"),
)


@dataclass(frozen=True)
class Standing:
    """A strategy's place.

    Args:
        strategy: its name.
        rank: 1 for the best and all that a paired test does not tell from it, else the place by mean; None for a strategy that
            was not measured under every attack, with one seed at least under all of them.
        mean: over seeds, of the mean over attacks; None where there is no such seed.
        compared: with the best; None for the best itself and for what has no rank.
    """

    strategy: str
    rank: int | None
    mean: Estimate | None
    compared: Comparison | None = None


def standings(table: Table) -> list[Standing]:
    """Rank the strategies of a table by their mean over all of its attacks, ``none`` included."""
    scores = {strategy: _by_cell(table, strategy) for strategy in table.strategies}
    means = {strategy: _mean(table, cells) for strategy, cells in scores.items()}
    ranked = [strategy for strategy, mean in means.items() if mean is not None]
    ranked.sort(key=lambda strategy: _badness(means[strategy], table.metric))
    best, others = ranked[:1], ranked[1:]
    found = [Standing(strategy, 1, means[strategy]) for strategy in best]
    compared = compare(scores[best[0]], [scores[strategy] for strategy in others]) if best else []
    for place, (strategy, comparison) in enumerate(zip(others, compared, strict=True), start=2):
        found.append(Standing(strategy, 1 if comparison.tied else place, means[strategy], comparison))
    return found + [Standing(strategy, None, None) for strategy in table.strategies if strategy not in ranked]


def leaderboard(table: Table, name: str) -> Sheet:
    """The standings as a table."""
    metric, places = table.metric, standings(table)
    ties = sum(place.rank == 1 for place in places) > 1
    grid = [[place.mean, _worst(table, place.strategy)] for place in places]
    rows = []
    for place, numbers in zip(places, mark_columns(grid, metric), strict=True):
        rank = MISSING if place.rank is None else f"{place.rank}{'=' if ties and place.rank == 1 else ''}"
        mean, worst = (Entry(text(value, metric), mark) if value else Entry(MISSING) for value, mark in numbers)
        attack = [worst, Entry(table.worst(place.strategy) or MISSING)] if table.real_attacks else []
        rows.append([Entry(place.strategy), Entry(rank), mean, *attack, *map(Entry, _compared(place.compared, metric))])
    worst_head = ["worst case", "under"] if table.real_attacks else []
    header = ["strategy", "rank", "mean", *worst_head, "difference", "p (Holm)", "pairs"]
    return Sheet(name, f"Leaderboard: {metric.words}", table.title, _caption(table, places), header, rows, _verdict(places))


def leaderboard_csv(tables: Sequence[Table]) -> list[Line]:
    """All standings as one tidy file: a line per strategy, settings as columns, numbers in full."""
    keys = list(dict.fromkeys(key for table in tables for key in table.setting))
    lines: list[Line] = [(*keys, *CSV_COLUMNS)]
    for table in tables:
        what = (str(table.metric), str(table.protocol), table.measured_on)
        for place in standings(table):
            mean, worst, other = place.mean, _worst(table, place.strategy), place.compared
            numbers = (mean.n, repr(mean.mean), *mean.ends) if mean else (0, "", "", "")
            least = (table.worst(place.strategy), repr(worst.mean)) if worst else ("", "")
            test = (repr(other.difference), "" if math.isnan(other.p) else repr(other.p), other.n) if other else ("", "", "")
            rank = (place.rank or "", bool(other and other.tied))
            setting = (table.setting.get(key, "") for key in keys)
            lines.append((*setting, place.strategy, *rank, *what, *numbers, *least, *test))
    return lines


def _by_cell(table: Table, strategy: str) -> dict[tuple[str, int | None], float]:
    found: dict[tuple[str, int | None], float] = {}
    for attack in table.attacks:
        if (strategy, attack) in table.cells:
            cell = table.cells[strategy, attack]
            found |= {(attack, seed): value for seed, value in zip(cell.seeds, cell.values, strict=True)}
    return found


def _mean(table: Table, scores: dict[tuple[str, int | None], float]) -> Estimate | None:
    """Over the seeds that ran under every attack."""
    seeds = dict.fromkeys(seed for _, seed in scores)
    whole = [seed for seed in seeds if all((attack, seed) in scores for attack in table.attacks)]
    means = [float(np.mean([scores[attack, seed] for attack in table.attacks])) for seed in whole]
    return estimate(means) if means else None


def _badness(mean: Estimate | None, metric: Metric) -> float:
    assert mean is not None, "only asked of strategies that have one"
    return math.inf if math.isnan(mean.mean) else mean.mean if metric.lower_is_better else -mean.mean


def _worst(table: Table, strategy: str) -> Estimate | None:
    cell = table.worst_cell(strategy)
    return None if cell is None else cell.estimate


def _compared(found: Comparison | None, metric: Metric) -> list[str]:
    if found is None:
        return [MISSING] * 3
    sign = "−" if found.difference < 0 else "+" if found.difference > 0 else ""
    p = MISSING if math.isnan(found.p) else "<0.001" if found.p < 0.001 else f"{found.p:.3f}"
    return [MISSING if math.isnan(found.difference) else sign + metric.show(abs(found.difference)), p, str(found.n)]


def _caption(table: Table, places: Sequence[Standing]) -> list[str]:
    over = cases(table.attacks) + ("" if len(table.attacks) > 1 else " alone")
    single = all(place.mean is None or place.mean.n == 1 for place in places)
    interval = "one seed, so no interval" if single else f"± is half of the {INTERVAL}"
    sentences = [f"Mean: over {over}; {interval}.", judged(table)]
    if table.real_attacks:
        sentences.append(
            f"Worst case: the mean under the attack that hurts most, which is named; {NO_ATTACK} is not an attack."
        )
    tests = sum(place.compared is not None and not math.isnan(place.compared.p) for place in places)
    if tests:
        sentences.append(
            "Difference: mean of the strategy's value minus that of the best, in the same (attack, seed) cells, of which there"
            f" are as many as pairs. p: paired t-test of that difference, two-sided, Holm-corrected for {tests}"
            f" comparison{'s' if tests > 1 else ''}. Strategies with p >= {ALPHA} share rank 1 with the best (=): these runs"
            " do not tell them apart, which more seeds may; it does not mean that they are equal. The test takes cells to be"
            " independent, which those that share a seed or an attack are not wholly."
        )
    return [*sentences, rule_of_marks(table.metric.best)]


def _verdict(places: Sequence[Standing]) -> list[str]:
    """What the ranks say, and what they do not."""
    lines = []
    tests = [place.compared for place in places if place.compared]
    tied = [place.strategy for place in places if place.compared and place.compared.tied]
    untested = [place.strategy for place in places if place.compared and math.isnan(place.compared.p)]
    if tied:
        lines.append(f"Tied with {places[0].strategy}: {', '.join(tied)}.")
    elif tests and not untested:
        lines.append(f"{places[0].strategy} differs from every other strategy by the paired test.")
    if tests and all(test.n < 2 for test in tests):
        lines.append("With one pair there is no test: ranks follow the means alone, and nothing tells whether they differ.")
    elif untested:
        lines.append(f"Not tested, for want of pairs or of finite values: {', '.join(untested)}.")
    unranked = [place.strategy for place in places if place.rank is None]
    if unranked:
        lines.append(f"Not ranked, since no seed was run under every attack: {', '.join(unranked)}.")
    return lines
