"""What all figures share: the house style, how lines look, the words above and below, and how a figure is saved.

Figures are made with matplotlib's object interface: they share no state with a user's own plots, and none of their settings.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter
from PIL import Image

from fedagg.report.fonts import WHOLE, families

# Okabe and Ito's colours, told apart under every common colour blindness; yellow is left out, it fades on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (6, 1.6, 1.2, 1.6)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
STYLE: dict[str, Any] = {
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
WIDTH = 7.2  # inches, of every figure that needs no more
GREY = "#555555"
SMALL = 6.8
_TITLE = 10.5
EXPLODES = 50  # a loss that grows beyond this ratio is shown on a logarithmic scale
PLAIN = FuncFormatter(lambda value, _: f"{value:.3g}")


def house_style() -> AbstractContextManager[None]:
    """Draw and save with the same settings everywhere, whatever a user's matplotlibrc says."""
    return style.context(["default", STYLE | {"font.family": families()}])


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


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write PNG and PDF; the same numbers give the same bytes."""
    png, pdf = stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".pdf")
    figure.savefig(png, dpi=200, metadata={"Software": None})
    figure.savefig(pdf, metadata={"CreationDate": None, "Producer": None, "Creator": None})
    return [png, pdf]


def compact(png: Path) -> bytes:
    """A PNG with the 256 colours that it needs most: a third of the bytes, and nothing that the eye would miss."""
    with Image.open(png) as picture:
        reduced = picture.convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    reduced.putpalette([255 if value > 252 else value for value in reduced.getpalette() or ()])  # white stays white
    out = io.BytesIO()
    reduced.save(out, "PNG")
    return out.getvalue()


def look(style: dict[str, Any]) -> dict[str, Any]:
    """How a line of that style is drawn."""
    return style | {"linewidth": 1.3, "markersize": 3.6, "markeredgecolor": "white", "markeredgewidth": 0.4}


@cache
def inches(words: str, size: float) -> float:
    """How wide a line of text is drawn."""
    return (
        float(TextPath((0, 0), words, size=size, prop=FontProperties(family=WHOLE)).get_extents().width / 72) if words else 0.0
    )


class Words:
    """Lines of text along the top or the bottom of a figure, and the height they take."""

    def __init__(self, lines: Sequence[tuple[str, dict[str, Any]]], step: float, at_top: bool) -> None:
        self.lines, self.step, self.at_top = lines, step, at_top
        self.height = step * len(lines) + (0.1 if at_top else 0.2)

    def put(self, figure: Figure) -> None:
        """Write them on a figure."""
        width, height = figure.get_size_inches()
        for number, (line, look) in enumerate(self.lines):
            y = height - 0.08 - self.step * number if self.at_top else self.height - 0.12 - self.step * number
            figure.text(0.08 / width, y / height, line, va="top", **look)


def header(title: str, setting: str) -> Words:
    """The title, and under it what tells the setting apart."""
    lines = [(title, {"fontsize": _TITLE, "fontweight": "bold"})]
    lines += [(line, {"fontsize": 8.5, "color": GREY}) for line in textwrap.wrap(setting, 105)]
    return Words(lines, 0.19, at_top=True)


def footer(sentences: str) -> Words:
    """What the reader must know, in small print."""
    return Words([(line, {"fontsize": SMALL, "color": GREY}) for line in textwrap.wrap(sentences, 140)], 0.125, at_top=False)
