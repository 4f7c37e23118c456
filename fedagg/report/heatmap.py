"""The heat map of a table: strategies against attacks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator

from fedagg.report.canvas import EXPLODES, GREY, PLAIN, WIDTH, footer, header, inches
from fedagg.report.captions import INTERVAL, MISSING, ONE_SEED, WORST, heading, judged, seeds
from fedagg.report.summary import Table
from fedagg.report.tables import break_name

_UNKNOWN = (0.95, 0.95, 0.95, 1.0)
_LARGE, _SMALL = 8, 6  # points: of a mean, and of its half interval


def draw_heatmap(table: Table, colours: ScalarMappable, data: str) -> Figure:
    """Strategies against attacks, every cell with its mean and half interval; the worst attack of a row is framed.

    Where there are many attacks the figure becomes wider than others, rather than its numbers too small to read.
    """
    names = [break_name(name, 26) for name in table.strategies]
    columns = [*table.attacks, *(["worst"] if table.real_attacks else [])]
    left = max(inches(line, 8) for name in names for line in name.split("\n")) + 0.2
    bar = 0.55
    numbers = max(max(inches(mean, _LARGE), inches(half, _SMALL)) for mean, half in (_say(table, *at) for at in table.cells))
    cell_width = max(numbers + 0.07, min(0.95, (WIDTH - left - bar - 0.25) / len(columns)))
    labels, angle, over = _fit(columns, cell_width - 0.06)
    cell_height = max(0.36, 0.05 + 0.13 * max(name.count("\n") + 1 for name in names))
    frame = f" Framed and marked {WORST}: worst attack of the row." if table.real_attacks else ""
    n = seeds(cell.estimate for cell in table.cells.values())
    cells = f"One seed ({n})." if n == ONE_SEED else f"Cells: mean over seeds ± half of the {INTERVAL}. {n}."
    foot = footer(f"{cells} {judged(table)}{frame} Numbers: {data}.")
    head = header(f"{heading(table.metric)} by strategy and attack", table.title)
    tall = cell_height * len(names)
    height = head.height + over + tall + 0.12 + foot.height

    gap = 0.12 if table.real_attacks else 0.0
    wide = cell_width * len(columns) + gap
    width = max(WIDTH, left + wide + bar + 0.13)

    figure = Figure(figsize=(width, height), facecolor="white")
    head.put(figure)
    foot.put(figure)
    axes = figure.add_axes((left / width, (foot.height + 0.12) / height, wide / width, tall / height))
    axes.set(xlim=(0, wide), ylim=(tall, 0))
    for i, strategy in enumerate(table.strategies):
        worst = table.worst(strategy)
        for j, attack in enumerate(columns):
            x = j * cell_width + (gap if j == len(table.attacks) else 0)
            _draw_cell(
                axes,
                table,
                (strategy, worst if j == len(table.attacks) else attack),
                colours,
                (x, i * cell_height, cell_width, cell_height),
            )
        if worst is not None:
            _frame(axes, (table.attacks.index(worst) * cell_width, i * cell_height, cell_width, cell_height))
    centres = [(j + 0.5) * cell_width + (gap if j == len(table.attacks) else 0) for j in range(len(columns))]
    axes.set_xticks(
        centres,
        labels,
        rotation=angle,
        ha="left" if angle else "center",
        va="center" if angle == 90 else "baseline",
        rotation_mode="anchor",
    )
    axes.set_yticks([(i + 0.5) * cell_height for i in range(len(names))], names)
    axes.tick_params(length=0, pad=3, labeltop=True, labelbottom=False, labelsize=8)
    axes.spines[:].set_visible(False)
    bar_height = min(tall, 1.8)
    bar_axes = figure.add_axes(
        ((left + wide + 0.14) / width, (foot.height + 0.12 + tall - bar_height) / height, 0.09 / width, bar_height / height)
    )
    count = max(1, int(bar_height / 0.3))
    log = isinstance(colours.norm, LogNorm)
    ticks = LogLocator(numticks=count + 2) if log else MaxNLocator(count, steps=[1, 2, 5, 10])
    colourbar = figure.colorbar(colours, cax=bar_axes, ticks=ticks, format=PLAIN)
    colourbar.minorticks_off()
    colourbar.outline.set_visible(False)
    bar_axes.tick_params(length=2, pad=2, labelsize=7)
    return figure


def colour_scale(tables: Sequence[Table]) -> ScalarMappable:
    """One scale for all settings, bright where it is good; shares span 50 points or more, to show a small difference small."""
    metric = tables[0].metric
    factor = 100 if metric.percent else 1
    values = [factor * cell.estimate.mean for table in tables for cell in table.cells.values()]
    values = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(values), max(values)
    if metric.percent:
        high = 10 * math.ceil(high / 10)
        low = max(0, min(10 * math.floor(low / 10), high - 50))
    log = low > 0 and high / low > EXPLODES and not metric.percent
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    return ScalarMappable((LogNorm if log else Normalize)(low, high), "cividis_r" if metric.lower_is_better else "cividis")


def paint(mean: float, colours: ScalarMappable) -> tuple[str, str]:
    """The colour of a cell as ``#rrggbb``, and that of the text on it: black or white, whichever is read better."""
    red, green, blue, _ = map(float, colours.to_rgba(np.array([mean]))[0]) if math.isfinite(mean) else _UNKNOWN
    colour = (red, green, blue)
    return to_hex(colour), "#000000" if _luminance(colour) > 0.18 else "#ffffff"


def _draw_cell(
    axes: Axes,
    table: Table,
    at: tuple[str, str | None],
    colours: ScalarMappable,
    box: tuple[float, float, float, float],
) -> None:
    x, y, width, height = box
    strategy, attack = at
    cell = None if attack is None else table.cells.get((strategy, attack))
    if cell is None or attack is None:
        axes.add_patch(Rectangle((x, y), width, height, facecolor="#F2F2F2", edgecolor="white", linewidth=1))
        axes.text(x + width / 2, y + height / 2, MISSING, ha="center", va="center", color=GREY)
        return
    colour, ink = paint(cell.estimate.mean * (100 if table.metric.percent else 1), colours)
    axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, edgecolor="white", linewidth=1))
    large, small = _say(table, strategy, attack)
    if x >= width * len(table.attacks):  # the last column, where every cell is the worst
        large = large.removesuffix(WORST)
    look: dict[str, Any] = {"ha": "center", "va": "center", "color": ink}
    axes.text(x + width / 2, y + height * (0.36 if small else 0.5), large, fontsize=_LARGE, **look)
    if small:
        axes.text(x + width / 2, y + height * 0.73, small, fontsize=_SMALL, **look)


def _say(table: Table, strategy: str, attack: str) -> tuple[str, str]:
    """The two lines of a cell: its mean, marked where it is the worst of its row, and half its interval if it has one."""
    value = table.cells[strategy, attack].estimate
    mark = WORST if attack == table.worst(strategy) else ""
    return table.metric.show(value.mean) + mark, f"± {table.metric.show(value.half)}" if value.has_interval else ""


def _frame(axes: Axes, box: tuple[float, float, float, float]) -> None:
    """A black line in a white one: seen on every colour and in grey."""
    x, y, width, height = box
    for colour, line, inset in (("white", 2.6, 0.022), ("black", 1.1, 0.022)):
        corner = (x + inset, y + inset)
        axes.add_patch(Rectangle(corner, width - 2 * inset, height - 2 * inset, fill=False, edgecolor=colour, linewidth=line))


def _fit(names: Sequence[str], width: float) -> tuple[list[str], int, float]:
    """Names over as few lines as fit above a column, else slanted, else upright: the labels, their angle and their height."""
    for letters in (14, 12, 10, 8, 6):
        labels = [break_name(name, letters) for name in names]
        if all(inches(line, 8) <= width for label in labels for line in label.split("\n")):
            return labels, 0, 0.1 + 0.14 * max(label.count("\n") + 1 for label in labels)
    longest = max(inches(name, 8) for name in names)
    if longest < 1.6:
        return list(names), 40, 0.15 + 0.7 * longest
    labels = [break_name(name, 24, 24) for name in names]
    return labels, 90, 0.12 + max(inches(line, 8) for label in labels for line in label.split("\n"))


def _luminance(colour: Sequence[float]) -> float:
    """Relative luminance (WCAG): black text has the better contrast above 0.18."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
