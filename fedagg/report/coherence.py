"""How much clients agreed over a run, where they stopped to, and how far the server shrank their mean model.

    python -m fedagg.report.coherence RUN [--out STEM]

RUN is the directory of a run with strategy=fedlaw. The figure shows the client coherence of every round, which is the mean
cosine between the updates of two clients, with its critical point, and the learned factor gamma.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedagg.console import complain
from fedagg.errors import ConfigError, FedaggError
from fedagg.report.canvas import COLOURS, GREY, SMALL, WIDTH, footer, header, house_style, save
from fedagg.results import Run, read_run

PANELS = (("coherence", "client coherence"), ("gamma", "gamma"))  # metric of the server, and in words
NAMED = ("strategy", "attack", "data", "model", "partition")
LINES = {"coherence": 0.0, "gamma": 1.0}  # what each is compared with
HEIGHT, LEFT, RIGHT, GAP, BELOW = 1.55, 0.62, 0.15, 0.22, 0.45  # inches


def critical_point(rounds: npt.ArrayLike, coherence: npt.ArrayLike) -> int | None:
    """Return the first round in which the mean cosine between clients is 0 or less; None if there is none.

    Args:
        rounds: [T], ascending.
        coherence: [T], that of each round; NaN where it was not measured.
    """
    reached = np.flatnonzero(np.asarray(coherence, dtype=np.float64) <= 0)
    return int(np.asarray(rounds)[reached[0]]) if len(reached) else None


def draw_coherence(run: Run) -> Figure:
    """Return the figure of one run, to be saved in the house style.

    Raises:
        ConfigError: the run recorded neither coherence nor gamma.
    """
    series = {metric: run.series(metric, "server") for metric, _ in PANELS}
    if missing := [metric for metric, (rounds, _) in series.items() if not len(rounds)]:
        raise ConfigError(f"{run.path} has no server/{', no server/'.join(missing)}; runs with strategy=fedlaw have both")
    critical = critical_point(*series["coherence"])
    name = ", ".join([*(f"{key}={run.label[key]}" for key in NAMED if key in run.label), f"seed={run.seed}"])
    head = header("Client coherence and shrinking over rounds", name)
    found = f"Critical point, its first round at 0 or below: {critical}." if critical is not None else "It never reached 0."
    foot = footer(
        f"Client coherence: mean cosine between the updates of two different clients of a round. {found} "
        "Gamma: what the mean of the clients' models is multiplied by, as learned on the server's examples; 1 leaves it alone."
    )
    height = head.height + 0.1 + len(PANELS) * HEIGHT + GAP + BELOW + foot.height
    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    head.put(figure)
    foot.put(figure)
    for place, (metric, words) in enumerate(PANELS):
        y = foot.height + BELOW + (len(PANELS) - 1 - place) * (HEIGHT + GAP)
        axes = figure.add_axes((LEFT / WIDTH, y / height, (WIDTH - LEFT - RIGHT) / WIDTH, HEIGHT / height))
        rounds, values = series[metric]
        lowest = place == len(PANELS) - 1
        dots = "o" if len(rounds) <= 40 else None
        axes.plot(rounds, values, color=COLOURS[2 * place], linewidth=1.3, marker=dots, markersize=2.5, clip_on=False)
        axes.axhline(LINES[metric], color=GREY, linewidth=0.8, linestyle=(0, (4, 2)))
        axes.set_xlim(min(1, int(rounds[0])), max(2, int(rounds[-1])))
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.grid(axis="y")
        axes.set_ylabel(words, color="#333333")
        axes.tick_params(labelbottom=lowest, length=2.5)
        if critical is not None:
            _mark(axes, critical, named=place == 0)
        if lowest:
            axes.set_xlabel("round", labelpad=2, color="#333333")
    figure.align_ylabels()
    return figure


def _mark(axes: Axes, critical: int, named: bool) -> None:
    """Draw a line at the critical point."""
    axes.axvline(critical, color=COLOURS[1], linewidth=0.9)
    if named:
        low, high = axes.get_xlim()
        right = critical > (low + high) / 2
        axes.annotate(
            f"critical point: round {critical}",
            (critical, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(-4 if right else 4, -2),
            textcoords="offset points",
            ha="right" if right else "left",
            va="top",
            fontsize=SMALL,
            color=COLOURS[1],
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the figure of one run, name the files, and say where the critical point is."""
    parser = argparse.ArgumentParser(prog="python -m fedagg.report.coherence", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="the directory of a run with strategy=fedlaw")
    parser.add_argument("--out", type=Path, help="where to write, without .png and .pdf (default: coherence in the directory)")
    parsed = parser.parse_args(arguments)
    try:
        run = read_run(parsed.run)
        with house_style():
            files = save(draw_coherence(run), parsed.out or parsed.run / "coherence")
    except FedaggError as error:
        return complain(error)
    critical = critical_point(*run.series("coherence", "server"))
    found = "none, coherence never reached 0" if critical is None else f"round {critical}, the first at 0 or below"
    print(*files, f"critical point: {found}", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
