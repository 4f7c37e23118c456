"""A whole run from the start of its process: imports, start-up, rounds. Every run in a process of its own, in turns.

    python -m benchmarks.whole

"script" is a Python file over fedagg, as Flower's side is one over Flower; "fedagg run" is the command, which also composes a
config, writes a run directory and measures on the test set; "imports" only imports torch and flwr.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from statistics import median

from benchmarks.machine import describe

REPEATS = 5
SIDES = {  # work: (rounds, what to type behind fedagg run)
    "MLP-32 x 10": (1, "population=100 cohort=10 data=fashion_mnist partition=views rounds=1"),
    "FLUTE": (
        100,
        "population=1000 cohort=10 data=fashion_mnist partition=views partition.samples=60 model=logistic_regression "
        "local.batch_size=10 local.lr=0.05 rounds=100 evaluation.every=100",
    ),
}
GOALS = {"MLP-32 x 10": (2.5, 10.0), "FLUTE": (5.0, 10.0)}  # whole, beyond the imports
IMPORTS = "import torch, flwr.app, flwr.serverapp, flwr.clientapp"


def script(name: str) -> None:
    """Run one work with fedagg and print when it ended."""
    from benchmarks.side import ours
    from benchmarks.works import WORKS

    ours(WORKS[name], rounds=SIDES[name][0])()
    print("end", time.time() - float(os.environ["BENCHMARK_BEGAN"]), flush=True)


def seconds(command: list[str], until: str = "") -> float:
    """Return seconds from the start of a process to what its line that begins with ``until`` says, or to its end."""
    began = time.time()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0", "BENCHMARK_BEGAN": repr(began)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    ends = [float(line.split()[-1]) for line in done.stdout.splitlines() if until and line.startswith(until)]
    return ends[0] if ends else time.time() - began


def measure(name: str) -> dict[str, list[float]]:
    """Return seconds, side by side."""
    rounds, overrides = SIDES[name]
    times: dict[str, list[float]] = {"imports": [], "script": [], "fedagg run": [], "Flower": []}
    python = [sys.executable, "-m"]
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            command = [*python, "fedagg.cli", "run", *overrides.split(), f"hydra.run.dir={folder}/run"]
            times["imports"].append(seconds([sys.executable, "-c", IMPORTS]))
            times["script"].append(seconds([*python, "benchmarks.whole", name], "end"))
            times["fedagg run"].append(seconds(command))
        flower = [*python, "benchmarks.peers.flower_simulation", name, str(rounds)]
        times["Flower"].append(seconds(flower, "round 1 " if rounds == 1 else "end"))
    return times


def main() -> None:
    """Print the tables."""
    print(describe("python -m benchmarks.whole"))
    print("| work | side | seconds, median (min to max) |\n|---|---|---|")
    lines = []
    for name in SIDES:
        times = measure(name)
        for side, spent in times.items():
            print(f"| {name} | {side} | {median(spent):.2f} ({min(spent):.2f} to {max(spent):.2f}) |", flush=True)
        for side in ("script", "fedagg run"):
            ratios = [theirs / mine for theirs, mine in zip(times["Flower"], times[side], strict=True)]
            imports, mine = median(times["imports"]), median(times[side])
            beyond = (median(times["Flower"]) - imports) / (mine - imports) if mine > imports else math.inf
            words = f"{beyond:.1f}" if mine > imports else "no longer than the imports"
            found = (
                ("whole", median(ratios), f"{median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"),
                ("beyond the imports, of medians", beyond, words),
            )
            for (what, ratio, text), goal in zip(found, GOALS[name], strict=True):
                verdict = "reached" if ratio >= goal else f"missed by {1 - ratio / goal:.0%}"
                lines.append(f"| {name} | {side} | {what} | {text} | {goal} | {verdict} |")
    print("\n| work | side | what | times as fast as Flower, median (min to max) | goal | |\n|---|---|---|---|---|---|")
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    script(sys.argv[1]) if len(sys.argv) > 1 else main()
