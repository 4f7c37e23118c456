"""Milliseconds per call of every rule, against the floor: a copy of the matrix, and for rules of distances its Gram product.

    python -m benchmarks.rules

n = 50 clients, d = 200,000 parameters, f = 10, float32, one thread. Ours sums in float64, the floor's Gram product is float32.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch

from benchmarks.machine import describe
from strategies import Krum, Mean, Median, MultiKrum, TrimmedMean

REPEATS, N, D, F = 7, 50, 200_000, 10


def milliseconds(works: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Time all works in turns."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(REPEATS + 1):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            if repeat:
                times[name].append((time.perf_counter() - started) * 1e3)
    return times


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    updates = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
    floors = {"copy": updates.clone, "Gram product (float32)": lambda: updates @ updates.T}
    rules = {str(rule): rule for rule in (Mean(), Median(), TrimmedMean(F), Krum(F), MultiKrum(F))}
    times = milliseconds({**floors, **{name: lambda rule=rule: rule(updates) for name, rule in rules.items()}})
    print(describe("python -m benchmarks.rules"))
    print("| call | ms, median (min to max) | times a copy | times a Gram product |\n|---|---|---|---|")
    copy, gram = (median(times[name]) for name in floors)
    for name, measured in times.items():
        middle = median(measured)
        cell = f"{middle:.1f} ({min(measured):.1f} to {max(measured):.1f})"
        print(f"| {name} | {cell} | {middle / copy:.1f} | {middle / gram:.1f} |")


if __name__ == "__main__":
    main()
