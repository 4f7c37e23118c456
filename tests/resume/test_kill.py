"""SIGKILL at random moments of a real process: the short twin of ``benchmarks/kill_resume.py``."""

from pathlib import Path

from benchmarks.kill_resume import experiment

SMALL = ["population=6", "cohort=6", "model=logistic_regression"]


def test_killed_and_resumed_to_the_bit(tmp_path: Path) -> None:
    outcomes = experiment(tmp_path, kills=3, rounds=30, seed=0, overrides=SMALL)
    assert sum(len(outcome.killed_in) for outcome in outcomes) == 3
    assert [outcome.same for outcome in outcomes] == [True] * len(outcomes)
