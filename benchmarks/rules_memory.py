"""Memory and seconds of every rule and pre-aggregator on the updates of 100 clients who train a ResNet-18.

    python -m benchmarks.rules_memory

n = 100 rows of d = 11,000,000 float32 numbers, U, take 4.4 GB. Each method in its own process, one thread, f = 10 (2 where
every subset is looked at). Peak is the most that was resident beyond what was before the call; what is returned is part of it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks.machine import describe
from benchmarks.rules import methods

N, D, BLOCK = 100, 11_000_000, 110_000
GOAL = 1.0  # GB


def resident(field: str) -> float:
    """Return a field of the process's status, in GB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(field)) / 1e6


def run_one(name: str) -> None:
    """Call one method and print its row."""
    torch.set_num_threads(1)
    updates = torch.randn(N, BLOCK, generator=torch.Generator().manual_seed(0)).repeat(1, D // BLOCK)
    (method,) = (found for found in methods(updates[0].clone()) if type(found).__name__ == name)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, started = resident("VmRSS"), time.perf_counter()
    made = method(updates)
    seconds, beyond = time.perf_counter() - started, resident("VmHWM") - before
    returned = made.numel() * made.element_size() / 1e9
    outcome = "reached" if beyond - returned <= GOAL else "missed"
    print(f"| {name} | {seconds:.1f} | {beyond:.2f} | {returned:.2f} | {GOAL:g} | {outcome} |", flush=True)


def main() -> None:
    """Print the table."""
    print(describe("python -m benchmarks.rules_memory"))
    print("| call | s | peak beyond U, GB | of it returned | goal for the rest | |\n|---|---|---|---|---|---|", flush=True)
    for method in methods(torch.ones(1)):
        subprocess.run([sys.executable, "-m", "benchmarks.rules_memory", type(method).__name__], check=True)


if __name__ == "__main__":
    run_one(sys.argv[1]) if len(sys.argv) > 1 else main()
