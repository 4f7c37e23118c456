"""Does a round cost more when 10,000 times as many clients exist, for the same cohort? And what does a client cost to keep?

    python -m benchmarks.population

Every client sees 32 random rows of the same 60,000 (``Views``); 100 clients a round train an MLP 784-200-200-10 for one epoch,
which is one batch. The populations alternate in one process on one thread, server evaluation is off. What is kept is measured
in a process per population: resident memory after some rounds, less that of the smallest population, so that data, model and
updates cancel; only the largest is large enough for the difference to mean something.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.machine import describe
from fedagg import Clients, LocalGrid, LocalSGD, Population, Strategy
from fedagg.data import Dataset, Views
from fedagg.loop import run
from fedagg.models import build, mlp

CLIENTS = (100, 10_000, 1_000_000)
COHORT, SAMPLES, ROWS = 100, 32, 60_000
REPEATS, ROUNDS = 7, 5


class Federation:
    """``n`` clients and the Grid they live in."""

    def __init__(self, n: int) -> None:
        draw = np.random.default_rng(0)
        x, y = draw.integers(0, 256, (ROWS, 1, 28, 28), dtype=np.uint8), draw.integers(0, 10, ROWS)
        data = Dataset("noise", x, y, x[:10], y[:10], 10, "made here", shift=0.0, scale=255.0)
        started = time.perf_counter()
        population = Population.split(data, Views(SAMPLES), n)
        self.seconds = time.perf_counter() - started
        self.model = build(mlp, (1, 28, 28), 10, seed=0)
        self.grid = LocalGrid(Clients(population, self.model, LocalSGD(lr=0.05)))

    def rounds(self, seed: int) -> float:
        """Run some rounds; return milliseconds per round."""
        strategy = Strategy(cohort=COHORT, seed=seed)
        started = time.perf_counter()
        run(self.grid, strategy, self.model, ROUNDS, evaluate=lambda arrays: {}, evaluate_every=ROUNDS)
        return (time.perf_counter() - started) / ROUNDS * 1e3


def resident(n: int) -> int:
    """Return the resident bytes of another process that holds ``n`` clients after some rounds."""
    done = subprocess.run([sys.executable, "-m", "benchmarks.population", str(n)], check=True, capture_output=True, text=True)
    return int(done.stdout)


def hold(n: int) -> None:
    """Hold ``n`` clients, run, and print this process's resident bytes."""
    torch.set_num_threads(1)
    federation = Federation(n)
    federation.rounds(seed=0)
    gc.collect()
    print(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))


def main() -> None:
    """Print the table."""
    kept = (resident(CLIENTS[-1]) - resident(CLIENTS[0])) / (CLIENTS[-1] - CLIENTS[0])
    torch.set_num_threads(1)
    print(describe("python -m benchmarks.population"))
    federations = {n: Federation(n) for n in CLIENTS}
    times: dict[int, list[float]] = {n: [] for n in CLIENTS}
    for repeat in range(REPEATS + 1):  # the first is the warm-up
        for n, federation in federations.items():
            milliseconds = federation.rounds(seed=repeat)
            if repeat:
                times[n].append(milliseconds)
    print("| clients | split, s | ms/round | ratio to the fewest, median (min to max) | bytes kept a client |")
    print("|---|---|---|---|---|")
    for n, federation in federations.items():
        ratios = [b / a for a, b in zip(times[CLIENTS[0]], times[n], strict=True)]
        spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if n > CLIENTS[0] else ""
        size = f"{kept:.0f}" if n == CLIENTS[-1] else ""
        print(f"| {n:,} | {federation.seconds:.2f} | {median(times[n]):.1f} | {spread} | {size} |")


if __name__ == "__main__":
    hold(int(sys.argv[1])) if len(sys.argv) > 1 else main()
