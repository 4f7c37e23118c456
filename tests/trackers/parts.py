"""What tests of trackers share: a run that is shown, one whose process is killed, and its numbers, read independently."""

import csv
import os
import subprocess
import sys
from pathlib import Path

from tests.running import run_into

ROOT = Path(__file__).parents[2]
RUN = ("rounds=6", "seed=5", "attack=ipm", "checkpoint.every=2")
CHOICES = {"strategy": "fedavg", "attack": "ipm"}
KILLED = """
import os, sys
from pathlib import Path
from fedagg import Callback
from tests.running import run_into

class Exits(Callback):
    def round_finished(self, done):
        if done.round == 5:
            os._exit(9)

choices = {"strategy": "fedavg", "attack": "ipm"}
run_into(Path(sys.argv[1]), *sys.argv[2:], choices=choices, watch=lambda _: [Exits()])
"""


def shown(directory: Path, *overrides: str) -> None:
    """Run six rounds from the beginning."""
    run_into(directory, *RUN, *overrides, choices=CHOICES)


def kill(directory: Path, *overrides: str) -> None:
    """Run in a process that is gone, without a last word, after round 5; the last checkpoint is that of round 4."""
    command = [sys.executable, "-c", KILLED, str(directory.resolve()), *RUN, *overrides]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("WANDB_SERVICE", None)  # this process's own helper of W&B, which would survive the killed one
    died = subprocess.run(command, check=False, cwd=directory.parent, env=environment, capture_output=True, text=True)
    assert died.returncode == 9, died.stderr


def go_on(directory: Path, *overrides: str) -> None:
    """Go on with it in this process."""
    run_into(directory, *RUN, *overrides, resume=True)


def table(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """The aggregates in metrics.csv by name, read by the standard library alone."""
    found: dict[str, list[tuple[int, float]]] = {}
    with open(directory / "metrics.csv", newline="") as file:
        for row in csv.DictReader(file):
            if row["client"] == "":
                found.setdefault(f"{row['split']}/{row['metric']}", []).append((int(row["round"]), float(row["value"])))
    assert [round for round, _ in found["test/accuracy"]] == list(range(7))
    return found
