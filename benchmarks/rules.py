"""Milliseconds per call of every rule and pre-aggregator, against floors and against other libraries.

    python -m benchmarks.rules [--threads 1|2]

n = 50 clients, d = 200,000 parameters, f = 10 (2 where every subset is looked at), float32. The floors are a copy of the
matrix, and its Gram product in float32; ours adds blocks of columns up in float64. Libraries that are installed
(benchmarks/peers/rules.py) run in turns with ours; what takes long is repeated less often.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

import strategies as s
from benchmarks.machine import describe
from benchmarks.peers.rules import peers
from fedagg import PreAggregator, Rule

REPEATS, SECONDS, N, D, F, SMALL_F = 7, 10.0, 50, 200_000, 10, 2
COPY, GRAM = "copy", "Gram product"
GOALS = {  # at most so many times this floor
    "Mean": (1.3, COPY),
    "Median": (12.0, COPY),
    "TrimmedMean": (12.0, COPY),
    "MeaMed": (20.0, COPY),
    "Phocas": (20.0, COPY),
    "Krum": (2.5, GRAM),
    "MultiKrum": (2.5, GRAM),
    "Medoid": (2.5, GRAM),
    "MDA": (2.5, GRAM),
}


def methods(root: Tensor) -> list[Rule | PreAggregator]:
    """Return every rule and pre-aggregator; the server's own update is ``root`` [d]."""
    return [
        *(s.Mean(), s.Median(), s.TrimmedMean(F), s.MeaMed(F), s.Phocas(F)),
        *(s.Krum(F), s.MultiKrum(F), s.Bulyan(F), s.Medoid(), s.GeometricMedian()),
        *(s.MDA(SMALL_F), s.SMEA(SMALL_F), s.CAF(F), s.CGE(F), s.MoNNA(F)),
        *(s.CenteredClip(), s.SignMajority(), s.RobustLearningRate(theta=F + 1), s.FLTrust(root_update=root), s.FoolsGold()),
        *(s.FLAME(), s.DnC(F), s.SignGuard(), s.Zeno(F, loss=lambda step: float(step @ root)), s.GAS(F, s.Median())),
        *(s.FlagAggregator(), s.UPGrad()),
        *(s.NNM(F), s.Bucketing(s=2), s.StaticClip(c=100.0), s.ARC(F)),
    ]


def ours(updates: Tensor) -> dict[str, Callable[[], object]]:
    """Return what to time, by class; the few that are there twice say why."""
    calls: dict[str, Callable[[], object]] = {
        type(method).__name__: lambda method=method: method(updates) for method in methods(updates.mean(dim=0))
    }
    three = s.GeometricMedian(nu=0.1, T=3, tol=0.0, start="zero")
    return {**calls, "GeometricMedian, 3 passes": lambda: three(updates)}


def milliseconds(works: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Time all works in turns, after a warm-up, each until it was repeated or has run for long enough."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(REPEATS + 1):
        for name, work in works.items():
            if repeat and sum(times[name]) > SECONDS * 1e3:
                continue
            started = time.perf_counter()
            work()
            took = (time.perf_counter() - started) * 1e3
            if repeat or took > SECONDS * 1e3:  # a warm-up makes no difference to what takes that long
                times[name].append(took)
    return times


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rules")
    parser.add_argument("--threads", type=int, default=1)
    threads = parser.parse_args().threads
    torch.set_num_threads(threads)
    updates = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
    mine, others = ours(updates), peers(updates, F, SMALL_F)
    works: dict[str, Callable[[], object]] = {COPY: updates.clone, GRAM: lambda: updates @ updates.T, **mine}
    works |= {f"{name} {library}": call for name, calls in others.items() for library, call in calls.items()}
    middle = {}
    spread = {}
    for name, measured in milliseconds(works).items():
        middle[name] = median(measured)
        spread[name] = f"{middle[name]:.1f} ({min(measured):.1f} to {max(measured):.1f})"
    print(describe(f"python -m benchmarks.rules --threads {threads}"))
    print("| call | ms, median (min to max) | times a copy | times a Gram product | goal | | others: ms, times ours |")
    print("|---|---|---|---|---|---|---|")
    for name in (COPY, GRAM, *mine):
        goal = outcome = ""
        if name in GOALS:
            most, floor = GOALS[name]
            goal = f"{most:g} times a {floor}"
            outcome = "reached" if middle[name] <= most * middle[floor] else "missed"
        beside = ", ".join(
            f"{library} {middle[f'{name} {library}']:.1f} ({middle[f'{name} {library}'] / middle[name]:.1f})"
            for library in others.get(name, {})
        )
        ratios = f"{middle[name] / middle[COPY]:.1f} | {middle[name] / middle[GRAM]:.1f}"
        print(f"| {name} | {spread[name]} | {ratios} | {goal} | {outcome} | {beside} |")


if __name__ == "__main__":
    main()
