"""A whole run on Ray: the files of one in this process, and workers that go home whatever happens."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from fedagg import Callback
from fedagg.experiment import Experiment
from fedagg.grid.ray import ray
from fedagg.loop import Round
from tests.running import run_into

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("cluster"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
WORLD = ["attack=label_flip", "participation=bernoulli", "evaluation.clients=true", "partition=dirichlet", "population=9"]


class Boom(Callback):
    def round_finished(self, done: Round) -> None:
        raise ValueError("boom")


def everything_is_free() -> bool:
    """Ray gives back what a stopped worker had within moments."""
    deadline = time.monotonic() + 20
    while ray.available_resources().get("CPU") != 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    return bool(ray.available_resources().get("CPU") == 3)


def test_a_run_leaves_the_same_files_and_frees_its_workers(tmp_path: Path) -> None:
    seen: list[tuple[Experiment, list[str]]] = []  # as long as it is referred to, nothing is freed by accident

    def watch(experiment: Experiment) -> list[Callback]:
        seen.append((experiment, experiment.plan()))
        return []

    _, here = run_into(tmp_path / "local", *WORLD)
    _, there = run_into(tmp_path / "ray", *WORLD, "engine=ray", watch=watch)
    assert (there.path / "metrics.csv").read_bytes() == (here.path / "metrics.csv").read_bytes()
    assert there.info["parameters"] == here.info["parameters"]
    assert "rounds    3 x 9 of 9 clients, in 2 Ray workers of 1 thread" in seen[0][1]
    assert there.config["engine"]["executor"] == "one_at_a_time"
    assert everything_is_free()


def test_a_run_that_fails_frees_its_workers(tmp_path: Path) -> None:
    seen: list[Experiment] = []

    def watch(experiment: Experiment) -> list[Callback]:
        seen.append(experiment)
        return [Boom()]

    with pytest.raises(ValueError, match="boom"):
        run_into(tmp_path, "engine=ray", watch=watch)
    assert everything_is_free()


def test_batches_left_open_are_a_share_of_the_cohort(tmp_path: Path) -> None:
    _, run = run_into(tmp_path, "engine=ray", "engine.executor=batched", "engine.workers=2", "population=9", "cohort=7")
    assert run.config["engine"]["batch"] == 4
