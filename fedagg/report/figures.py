"""Figures with a panel per attack and a line per strategy: the metric over rounds, or against a key of the settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from fedagg.report.canvas import EXPLODES, GREY, PLAIN, SMALL, WIDTH, Words, footer, header, inches, look
from fedagg.report.captions import INTERVAL, ONE_SEED, heading, judged, seeds
from fedagg.report.measures import Floats, Metric
from fedagg.report.sheets import Line, to_csv
from fedagg.report.summary import Curve, Estimate, Table
from fedagg.report.sweeps import Sweep
from fedagg.report.tables import break_name

Styles = dict[str, dict[str, Any]]
Limits = tuple[tuple[float, float], bool]


def curves_csv(table: Table) -> str:
    """What the lines and bands are drawn from, in full."""
    lines: list[Line] = [("strategy", "attack", "round", "n", "mean", "low", "high")]
    for strategy in table.strategies:
        for attack in table.attacks:
            if (strategy, attack) in table.cells:
                curve = table.cells[strategy, attack].curve
                points = zip(curve.x.tolist(), curve.mean.tolist(), curve.low.tolist(), curve.high.tolist(), strict=True)
                for r, mean, low, high in points:
                    ends = (repr(low), repr(high)) if math.isfinite(high - low) else ("", "")
                    lines.append((strategy, attack, r, curve.n, repr(mean), *ends))
    return to_csv(lines)


def draw_curves(table: Table, styles: Styles, data: str) -> Figure:
    """The metric over rounds, with a band where there is more than one seed."""
    curves = {at: cell.curve for at, cell in table.cells.items()}
    limits, log = _limits(table.metric, curves.values())
    last = max(int(curve.x.max(initial=1)) for curve in curves.values())

    def panel(axes: Axes, attack: str, lowest: bool) -> None:
        axes.set_xlim(0, last)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        _draw_lines(axes, table.strategies, attack, curves, styles, table.metric, limits)
        if lowest:
            axes.set_xlabel("round", labelpad=2, color="#333333")

    order = " Legend in the table's order, best worst case first." if table.real_attacks and len(table.strategies) > 1 else ""
    return _panels(
        table.attacks,
        table.strategies,
        styles,
        header(f"{heading(table.metric)} over rounds", table.title),
        footer(f"{_bands(cell.estimate for cell in table.cells.values())} {judged(table)}{order} Numbers: {data}."),
        (table.metric.words, limits, log),
        panel,
    )


def draw_sweep(sweep: Sweep, styles: Styles, data: str) -> Figure:
    """The metric against the values of a key, with a band where there is more than one seed."""
    curves = {
        at: Curve(
            max(value.n for value in line.values()),
            np.array(list(line), np.float64),
            *(np.array([getattr(value, end) for value in line.values()]) for end in ("mean", "low", "high")),
        )
        for at, line in sweep.lines.items()
    }
    limits, log = _limits(sweep.metric, curves.values())
    values = sweep.values
    far = values[0] > 0 and values[-1] / values[0] >= 10

    def panel(axes: Axes, attack: str, lowest: bool) -> None:
        if far:
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(FixedLocator(values, nbins=8))
        axes.xaxis.set_major_formatter(PLAIN)
        _draw_lines(axes, sweep.strategies, attack, curves, styles, sweep.metric, limits)
        if lowest:
            axes.set_xlabel(sweep.words, labelpad=2, color="#333333")

    every = (value for line in sweep.lines.values() for value in line.values())
    return _panels(
        sweep.attacks,
        sweep.strategies,
        styles,
        header(f"{heading(sweep.metric)} against {sweep.words}", sweep.title),
        footer(f"{_bands(every)} {judged(sweep.table)} Numbers: {data}."),
        (sweep.metric.words, limits, log),
        panel,
    )


def _panels(
    attacks: Sequence[str],
    strategies: Sequence[str],
    styles: Styles,
    head: Words,
    foot: Words,
    scale: tuple[str, tuple[float, float], bool],
    panel: Callable[[Axes, str, bool], None],
) -> Figure:
    """One panel per attack on a shared y axis (its label, its limits, whether it is logarithmic), and a legend below."""
    label, limits, log = scale
    count = len(attacks)
    columns = count if count <= 3 else 2 if count == 4 else 3 if count <= 9 else 4
    rows = math.ceil(count / columns)
    panel_height = {1: 3.2, 2: 2.3}.get(columns, 1.65)
    left, right, gap_x = 0.72 if log else 0.55, 0.12, 0.24
    panel_width = (WIDTH - left - right - gap_x * (columns - 1)) / columns
    titles = [break_name(attack, int(panel_width / 0.09), 20) for attack in attacks]
    top_axes = 0.24 + 0.14 * max(name.count("\n") for name in titles)
    gap_y = top_axes + 0.1

    names = [break_name(name, 80) for name in strategies]
    label_width = max(inches(line, 8) for name in names for line in name.split("\n"))
    legend_columns = max(1, min(len(strategies), int((WIDTH - left) / (label_width + 0.62))))
    lines = 1 + max(name.count("\n") for name in names)
    legend_height = (0.04 + 0.125 * lines) * math.ceil(len(strategies) / legend_columns)
    bottom = 0.42 + legend_height + foot.height
    height = head.height + top_axes + rows * panel_height + (rows - 1) * gap_y + bottom

    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    head.put(figure)
    foot.put(figure)
    for place, attack in enumerate(attacks):
        row, column = divmod(place, columns)
        x = left + column * (panel_width + gap_x)
        y = bottom + (rows - 1 - row) * (panel_height + gap_y)
        axes = figure.add_axes((x / WIDTH, y / height, panel_width / WIDTH, panel_height / height))
        axes.set_title(titles[place], loc="left", pad=3, y=1.0)  # with a y it is not looked for, which takes long
        axes.grid(axis="y")
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(PLAIN)
            axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(*limits)
        lowest = place + columns >= count
        panel(axes, attack, lowest)
        axes.tick_params(labelleft=column == 0, labelbottom=lowest, length=2.5)
        if column == 0:
            axes.set_ylabel(label, labelpad=3, color="#333333")
    handles = [Line2D([], [], label=name, **look(styles[key])) for key, name in zip(strategies, names, strict=True)]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(left / WIDTH, (bottom - 0.42) / height),
        ncols=legend_columns,
        frameon=False,
        borderaxespad=0,
        borderpad=0,
        handlelength=3.2,
        columnspacing=1.4,
        labelspacing=0.35,
        fontsize=8,
    )
    return figure


def _draw_lines(
    axes: Axes,
    strategies: Sequence[str],
    attack: str,
    curves: dict[tuple[str, str], Curve],
    styles: Styles,
    metric: Metric,
    limits: tuple[float, float],
) -> None:
    factor = 100 if metric.percent else 1
    crowd = len(strategies)
    for place, strategy in reversed(list(enumerate(strategies))):
        if (strategy, attack) not in curves:
            continue
        curve = curves[strategy, attack]
        its_look = look(styles[strategy])
        if curve.n > 1:
            low, high = np.clip(factor * curve.low, *limits), np.clip(factor * curve.high, *limits)
            alpha = 0.16 if crowd <= 6 else 0.09
            axes.fill_between(curve.x, low, high, color=its_look["color"], alpha=alpha, linewidth=0)
        step = max(1, len(curve.x) // 5)
        start = place * step // max(1, crowd) if step > 1 else 0
        mean = np.where(np.isfinite(curve.mean), factor * curve.mean, np.nan)
        axes.plot(curve.x, mean, markevery=(start, step), clip_on=False, **its_look)
    missing = sum((strategy, attack) not in curves for strategy in strategies)
    if missing:
        axes.text(
            1, 1.02, f"{missing} not measured", transform=axes.transAxes, ha="right", va="bottom", fontsize=SMALL, color=GREY
        )


def _limits(metric: Metric, curves: Iterable[Curve]) -> Limits:
    """The shared y axis: all means, and bands as far as they do not squeeze the means; logarithmic where losses explode."""
    factor = 100 if metric.percent else 1
    curves = list(curves)
    means: Floats = np.concatenate([factor * curve.mean for curve in curves])
    bands: Floats = np.concatenate([factor * band for curve in curves for band in (curve.low, curve.high)])
    means, bands = means[np.isfinite(means)], bands[np.isfinite(bands)]
    if not len(means):
        return (0.0, 1.0), False
    low, high = float(means.min()), float(means.max())
    if low > 0 and high / low > EXPLODES and not metric.percent:
        return (low / 1.5, high * 1.5), True
    span = high - low or 0.1 * factor
    low, high = max(low - 0.2 * span, float(bands.min(initial=low))), min(high + 0.2 * span, float(bands.max(initial=high)))
    low, high = low - 0.04 * span, high + 0.04 * span
    if metric.percent:
        low, high = max(low, -1.0), min(high, 101.0)
    return (low, high), False


def _bands(estimates: Iterable[Estimate]) -> str:
    n = seeds(estimates)
    return f"One seed ({n})." if n == ONE_SEED else f"Lines: mean over seeds. Bands: {INTERVAL}. {n}."
