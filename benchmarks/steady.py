"""Milliseconds per round in steady state: every side in a process of its own, in turns, one at a time.

    python -m benchmarks.steady

pfl-research is measured where ``make peers`` has made its environment. Flower's simulation cannot wait between rounds: it runs
after the others, alone, on two actors, and its rounds after the second are the repeats.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

from benchmarks.machine import describe

REPEATS = 11
PFL = Path(".venv-pfl/bin/python")
# work: (faster side, slower side, goal: how many times as fast the first is at least)
GOALS = {
    ("MLP-32 x 100", "fedagg", "loop"): 0.85,
    ("MLP-32 x 100", "fedagg", "pfl"): 1.8,
    ("MLP-32 x 100", "fedagg", "flower simulation"): 12.0,
    ("MLP-32 x 100", "flower", "flower simulation"): 8.0,
    ("CNN-600 x 10", "fedagg", "loop"): 0.95,
    ("CNN-600 x 10", "fedagg", "pfl"): 1.3,
    ("CNN-600 x 10", "ray2", "ray1"): 1.7,
}
WORKS: dict[str, Sequence[str]] = {
    "MLP-32 x 10": ("loop", "fedagg", "pfl"),
    "MLP-32 x 100": ("loop", "fedagg", "flower", "pfl"),
    "MLP-600 x 10": ("loop", "fedagg", "pfl"),
    "CNN-600 x 10": ("loop", "fedagg", "pfl", "ray1", "ray2"),
}


class Side:
    """A process that runs a repeat when it is told to."""

    def __init__(self, name: str, work: str) -> None:
        command = (
            [PFL, "-m", "benchmarks.peers.pfl_research"] if name == "pfl" else [sys.executable, "-m", "benchmarks.side", name]
        )
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"}
        self.process = subprocess.Popen(
            [*map(str, command), work],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def repeat(self) -> float:
        """Return milliseconds per round."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("ms "):
                return float(line.split()[1])
        raise RuntimeError(f"{self.process.args} ended with {self.process.wait()}")

    def stop(self) -> None:
        """End the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def flower_rounds(work: str, rounds: int) -> list[float]:
    """Return milliseconds of every round after the second of Flower's simulation."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0", "BENCHMARK_BEGAN": str(time.time())}
    command = [sys.executable, "-m", "benchmarks.peers.flower_simulation", work, str(rounds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    ends = [float(line.split()[2]) for line in done.stdout.splitlines() if line.startswith("round ")]
    return [(b - a) * 1e3 for a, b in pairwise(ends[2:])]


def measure(work: str) -> dict[str, list[float]]:
    """Return milliseconds per round, side by side."""
    names = [name for name in WORKS[work] if name != "pfl" or PFL.exists()]
    sides = {name: Side(name, work) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(REPEATS + 2):  # two to warm up
        for name, side in sides.items():
            spent = side.repeat()
            if repeat >= 2:
                times[name].append(spent)
    for side in sides.values():
        side.stop()
    return times


def main() -> None:
    """Print the tables."""
    print(describe("python -m benchmarks.steady"))
    print("| work | side | ms/round, median (min to max) |\n|---|---|---|")
    results = {}
    for work in WORKS:
        times = measure(work)
        if work == "MLP-32 x 100":
            times["flower simulation"] = flower_rounds(work, REPEATS + 2)
        results[work] = times
        for name, spent in times.items():
            print(f"| {work} | {name} | {median(spent):.1f} ({min(spent):.1f} to {max(spent):.1f}) |", flush=True)
    print("\n| work | side | against | times as fast, median (min to max) | goal | |\n|---|---|---|---|---|---|")
    for (work, fast, slow), goal in GOALS.items():
        if fast not in results[work] or slow not in results[work]:
            print(f"| {work} | {fast} | {slow} | not measured: `make peers` is missing | {goal} | |")
            continue
        ratios = [b / a for a, b in zip(results[work][fast], results[work][slow], strict=False)]
        verdict = "reached" if median(ratios) >= goal else f"missed by {1 - median(ratios) / goal:.0%}"
        spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {work} | {fast} | {slow} | {spread} | {goal} | {verdict} |", flush=True)


if __name__ == "__main__":
    main()
