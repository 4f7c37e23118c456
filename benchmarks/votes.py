"""Seconds of elections: certified ones over many models, and Kemeny's order of many strategies.

    python -m benchmarks.votes [--points 10000]

Certified: 10,000 test points x 1,200 models x 10 classes, logits in float32 of which one class is 1 higher on average, and
votes made of them before; d is the number of models that read a bucket. One thread, processor time; the memory is the peak of
what NumPy holds beside logits and votes. Kemeny: random scores on 20 tasks, exact up to 16 strategies, by search above.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.machine import describe
from fedagg.report.voting import kemeny, kemeny_heuristic
from strategies.protocols.certified import dpa, finite_aggregation, run_off_election, spread_matrix

MODELS, CLASSES, TASKS = 1200, 10, 20
STRATEGIES = (6, 10, 12, 16, 30)
EXACT = 16  # strategies


def certified(points: int) -> dict[str, Callable[[], object]]:
    """Return what to time."""
    draw = np.random.default_rng(0)
    logits = draw.standard_normal((points, MODELS, CLASSES), dtype=np.float32)
    logits[:, :, 3] += 1
    votes = logits.argmax(axis=2)
    few, many = (spread_matrix(MODELS, draw.choice(MODELS, d, replace=False).tolist()) for d in (2, 16))
    return {
        "dpa": partial(dpa, votes, CLASSES),
        "finite_aggregation, d = 2": partial(finite_aggregation, votes, CLASSES, few),
        "finite_aggregation, d = 16": partial(finite_aggregation, votes, CLASSES, many),
        "run_off_election": partial(run_off_election, logits),
        "run_off_election, d = 2": partial(run_off_election, logits, few),
        "run_off_election, d = 16": partial(run_off_election, logits, many),
    }


def orders() -> dict[str, Callable[[], object]]:
    """Return what to time."""
    draw = np.random.default_rng(0)
    return {
        f"{'kemeny' if n <= EXACT else 'kemeny_heuristic'}, {n} strategies": partial(
            kemeny if n <= EXACT else kemeny_heuristic, draw.random((n, TASKS))
        )
        for n in STRATEGIES
    }


def seconds(work: Callable[[], object]) -> float:
    """Return processor time."""
    start = time.process_time()
    work()
    return time.process_time() - start


def peak(work: Callable[[], object]) -> float:
    """Return the most MB that NumPy and Python held during the work, beside what there was before."""
    tracemalloc.start()
    work()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most / 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.votes")
    parser.add_argument("--points", type=int, default=10_000, help="test points of the certified elections")
    points = parser.parse_args().points
    print(describe(f"python -m benchmarks.votes --points {points}"))
    print("| election | seconds | MB beside the input |\n|:--|--:|--:|")
    for name, work in {**certified(points), **orders()}.items():
        print(f"| {name} | {seconds(work):.3g} | {peak(work):.3g} |", flush=True)


if __name__ == "__main__":
    main()
