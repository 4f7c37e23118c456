"""Does a study that is killed again and again end with the table of one that nobody killed? SIGKILL at random moments.

    python -m benchmarks.kill_study
    python -m benchmarks.kill_study --kills 50 --seed 1

Sixteen runs (two strategies, two attacks, four seeds) on two workers, with Adam on the server and a lossy network. The command
is killed at moments drawn uniformly from the time the whole study takes, its start included; the workers must end because
their parent has gone. Then the same command is called again, and killed again, until it lives to its end; after the last kill
it is let through. As long as kills are left, another study is begun. The exit code is 1 if a ``results.csv``, or the final
parameters of any run, differ in a bit from those of the study that nobody killed.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from fedagg.results import read_run
from fedagg.study import Store

STUDY = {
    "config": {"population": 10, "server_optimizer": "adam", "faults": "lossy", "checkpoint.seconds": 0.2},
    "axes": {"strategy": ["trimmed_mean", "median"], "attack": ["none", "alie"]},
    "seeds": 4,
    "workers": 2,
}


@dataclass
class Outcome:
    """How one study fared.

    Args:
        complete: how many of its runs were complete whenever it was killed.
        same: whether it ended with the bits of the study that nobody killed.
    """

    complete: list[int] = field(default_factory=list)
    same: bool = False


def make(folder: Path, rounds: int) -> Path:
    """Write the study, with a store of its own, and return its folder."""
    folder.mkdir()
    config = {**STUDY["config"], "rounds": rounds}  # type: ignore[dict-item]
    (folder / "study.yaml").write_text(json.dumps({**STUDY, "config": config, "store": str(folder / "store")}))
    return folder


def survives(folder: Path, seconds: float | None = None) -> bool:
    """Call the command, and kill it after so many seconds if it lives to see it.

    Raises:
        RuntimeError: it failed, or a worker outlived it by five seconds.
    """
    log = folder / "log"
    with open(log, "w") as out:
        process = subprocess.Popen([sys.executable, "-m", "fedagg.cli", "study", str(folder)], stdout=out, stderr=out)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            workers = children_of(process.pid)
            process.kill()
            process.wait()
            wait_until_gone(workers)
    if process.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the study ended with {process.returncode}:\n{log.read_text()}")
    return process.returncode == 0


def children_of(pid: int) -> list[int]:
    """Return the processes whose parent this is."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 5
    while alive := [pid for pid in pids if lives(pid)]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"workers {alive} outlived their parent")
        time.sleep(0.01)


def lives(pid: int) -> bool:
    """Whether a process is there, and is more than a note of its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def experiment(folder: Path, kills: int, rounds: int, seed: int) -> list[Outcome]:
    """Kill studies ``kills`` times in all, and compare each with one that nobody killed."""
    draw, whole = random.Random(seed), make(folder / "whole", rounds)
    began = time.monotonic()
    survives(whole)
    life = time.monotonic() - began
    outcomes: list[Outcome] = []
    while (left := kills - sum(len(outcome.complete) for outcome in outcomes)) > 0:
        outcome, study = Outcome(), make(folder / str(len(outcomes)), rounds)
        done = False
        while not done and len(outcome.complete) < left:
            done = survives(study, draw.uniform(0, life))
            if not done:
                outcome.complete.append(complete(study))
        if not done:
            survives(study)
        outcome.same = ends_of(study) == ends_of(whole)
        outcomes.append(outcome)
    return outcomes


def complete(study: Path) -> int:
    """Return how many runs are complete."""
    store = Store(study / "store")
    return sum(store.state(path.parent.name).status == "completed" for path in store.folder.glob("*/run.json"))


def ends_of(study: Path) -> tuple[bytes, dict[str, str]]:
    """Return the table of a complete study, and the hash of every run's final parameters."""
    runs = sorted(path.parent for path in (study / "store").glob("*/run.json"))
    return (study / "store" / "results.csv").read_bytes(), {run.name: read_run(run).info["parameters"] for run in runs}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fedagg-kill-") as folder:
        outcomes = experiment(Path(folder), chosen.kills, chosen.rounds, chosen.seed)
    print("| study | runs that were complete when it was killed | same bits |\n|--:|:--|:--|")
    for number, outcome in enumerate(outcomes):
        moments = ", ".join(map(str, outcome.complete)) or "it was quicker"
        print(f"| {number} | {moments} | {'yes' if outcome.same else 'NO'} |")
    killed, same = sum(len(outcome.complete) for outcome in outcomes), sum(outcome.same for outcome in outcomes)
    print(f"\n{killed} SIGKILLs in studies of 16 runs: {same} of {len(outcomes)} studies ended with the same bits")
    return 0 if same == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
