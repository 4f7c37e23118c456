"""A picture of who holds what: classes against clients, with the clients' sizes above."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedagg.data.population import Population, _name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection, QuadMesh

BUBBLES_UP_TO = 40  # clients; beyond it bubbles run into each other
IDS_UP_TO = 200  # clients; beyond it columns are too thin to look one up, so they are ordered
COLOURS = "viridis"  # legible for colour-blind readers and in grey; reversed here, so that more is darker
PALE_BELOW = 0.15  # shares below fade to white: many traces of a class should not outshine its main holders
BAR = "#5b7083"


def label_picture(population: Population, path: str | Path) -> Path:
    """Draw how many samples of which class every client trains on.

    Up to 40 clients are drawn as bubbles whose area is the number of samples, in client order. More become a heat map of each
    client's label shares; beyond 200 its columns are ordered by the clients' most frequent class and then by its share, so
    that the kinds of clients show as blocks. Bars above give the clients' sizes, logarithmic where they differ much. Empty
    clients are columns without marks and are counted in the title.

    Args:
        population: any number of clients.
        path: file to write; its ending gives the format (.png, .pdf, .svg). Folders above it are made.

    Returns:
        The path.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, MultipleLocator

    counts = population.label_counts.numpy()
    clients, classes = counts.shape
    ordered = clients > IDS_UP_TO
    if ordered:
        counts = counts[_by_dominant_class(counts)]
    sizes = counts.sum(axis=1)

    figure = Figure(figsize=(min(5.5 + 0.25 * clients, 11.5), 3.2 + 0.27 * min(classes, 30)), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, height_ratios=(1, 3.6), width_ratios=(40, 1), hspace=0.03, wspace=0.02)
    main, bar = figure.add_subplot(grid[1, 0]), figure.add_subplot(grid[1, 1])
    top = figure.add_subplot(grid[0, 0], sharex=main)

    marks = _bubbles(main, counts) if clients <= BUBBLES_UP_TO else _heat(main, counts)
    what = "samples" if clients <= BUBBLES_UP_TO else "share of the client's samples"
    figure.colorbar(marks, cax=bar, label=what).outline.set_visible(False)
    _draw_sizes(top, sizes)
    top.set_ylabel("training\nsamples" if population.holdout else "samples")

    main.set(xlim=(-0.6, clients - 0.4), ylim=(classes - 0.4, -0.6), ylabel="class")
    main.set_xlabel("clients, ordered by most frequent class" if ordered else "client")
    names = population.dataset.class_names
    shown = range(0, classes, -(-classes // 30))
    main.set_yticks(shown, [names[label] if names else str(label) for label in shown])
    main.xaxis.set_major_locator(MultipleLocator(1) if clients <= 20 else MaxNLocator(11, integer=True))
    for axes in (main, top):
        axes.spines[["top", "right"]].set_visible(False)
    room = int(10 * figure.get_figwidth())  # characters of this size
    lines = [part for line in _title(population) for part in wrap(line, room, break_on_hyphens=False)]
    figure.suptitle("\n".join(lines), fontsize=11)

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _title(population: Population) -> list[str]:
    numbers = population.summary()
    made = _name(population.partition) if population.partition is not None else "given indices"
    least, most = numbers["size_min"], numbers["size_max"]
    sizes = f"{least} to {most} a client, median {numbers['size_median']:g}" if least < most else f"{least} a client"
    second = f"{numbers['samples']:,} samples; {sizes}; {numbers['classes_median']:g} classes in the median client"
    if numbers["empty_clients"]:
        second += f"; {numbers['empty_clients']} clients empty"
    if numbers["held_out"]:
        second += f"; {numbers['held_out']:,} held out"
    return [f"{population.dataset.name}, {made}, seed {population.seed}, N = {len(population)}", second]


def _bubbles(axes: Axes, counts: npt.NDArray[np.int64]) -> PathCollection:
    clients, labels = np.nonzero(counts)
    values = counts[clients, labels]
    width = 11.5 * 72 * 0.75 / max(len(counts), 14)  # points from one client to the next
    areas = np.minimum(width, 20.0) ** 2 * values / values.max()
    axes.set_axisbelow(True)
    axes.grid(True, color="#e6e6e6", linewidth=0.6)
    return axes.scatter(
        clients, labels, s=np.maximum(areas, 6), c=values, cmap=f"{COLOURS}_r", vmin=0, vmax=values.max(), linewidths=0
    )


def _heat(axes: Axes, counts: npt.NDArray[np.int64]) -> QuadMesh:
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    levels = np.linspace(0, 1, 256)
    strength = np.clip(levels / PALE_BELOW, 0.2, 1)[:, None]
    colours = ListedColormap(1 - strength * (1 - colormaps[COLOURS](1 - levels)[:, :3]))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    x, y = np.arange(len(counts) + 1) - 0.5, np.arange(counts.shape[1] + 1) - 0.5
    return axes.pcolormesh(x, y, np.ma.masked_equal(shares.T, 0), cmap=colours, vmin=0, vmax=1, rasterized=True)


def _draw_sizes(axes: Axes, sizes: npt.NDArray[np.int64]) -> None:
    from matplotlib.ticker import StrMethodFormatter

    few = len(sizes) <= IDS_UP_TO
    if few:
        axes.bar(np.arange(len(sizes)), sizes, width=0.8, color=BAR)
    else:
        axes.fill_between(np.arange(len(sizes)), sizes, step="mid", color=BAR, linewidth=0)
    axes.set_ylim(bottom=0)
    present = sizes[sizes > 0]
    if present.max() > 30 * present.min():
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.8)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.minorticks_off()
    axes.tick_params(labelbottom=False)


def _by_dominant_class(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Order clients by most frequent class, then by its share, largest first; empty ones last."""
    sizes = counts.sum(axis=1)
    share = counts.max(axis=1) / np.maximum(sizes, 1)
    return np.lexsort((-share, counts.argmax(axis=1), sizes == 0))
