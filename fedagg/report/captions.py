"""The sentences that stand beside every table and figure: what the numbers are, and what may be concluded from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from fedagg.report.grouping import NO_ATTACK
from fedagg.report.measures import Metric
from fedagg.report.summary import Estimate, Table

INTERVAL = "95 % Student-t interval of the mean over seeds"
ONE_SEED = "n=1, no interval"
WORST, MISSING = "†", "–"


def title(table: Table) -> str:
    """``Test accuracy (%)``, with the setting where there are several."""
    return heading(table.metric) + (f", {table.title}" if table.title else "")


def heading(metric: Metric) -> str:
    """The metric in words, capitalised."""
    return metric.words[0].upper() + metric.words[1:]


def text(value: Estimate, metric: Metric, sign: str = " ± ") -> str:
    """``71.3 ± 2.2``, or the mean alone where there is no interval."""
    mean = metric.show(value.mean)
    return f"{mean}{sign}{metric.show(value.half)}" if value.has_interval else mean


def seeds(estimates: Iterable[Estimate]) -> str:
    """How many seeds stand behind numbers: ``n=3 seeds``."""
    counts = sorted({value.n for value in estimates})
    if counts == [1]:
        return ONE_SEED
    return f"n={counts[0]} seeds" if len(counts) == 1 else f"n={counts[0]} to {counts[-1]} seeds"


def mean_of(estimates: Iterable[Estimate]) -> str:
    """What a number and the one after ± are."""
    n = seeds(estimates)
    return f"One seed ({n})." if n == ONE_SEED else f"Mean over {n}; ± is half of the {INTERVAL}."


def cases(attacks: Sequence[str]) -> str:
    """``the 4 attacks and the case without attack``: what a mean or an election is over."""
    real = [attack for attack in attacks if attack != NO_ATTACK]
    words = [f"the {len(real)} attacks" if len(real) > 1 else f"attack {real[0]}"] if real else []
    return " and ".join([*words, *(["the case without attack"] if NO_ATTACK in attacks else [])])


def judged(table: Table) -> str:
    """The protocol and the data, a sentence each: what every output must name."""
    return f"{table.protocol.words(table.metric)}. Measured on {table.measured_on}."


def caption(table: Table) -> list[str]:
    """What a reader needs in order to read the numbers, a sentence each."""
    counts = Counter(cell.estimate.n for cell in table.cells.values())
    sentences = [mean_of(cell.estimate for cell in table.cells.values()), judged(table)]
    if len(counts) > 1:
        sentences.append(_counts(table, counts) + (" n=1 has no interval." if 1 in counts else ""))
    if table.real_attacks:
        side = "highest" if table.metric.lower_is_better else "lowest"
        sentences.append(f"{WORST} marks the attack with the {side} mean of its row ({NO_ATTACK} aside); worst repeats it.")
    if len(table.cells) < len(table.strategies) * len(table.attacks):
        sentences.append(f"{MISSING} was not measured.")
    return sentences


def verdict(table: Table) -> list[str]:
    """The best strategy by worst case, whom its interval does not separate from it, and who could not be ranked."""
    if not table.real_attacks:
        return []
    if not table.complete:
        return ["No strategy was measured under every attack, so worst cases do not compare."]
    best, *others = table.complete
    value = _worst(table, best)
    what = "Best worst case" if len(table.strategies) > 1 else "Worst case"
    lines = [f"{what}: {best}, {text(value, table.metric)} under {table.worst(best)}."]
    lines += _compared(value, {other: _worst(table, other) for other in others}) if others else []
    unranked = [strategy for strategy in table.strategies if strategy not in table.complete]
    if unranked:
        lines.append(f"Not ranked, since not measured under every attack: {', '.join(unranked)}.")
    return lines


def _worst(table: Table, strategy: str) -> Estimate:
    attack = table.worst(strategy)
    assert attack is not None, "only asked of strategies that met every attack, of which there is at least one"
    return table.cells[strategy, attack].estimate


def _compared(best: Estimate, others: dict[str, Estimate]) -> list[str]:
    """Whom the intervals tell apart from the best, by the plainest test: whether they overlap."""
    if best.n == 1:
        return ["One seed does not tell whether the others are worse."]
    near = [name for name, other in others.items() if other.low <= best.high and best.low <= other.high]
    single = [name for name, other in others.items() if other.n == 1]
    if near:
        lines = [f"Its interval overlaps with that of {', '.join(near)}: these worst cases are not told apart."]
    else:
        lines = ["No other strategy's worst case has an interval that overlaps with it."]
    return lines + ([f"Not compared, with one seed only: {', '.join(single)}."] if single else [])


def _counts(table: Table, counts: Counter[int]) -> str:
    """``6 cells have n=3, 1 cell has n=2 (krum/alie).`` The cells of the rarer counts are named while they are few."""
    words = []
    for place, (n, count) in enumerate(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))):
        cells = [f"{s}/{a}" for (s, a), cell in sorted(table.cells.items()) if cell.estimate.n == n]
        named = f" ({', '.join(cells)})" if place and count <= 4 else ""
        words.append(f"{count} {'cell has' if count == 1 else 'cells have'} n={n}{named}")
    return ", ".join(words) + "."
