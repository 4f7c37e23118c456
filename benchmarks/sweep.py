"""A sweep of 60 runs: a shell loop of commands, Hydra's multirun, and a study with two warm workers.

    python -m benchmarks.sweep

The runs are those of experiments/quickstart with 5 of its 16 cells and 12 seeds. One measurement each: they take minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import describe
from fedagg.study import Study

SHARED = ["population=20", "rounds=30", "f=4", "partition.alpha=0.5", "local.epochs=2", "local.lr=0.3"]
CELLS = {"strategy": ["fedavg"], "attack": ["none", "sign_flip", "alie", "ipm", "gaussian_noise"]}
SEEDS = range(12)
GOAL = 5.0


def seconds(*commands: list[str]) -> float:
    """Return how long these commands take, one after another."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"}
    began = time.perf_counter()
    for command in commands:
        subprocess.run([sys.executable, "-m", "fedagg.cli", *command], env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def main() -> None:
    """Print the table."""
    print(describe("python -m benchmarks.sweep").replace("medians with minimum and maximum", "one measurement each"))
    print("| 60 runs by | seconds | runs an hour | times the shell loop's speed | goal | |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "study.yaml"
        file.write_text(
            f"config: {{{', '.join(word.replace('=', ': ') for word in SHARED)}}}\naxes: {CELLS}\nseeds: {len(SEEDS)}\n"
        )
        single = [list(job.overrides) for job in Study.load(file).jobs()]
        axes = [f"{key}={','.join(values)}" for key, values in CELLS.items()]
        sweep = [*SHARED, *axes, f"seed={','.join(map(str, SEEDS))}", f"hydra.sweep.dir={folder}/multirun"]
        loop = seconds(*(["run", *overrides, f"hydra.run.dir={folder}/loop/{i}"] for i, overrides in enumerate(single)))
        sides = {
            "shell loop of `fedagg run`": loop,
            "`fedagg run -m`": seconds(["run", "-m", *sweep]),
            "`fedagg study`, 1 worker": seconds(["study", str(file), f"study.store={folder}/one", "study.workers=1"]),
            "`fedagg study`, 2 workers": seconds(["study", str(file), f"study.store={folder}/two", "study.workers=2"]),
        }
        for name, spent in sides.items():
            goal = f"{GOAL} | {'reached' if loop / spent >= GOAL else f'missed by {1 - loop / spent / GOAL:.0%}'}"
            last = goal if name == list(sides)[-1] else " | "
            print(f"| {name} | {spent:.0f} | {len(single) / spent * 3600:.0f} | {loop / spent:.1f} | {last} |", flush=True)


if __name__ == "__main__":
    main()
