"""Studies on Ray: the same table, lost actors replaced, and a cluster that is too small refused in words."""

import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedagg import ConfigError
from fedagg.grid.ray import ray
from fedagg.study import Store, run_study
from tests.study.parts import load, table
from tests.study.plugins import plugin

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("cluster"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray of this process with room for three workers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray leaves files and sockets open
        ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()
        gc.collect()


def test_the_same_table(tmp_path: Path) -> None:
    """One actor is killed under way, one run fails; the rest is as on this machine, and the cluster stays."""
    points = {
        "good": {},
        "dies": plugin("Dies", last=2, count=str(tmp_path / "died")) | {"checkpoint.every": 1},
        "fails": plugin("Fails", unless=str(tmp_path / "never")),
        "other": {"strategy": "median"},
    }
    keys = {"axes": {"case": points}, "config": {"rounds": 3}}
    there = load(tmp_path / "there", **keys, launcher="ray", workers=2)
    summary = run_study(there, quiet=True)
    assert (summary.exit_code, str(summary)) == (1, "3 of 4 runs complete, 1 failed")
    assert [path.name for path in (tmp_path / "died").iterdir()] == ["0"]
    here = load(tmp_path / "here", **keys, workers=2)
    assert str(run_study(here, quiet=True)) == "3 of 4 runs complete, 1 failed"
    assert table(there.store / "results.csv") == table(here.store / "results.csv")
    states = {entry.axes["case"]: Store(there.store).state(entry.run) for entry in Store(there.store).entries()}
    assert (states["fails"].status, states["fails"].error) == ("failed", "ValueError: boom")
    assert ray.is_initialized()


@pytest.mark.parametrize("words", [["study.workers=4"], ["study.workers=2", "engine.threads=2"]])
def test_a_cluster_that_is_too_small(tmp_path: Path, words: list[str]) -> None:
    study = load(tmp_path, launcher="ray", seeds=4).with_overrides(words)
    with pytest.raises(ConfigError, match=rf"{words[0]}, each with .*: Ray has room for \d, on 1 node .*Lower study\.workers"):
        run_study(study, quiet=True)


def test_no_cluster_of_that_address(tmp_path: Path) -> None:
    study = load(tmp_path, launcher="ray", address="127.0.0.1:1", workers=1)
    with pytest.raises(ConfigError, match=r"study\.address=127\.0\.0\.1:1: this process has joined the Ray cluster at"):
        run_study(study, quiet=True)
