"""Peak resident memory of a run, by strategy, beside the size of its matrix of updates.

    python -m benchmarks.memory

100 clients of 32 random examples, an MLP of 979,810 parameters, two rounds, one thread; every strategy in its own process.
"""

from __future__ import annotations

import resource
import subprocess
import sys

import numpy as np
import torch

from benchmarks.machine import describe

N, HIDDEN = 100, (900, 300)
STRATEGIES = ("Mean()", "Median()", "TrimmedMean(f=20)", "Krum(f=20)")


def run_one(rule: str) -> None:
    """Run and print the peak in MB."""
    import strategies
    from fedagg import Clients, LocalGrid, Population, Strategy, run
    from fedagg.data import Dataset
    from fedagg.models import build, mlp

    torch.set_num_threads(1)
    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 256, (32 * N, 1, 28, 28), dtype=np.uint8), draw.integers(0, 10, 32 * N)
    population = Population(Dataset("noise", x, y, x[:10], y[:10], 10, "made here"), np.split(np.arange(32 * N), N))
    model = build(mlp, (1, 28, 28), 10, HIDDEN, seed=0)
    chosen = Strategy(eval(rule, vars(strategies)))
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    grid = LocalGrid(Clients(population, model))
    run(grid, chosen, model, rounds=2)
    d = grid.layout.size() if grid.layout else 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"| {rule} | {N * d * 4 / 1e6:.0f} | {start:.0f} | {peak:.0f} | {(peak - start) / (N * d * 4 / 1e6):.1f} |")


def main() -> None:
    """Print the table."""
    print(describe("python -m benchmarks.memory"))
    print(
        "| rule | n x d x 4 bytes, MB | before the run, MB | peak, MB | growth in matrices |\n|---|---|---|---|---|",
        flush=True,
    )
    for rule in STRATEGIES:
        subprocess.run([sys.executable, "-m", "benchmarks.memory", rule], check=True)


if __name__ == "__main__":
    run_one(sys.argv[1]) if len(sys.argv) > 1 else main()
