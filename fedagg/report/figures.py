"""The two figures of a table: the metric over rounds, a panel per attack; and a heat map of strategy against attack.

Figures are made with matplotlib's object interface: they share no state with a user's own plots, and none of their settings.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from fedagg.report.captions import INTERVAL, MISSING, WORST, heading, seeds
from fedagg.report.summary import Table
from fedagg.report.tables import break_name, to_csv

# Okabe and Ito's colours, told apart under every common colour blindness; yellow is left out, it fades on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (6, 1.6, 1.2, 1.6)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "text.parse_math": False,  # a name with a $ in it is a name
    "pdf.fonttype": 42,  # text stays text
}
WIDTH = 7.2  # inches, of every figure
_GREY = "#555555"
_TITLE, _SMALL = 10.5, 6.8
_EXPLODES = 50  # a loss that grows beyond this ratio is shown on a logarithmic scale
_PLAIN = FuncFormatter(lambda value, _: f"{value:.3g}")


def house_style() -> AbstractContextManager[None]:
    """Draw and save with the same settings everywhere, whatever a user's matplotlibrc says."""
    return style.context(["default", STYLE])


def line_styles(strategies: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A colour, a dash and a marker for every strategy; each of the three alone tells many apart, together 28 and more."""
    return {
        name: {
            "color": COLOURS[i % len(COLOURS)],
            "linestyle": DASHES[(i + 2 * (i // len(COLOURS))) % len(DASHES)],
            "marker": MARKERS[i % len(MARKERS)],
        }
        for i, name in enumerate(sorted(strategies))
    }


def curves_csv(table: Table) -> str:
    """What the lines and bands are drawn from, in full."""
    lines: list[tuple[object, ...]] = [("strategy", "attack", "round", "n", "mean", "low", "high")]
    for strategy in table.strategies:
        for attack in table.attacks:
            if (strategy, attack) in table.cells:
                curve = table.cells[strategy, attack].curve
                points = zip(curve.rounds.tolist(), curve.mean.tolist(), curve.low.tolist(), curve.high.tolist(), strict=True)
                for r, mean, low, high in points:
                    ends = (repr(low), repr(high)) if math.isfinite(high - low) else ("", "")
                    lines.append((strategy, attack, r, curve.n, repr(mean), *ends))
    return to_csv(lines)


def draw_curves(table: Table, styles: dict[str, dict[str, Any]], data: str) -> Figure:
    """One panel per attack on shared axes, one line per strategy, a band where there is more than one seed."""
    count = len(table.attacks)
    columns = count if count <= 3 else 2 if count == 4 else 3 if count <= 9 else 4
    rows = math.ceil(count / columns)
    panel_height = {1: 3.2, 2: 2.3}.get(columns, 1.65)
    limits, log = _limits(table)
    left, right, gap_x = 0.72 if log else 0.55, 0.12, 0.24
    panel_width = (WIDTH - left - right - gap_x * (columns - 1)) / columns
    titles = [break_name(attack, int(panel_width / 0.09), 20) for attack in table.attacks]
    top_axes = 0.24 + 0.14 * max(name.count("\n") for name in titles)
    gap_y = top_axes + 0.1

    names = [break_name(name, 80) for name in table.strategies]
    label_width = max(_inches(line, 8) for name in names for line in name.split("\n"))
    legend_columns = max(1, min(len(table.strategies), int((WIDTH - left) / (label_width + 0.62))))
    lines = 1 + max(name.count("\n") for name in names)
    legend_height = (0.04 + 0.125 * lines) * math.ceil(len(table.strategies) / legend_columns)
    order = " Legend in the table's order, best worst case first." if table.real_attacks and len(table.strategies) > 1 else ""
    foot = _footer(table, f"Lines: mean over seeds. Bands: {INTERVAL}.", f"{order} Data: {data}.")
    head = _header(f"{heading(table.metric)} over rounds", table.title)
    bottom = 0.42 + legend_height + foot.height
    height = head.height + top_axes + rows * panel_height + (rows - 1) * gap_y + bottom

    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    head.put(figure)
    foot.put(figure)
    for place, attack in enumerate(table.attacks):
        row, column = divmod(place, columns)
        x = left + column * (panel_width + gap_x)
        y = bottom + (rows - 1 - row) * (panel_height + gap_y)
        axes = figure.add_axes((x / WIDTH, y / height, panel_width / WIDTH, panel_height / height))
        axes.set_title(titles[place], loc="left", pad=3)
        _draw_panel(axes, table, attack, styles, limits, log)
        lowest = place + columns >= count
        axes.tick_params(labelleft=column == 0, labelbottom=lowest, length=2.5)
        if lowest:
            axes.set_xlabel("round", labelpad=2, color="#333333")
        if column == 0:
            axes.set_ylabel(table.metric.words, labelpad=3, color="#333333")
    handles = [Line2D([], [], label=name, **_look(styles[key])) for key, name in zip(table.strategies, names, strict=True)]
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


def draw_heatmap(table: Table, colours: ScalarMappable, data: str) -> Figure:
    """Strategies against attacks, every cell with its mean and half interval; the worst attack of a row is framed."""
    names = [break_name(name, 26) for name in table.strategies]
    columns = [*table.attacks, *(["worst"] if table.real_attacks else [])]
    left = max(_inches(line, 8) for name in names for line in name.split("\n")) + 0.2
    bar = 0.55
    cell_width = min(0.95, (WIDTH - left - bar - 0.25) / len(columns))
    labels, angle, over = _fit(columns, cell_width - 0.06)
    cell_height = max(0.36, 0.05 + 0.13 * max(name.count("\n") + 1 for name in names))
    frame = f" Framed and marked {WORST}: worst attack of the row." if table.real_attacks else ""
    foot = _footer(table, f"Cells: mean over seeds ± half of the {INTERVAL}.", f"{frame} Data: {data}.")
    head = _header(f"{heading(table.metric)} by strategy and attack", table.title)
    tall = cell_height * len(names)
    height = head.height + over + tall + 0.12 + foot.height

    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    head.put(figure)
    foot.put(figure)
    gap = 0.12 if table.real_attacks else 0.0
    wide = cell_width * len(columns) + gap
    axes = figure.add_axes((left / WIDTH, (foot.height + 0.12) / height, wide / WIDTH, tall / height))
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
        ((left + wide + 0.14) / WIDTH, (foot.height + 0.12 + tall - bar_height) / height, 0.09 / WIDTH, bar_height / height)
    )
    count = max(1, int(bar_height / 0.3))
    log = isinstance(colours.norm, LogNorm)
    ticks = LogLocator(numticks=count + 2) if log else MaxNLocator(count, steps=[1, 2, 5, 10])
    colourbar = figure.colorbar(colours, cax=bar_axes, ticks=ticks, format=_PLAIN)
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
    log = low > 0 and high / low > _EXPLODES and not metric.percent
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    return ScalarMappable((LogNorm if log else Normalize)(low, high), "cividis_r" if metric.lower_is_better else "cividis")


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write PNG and PDF; the same numbers give the same bytes."""
    png, pdf = stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".pdf")
    figure.savefig(png, dpi=200, metadata={"Software": None})
    figure.savefig(pdf, metadata={"CreationDate": None, "Producer": None, "Creator": None})
    return [png, pdf]


def _draw_panel(
    axes: Axes,
    table: Table,
    attack: str,
    styles: dict[str, dict[str, Any]],
    limits: tuple[float, float],
    log: bool,
) -> None:
    axes.grid(axis="y")
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(_PLAIN)
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(*limits)
    factor = 100 if table.metric.percent else 1
    last = max(int(cell.curve.rounds.max(initial=1)) for cell in table.cells.values())
    axes.set_xlim(0, last)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    crowd = len(table.strategies)
    for place, strategy in reversed(list(enumerate(table.strategies))):
        cell = table.cells.get((strategy, attack))
        if cell is None:
            continue
        curve = cell.curve
        look = _look(styles[strategy])
        if curve.n > 1:
            low, high = np.clip(factor * curve.low, *limits), np.clip(factor * curve.high, *limits)
            axes.fill_between(curve.rounds, low, high, color=look["color"], alpha=0.16 if crowd <= 6 else 0.09, linewidth=0)
        step = max(1, len(curve.rounds) // 5)
        start = place * step // max(1, crowd) if step > 1 else 0
        mean = np.where(np.isfinite(curve.mean), factor * curve.mean, np.nan)
        axes.plot(curve.rounds, mean, markevery=(start, step), clip_on=False, **look)
    missing = sum((strategy, attack) not in table.cells for strategy in table.strategies)
    if missing:
        axes.text(
            1, 1.02, f"{missing} not measured", transform=axes.transAxes, ha="right", va="bottom", fontsize=_SMALL, color=_GREY
        )


def _look(style: dict[str, Any]) -> dict[str, Any]:
    return style | {"linewidth": 1.3, "markersize": 3.6, "markeredgecolor": "white", "markeredgewidth": 0.4}


def _limits(table: Table) -> tuple[tuple[float, float], bool]:
    """The shared y axis: all means, and bands as far as they do not squeeze the means; logarithmic where losses explode."""
    factor = 100 if table.metric.percent else 1
    means = np.concatenate([factor * cell.curve.mean for cell in table.cells.values()])
    bands = np.concatenate([factor * band for cell in table.cells.values() for band in (cell.curve.low, cell.curve.high)])
    means, bands = means[np.isfinite(means)], bands[np.isfinite(bands)]
    if not len(means):
        return (0.0, 1.0), False
    low, high = float(means.min()), float(means.max())
    if low > 0 and high / low > _EXPLODES and not table.metric.percent:
        return (low / 1.5, high * 1.5), True
    span = high - low or 0.1 * factor
    low, high = max(low - 0.2 * span, float(bands.min(initial=low))), min(high + 0.2 * span, float(bands.max(initial=high)))
    low, high = low - 0.04 * span, high + 0.04 * span
    if table.metric.percent:
        low, high = max(low, -1.0), min(high, 101.0)
    return (low, high), False


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
    if cell is None:
        axes.add_patch(Rectangle((x, y), width, height, facecolor="#F2F2F2", edgecolor="white", linewidth=1))
        axes.text(x + width / 2, y + height / 2, MISSING, ha="center", va="center", color=_GREY)
        return
    value = cell.estimate
    mean = value.mean * (100 if table.metric.percent else 1)
    colour = [float(c) for c in colours.to_rgba(np.array([mean]))[0, :3]] if math.isfinite(mean) else [0.95] * 3
    axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, edgecolor="white", linewidth=1))
    ink = "black" if _luminance(colour) > 0.18 else "white"
    mark = WORST if attack == table.worst(strategy) and x < width * len(table.attacks) else ""
    centre = x + width / 2
    axes.text(
        centre,
        y + height * (0.36 if value.has_interval else 0.5),
        table.metric.show(value.mean) + mark,
        ha="center",
        va="center",
        color=ink,
        fontsize=8,
    )
    if value.has_interval:
        axes.text(
            centre, y + height * 0.73, f"± {table.metric.show(value.half)}", ha="center", va="center", color=ink, fontsize=6
        )


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
        if all(_inches(line, 8) <= width for label in labels for line in label.split("\n")):
            return labels, 0, 0.1 + 0.14 * max(label.count("\n") + 1 for label in labels)
    longest = max(_inches(name, 8) for name in names)
    if longest < 1.6:
        return list(names), 40, 0.15 + 0.7 * longest
    labels = [break_name(name, 24, 24) for name in names]
    return labels, 90, 0.12 + max(_inches(line, 8) for label in labels for line in label.split("\n"))


def _luminance(colour: Sequence[float]) -> float:
    """Relative luminance (WCAG): black text has the better contrast above 0.18."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _inches(words: str, size: float) -> float:
    """How wide a line of text is drawn."""
    return (
        float(TextPath((0, 0), words, size=size, prop=FontProperties(family="DejaVu Sans")).get_extents().width / 72)
        if words
        else 0.0
    )


class _Words:
    """Lines of text along the top or the bottom of a figure, and the height they take."""

    def __init__(self, lines: Sequence[tuple[str, dict[str, Any]]], step: float, at_top: bool) -> None:
        self.lines, self.step, self.at_top = lines, step, at_top
        self.height = step * len(lines) + (0.1 if at_top else 0.2)

    def put(self, figure: Figure) -> None:
        height = figure.get_figheight()
        for number, (line, look) in enumerate(self.lines):
            y = height - 0.08 - self.step * number if self.at_top else self.height - 0.12 - self.step * number
            figure.text(0.08 / WIDTH, y / height, line, va="top", **look)


def _header(title: str, setting: str) -> _Words:
    lines = [(title, {"fontsize": _TITLE, "fontweight": "bold"})]
    lines += [(line, {"fontsize": 8.5, "color": _GREY}) for line in textwrap.wrap(setting, 105)]
    return _Words(lines, 0.19, at_top=True)


def _footer(table: Table, what: str, data: str) -> _Words:
    n = seeds(table)
    what = f"One seed ({n})." if n == "n=1, no interval" else f"{what} {n}."
    words = f"{what} {table.protocol.words(table.metric)}.{data}"
    return _Words([(line, {"fontsize": _SMALL, "color": _GREY}) for line in textwrap.wrap(words, 140)], 0.125, at_top=False)
