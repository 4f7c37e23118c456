"""Is a run that was killed and resumed the run that nobody killed, to the bit? SIGKILL at random moments of a real command.

    python -m benchmarks.kill_resume
    python -m benchmarks.kill_resume --kills 50 --seed 1 engine=ray engine.workers=2

The world is one in which nearly everything has a state or draws: Adam on the server, ALIE in every cohort, a lossy network,
clients that come and go, clients that evaluate. Every run is killed once, twice or three times, a quarter of the times while
the process starts, else at a moment drawn uniformly from the rounds it has left; then it is resumed until it is complete. How
often checkpoints are written, and whether ``resume=auto`` or ``fedagg resume`` goes on, is drawn as well. The exit code is 1
if ``metrics.csv`` or the final parameters of any run differ in a bit from those of the run that nobody killed.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedagg.results import read_run

WORLD = [
    "population=20",
    "cohort=10",
    "strategy=trimmed_mean",
    "attack=alie",
    "attack.sampling=cohort",
    "server_optimizer=adam",
    "participation=bernoulli",
    "faults=lossy",
    "evaluation.clients=true",
]
SAVED = ["checkpoint.every=1", "checkpoint.every=3", "checkpoint.seconds=0.3"]


@dataclass
class Outcome:
    """How one run fared.

    Args:
        killed_in: the last round on record whenever it was killed; None before there was any.
        same: whether it ended with the bits of the run that nobody killed.
    """

    killed_in: list[int | None] = field(default_factory=list)
    same: bool = False


def command(directory: Path, overrides: Sequence[str], draw: random.Random) -> list[str]:
    """Return what goes on with the run in ``directory``, or begins it."""
    fedagg = [sys.executable, "-m", "fedagg.cli"]
    if (directory / "timing.csv").exists() and draw.random() < 0.5:
        return [*fedagg, "resume", str(directory)]
    return [*fedagg, "run", *overrides, draw.choice(SAVED), "resume=auto", f"hydra.run.dir={directory}"]


def last_round(directory: Path) -> int | None:
    """Return the last finished round on record, None before there is any."""
    table = directory / "timing.csv"
    lines = table.read_text().split("\n")[1:-1] if table.exists() else []
    return int(lines[-1].split(",")[0]) if lines else None


def draw_moment(done: int | None, rounds: int, life: float, training: float, draw: random.Random) -> tuple[int, float]:
    """Return when to kill: so many seconds after a round is on record; round -1 is the start of the process."""
    if done == rounds or draw.random() < 0.25:
        return -1, draw.uniform(0, life - training)
    return draw.randint(0 if done is None else done + 1, rounds), draw.uniform(0, training / rounds)


def survives(words: Sequence[str], directory: Path, moment: tuple[int, float] | None = None) -> bool:
    """Run a command to its end, or kill it at a moment if it lives to see it."""
    log = directory.with_suffix(".log")
    with open(log, "w") as out, subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT) as process:
        if moment is not None:
            round, seconds = moment
            while process.poll() is None and (-1 if (last := last_round(directory)) is None else last) < round:
                time.sleep(0.002)
            time.sleep(seconds)
            process.kill()
    if process.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}:\n{log.read_text()}")
    return process.returncode == 0


def experiment(folder: Path, kills: int, rounds: int, seed: int, overrides: Sequence[str] = ()) -> list[Outcome]:
    """Kill runs of ``rounds`` rounds ``kills`` times in all, and compare each with one that nobody killed."""
    draw = random.Random(seed)
    overrides = [*WORLD, f"rounds={rounds}", *overrides]
    whole, started = folder / "whole", time.monotonic()
    survives(command(whole, overrides, draw), whole)
    life = time.monotonic() - started
    training = sum(float(line.split(",")[2]) for line in (whole / "timing.csv").read_text().splitlines()[1:])
    outcomes: list[Outcome] = []
    while (left := kills - sum(len(outcome.killed_in) for outcome in outcomes)) > 0:
        outcome, directory = Outcome(), folder / str(len(outcomes))
        wanted, complete = min(left, draw.choice([1, 2, 3])), False
        while not complete and len(outcome.killed_in) < wanted:
            moment = draw_moment(last_round(directory), rounds, life, training, draw)
            complete = survives(command(directory, overrides, draw), directory, moment)
            if not complete:
                outcome.killed_in.append(last_round(directory))
        if not complete:
            survives(command(directory, overrides, draw), directory)
        outcome.same = ends_of(directory) == ends_of(whole)
        outcomes.append(outcome)
    return outcomes


def ends_of(directory: Path) -> tuple[bytes, str]:
    """Return the metrics and the hash of the final parameters of a complete run."""
    info = read_run(directory).info
    assert info["status"] == "completed"
    return (directory / "metrics.csv").read_bytes(), info["parameters"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    parser.add_argument("overrides", nargs="*", help="further settings of the run")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fedagg-kill-") as folder:
        outcomes = experiment(Path(folder), chosen.kills, chosen.rounds, chosen.seed, chosen.overrides)
    print("| run | last round on record when it was killed | same bits |\n|--:|:--|:--|")
    for number, outcome in enumerate(outcomes):
        moments = ", ".join("none yet" if moment is None else str(moment) for moment in outcome.killed_in)
        print(f"| {number} | {moments or 'it was quicker'} | {'yes' if outcome.same else 'NO'} |")
    killed, same = sum(len(outcome.killed_in) for outcome in outcomes), sum(outcome.same for outcome in outcomes)
    print(f"\n{killed} SIGKILLs in runs of {chosen.rounds} rounds: {same} of {len(outcomes)} runs ended with the same bits")
    return 0 if same == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
