"""How much slower is a round of ours than a bare torch loop? Both sides alternate in one process on one thread.

    python -m benchmarks.rounds

Model and client sizes: MLP = 784-200-200-10, CNN = two 5x5 convolutions; 32 or 600 random examples per client (time does not
depend on what the pixels show), batch 32, one local epoch. Ours does more: it fills the matrix of updates [n, d], checks every
reply, averages in float64 and collects metrics. Server evaluation is off on both sides.
"""

from __future__ import annotations

import time
from statistics import median

import numpy as np
import torch

from benchmarks.floor import BareLoop
from benchmarks.machine import describe
from fedagg import Clients, LocalGrid, LocalSGD, Population, Strategy
from fedagg.data import Dataset
from fedagg.loop import run
from fedagg.models import build, cnn, mlp

REPEATS = 7
WORKS = {  # name: (model, examples per client, clients per round, rounds per repeat)
    "MLP-32 x 10": (mlp, 32, 10, 10),
    "MLP-32 x 100": (mlp, 32, 100, 2),
    "MLP-600 x 10": (mlp, 600, 10, 2),
    "CNN-600 x 10": (cnn, 600, 10, 1),
}


def measure(name: str) -> tuple[list[float], list[float]]:
    """Return milliseconds per round of the floor and of ours, one pair per repeat."""
    factory, examples, cohort, rounds = WORKS[name]
    draw = np.random.default_rng(0)
    x = draw.integers(0, 256, (examples * cohort, 1, 28, 28), dtype=np.uint8)
    y = draw.integers(0, 10, examples * cohort)
    data = Dataset("noise", x, y, x[:10], y[:10], 10, "made here", shift=0.0, scale=255.0)
    population = Population(data, np.split(np.arange(len(y)), cohort))
    model = build(factory, (1, 28, 28), 10, seed=0)
    floor = BareLoop(model, {i: population.train(i) for i in range(cohort)}, lr=0.05, batch_size=32)
    grid = LocalGrid(Clients(population, model, LocalSGD(lr=0.05)))

    def bare() -> None:
        for _ in range(rounds):
            floor.round(list(range(cohort)))

    def ours() -> None:
        run(grid, Strategy(), model, rounds, evaluate=lambda arrays: {}, evaluate_every=rounds)

    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(REPEATS + 1):  # the first is the warm-up
        for side, work in zip(times, (bare, ours), strict=True):
            started = time.perf_counter()
            work()
            if repeat:
                side.append((time.perf_counter() - started) / rounds * 1e3)
    return times


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print(describe("python -m benchmarks.rounds"))
    print("| work | bare loop, ms/round | fedagg, ms/round | ratio, median (min to max) |\n|---|---|---|---|")
    for name in WORKS:
        floor, ours = measure(name)
        ratios = [b / a for a, b in zip(floor, ours, strict=True)]
        spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {name} | {median(floor):.1f} | {median(ours):.1f} | {spread} |", flush=True)


if __name__ == "__main__":
    main()
