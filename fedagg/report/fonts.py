"""The font of the figures: DejaVu Sans without what it has for other scripts, since each PDF embeds what it needs of it.

Cutting the whole font down for each PDF takes longer than drawing the figure. It is therefore cut down once, to Latin, Greek
and signs; what else a name contains is drawn with the whole font.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import matplotlib
from fontTools.subset import Options, Subsetter  # type: ignore[import-untyped]
from fontTools.ttLib import TTFont  # type: ignore[import-untyped]
from matplotlib import font_manager

WHOLE = "DejaVu Sans"
_LEAN = "fedagg Sans"
_LETTERS = [*range(0x20, 0x250), *range(0x370, 0x400), *range(0x2000, 0x2070), *range(0x2190, 0x2270)]
_FAMILY = (1, 16)  # the entries of a font's name table that hold its family


@cache
def families() -> list[str]:
    """The fonts to draw with, the first that has a letter taking it; made and made known to matplotlib at the first call."""
    whole = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    lean = Path(tempfile.mkdtemp(prefix="fedagg-fonts-"))  # matplotlib opens them whenever it draws
    atexit.register(shutil.rmtree, lean, ignore_errors=True)
    for name in ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf"):
        font = TTFont(whole / name)
        subsetter = Subsetter(Options(layout_features=["kern"], name_IDs=["*"], drop_tables=["FFTM"]))
        subsetter.populate(unicodes=_LETTERS)
        subsetter.subset(font)
        for entry in font["name"].names:
            if entry.nameID in _FAMILY:
                entry.string = _LEAN
        font.save(lean / name)
        font_manager.fontManager.addfont(lean / name)
    return [_LEAN, WHOLE]
