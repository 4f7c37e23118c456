"""A config, run into a directory: what several tests of whole runs share."""

from pathlib import Path
from typing import Any

from fedagg.experiment import run_experiment
from fedagg.hydra_app import compose
from fedagg.loop import Result
from fedagg.results import Run, read_run

SMALL = ["population=6", "rounds=3", "model=logistic_regression", "partition=iid"]


def run_into(directory: Path, *overrides: str, **more: Any) -> tuple[Result, Run]:
    """Run a small experiment and return its result, and what can be read back from its directory."""
    result = run_experiment(compose([*SMALL, *overrides]), directory, **more)
    return result, read_run(directory)
