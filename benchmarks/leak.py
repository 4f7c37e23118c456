"""Memory over 200 rounds: this process, Ray's workers, the object store. Each process's memory that no other shares.

    python -m benchmarks.leak

MLP-32, 20 of 20 clients a round: 16 MB of rows a round, 3.2 GB in all.
"""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.machine import describe
from benchmarks.works import WORKS
from fedagg import Clients, LocalGrid, LocalSGD, Population, Strategy, run
from fedagg.data import Dataset
from fedagg.grid.ray import RayGrid
from fedagg.grid.workers import resident_bytes
from fedagg.loop import Callback, Round

ROUNDS, CLIENTS = 200, 20


class Watch(Callback):
    """Note the memory in use after each round."""

    def __init__(self, grid: LocalGrid | RayGrid) -> None:
        self.grid = grid
        self.seen: list[dict[str, int]] = []

    def round_finished(self, done: Round) -> None:
        """Look."""
        self.seen.append(self.grid.memory() if isinstance(self.grid, RayGrid) else {"driver": resident_bytes()})


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print(describe("python -m benchmarks.leak"))
    work = WORKS["MLP-32 x 100"]
    x, y = (array[: CLIENTS * work.examples] for array in work.arrays())
    data = Dataset("noise", x, y, x[:10], y[:10], 10, "made here", shift=0.0, scale=255.0)
    clients = Clients(Population(data, np.split(np.arange(len(y)), CLIENTS)), work.model(), LocalSGD(lr=0.05))
    print("| grid | memory of | rounds 11 to 30, MB | last 20 rounds, MB | growth, MB |\n|---|---|---|---|---|")
    for name, grid in (("LocalGrid", LocalGrid(clients)), ("RayGrid, 2 workers", RayGrid(clients, workers=2))):
        grid.open()
        watch = Watch(grid)
        run(grid, Strategy(), work.model(), ROUNDS, evaluate=lambda arrays: {}, evaluate_every=ROUNDS, callbacks=[watch])
        grid.close()
        for place in watch.seen[-1]:
            used = [seen[place] / 1e6 for seen in watch.seen]
            first, last = float(np.mean(used[11:31])), float(np.mean(used[-20:]))
            print(f"| {name} | {place} | {first:.1f} | {last:.1f} | {last - first:+.1f} |", flush=True)


if __name__ == "__main__":
    main()
