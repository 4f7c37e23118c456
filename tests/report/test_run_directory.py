"""The run directory: what is written is there at once and whole, and what is damaged does not stop a reader."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml

from fedagg.errors import ConfigError, FedaggError
from fedagg.results import RunDirectory, find_runs, read_run

LABEL = {"strategy": "krum", "attack": "alie"}


@pytest.fixture
def run(tmp_path):
    return RunDirectory.create(tmp_path / "run", {"seed": 3, "partition": {"alpha": 1e-05}}, LABEL, seed=3, rounds=2)


def info(run):
    return json.loads((run.path / "run.json").read_text())


def test_a_new_run_has_its_four_files_and_every_field(run):
    assert {file.name for file in run.path.iterdir()} == {"config.yaml", "run.json", "metrics.csv", "timing.csv"}
    assert yaml.safe_load((run.path / "config.yaml").read_text()) == {"seed": 3, "partition": {"alpha": 1e-05}}
    record = info(run)
    assert record["format"] == 1
    assert (record["status"], record["seed"], record["rounds"], record["rounds_done"]) == ("running", 3, 2, 0)
    assert record["label"] == LABEL
    assert record["finished"] is None
    keys = "format status label seed rounds rounds_done command versions hardware data byzantine error"
    assert set(record) == {*keys.split(), "started", "finished", "parameters"}


def test_rows_are_on_disk_before_anything_is_closed(run):
    run.append([(0, "test", None, "accuracy", 0.1), (0, "client", 7, "accuracy", 1 / 3)])
    expected = "round,split,client,metric,value\n0,test,,accuracy,0.1\n0,client,7,accuracy,0.3333333333333333\n"
    assert (run.path / "metrics.csv").read_text() == expected
    run.append_timing([(1, "train", 0.25)])
    assert (run.path / "timing.csv").read_text() == "round,phase,seconds\n1,train,0.25\n"


def test_values_come_back_exactly(run):
    values = [0.1 + 0.2, 1e-300, math.pi, float("inf"), np.float32(0.1), -0.0]
    run.append([(i, "test", None, "loss", value) for i, value in enumerate(values)])
    run.append([(9, "test", None, "loss", float("nan"))])
    rounds, found = read_run(run.path).series("loss")
    assert rounds.tolist() == [0, 1, 2, 3, 4, 5, 9]
    assert found[:-1].tolist() == [float(value) for value in values]
    assert math.isnan(found[-1])


def test_names_with_commas_survive(run):
    run.append([(1, "train", None, 'f1, "macro"', 0.5)])
    assert read_run(run.path).series('f1, "macro"', "train")[1].tolist() == [0.5]


def test_update_and_finish_replace_the_record(run):
    run.update(rounds_done=np.int64(1), byzantine=np.array([2, 5]))
    assert (info(run)["rounds_done"], info(run)["byzantine"]) == (1, [2, 5])
    run.finish("failed", error="ClientError: client 3")
    assert (info(run)["status"], info(run)["error"]) == ("failed", "ClientError: client 3")
    assert info(run)["finished"] > info(run)["started"]
    assert sorted(file.name for file in run.path.iterdir()) == ["config.yaml", "metrics.csv", "run.json", "timing.csv"]
    with pytest.raises(ValueError, match="completed, failed, interrupted; got 'done'"):
        run.finish("done")


def test_a_failed_write_leaves_the_old_record(run, monkeypatch):
    def no_replace(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", no_replace)
    with pytest.raises(FedaggError, match=r"run\.json cannot be written: disk full"):
        run.update(rounds_done=1)
    assert info(run)["rounds_done"] == 0
    assert not [file for file in run.path.iterdir() if file.name.startswith(".")]


def test_a_directory_with_a_run_is_refused_and_untouched(run):
    run.append([(0, "test", None, "accuracy", 0.1)])
    before = {file.name: file.read_bytes() for file in run.path.iterdir()}
    with pytest.raises(ConfigError, match=r"run already holds a run.*hydra\.run\.dir"):
        RunDirectory.create(run.path, {}, LABEL, seed=0)
    assert {file.name: file.read_bytes() for file in run.path.iterdir()} == before


def test_other_files_in_the_directory_do_not_matter(tmp_path):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / "job.log").write_text("hello")
    RunDirectory.create(tmp_path, {}, LABEL, seed=0)
    assert read_run(tmp_path).status == "running"


def test_of_two_that_want_a_directory_at_once_one_gets_it(tmp_path, monkeypatch):
    real = os.link

    def late(source, target):
        if not os.path.exists(target):
            real(source, target)  # somebody else was faster
        real(source, target)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(ConfigError, match="already holds a run"):
        RunDirectory.create(tmp_path, {}, LABEL, seed=0)


def test_without_hard_links_a_directory_is_still_refused(tmp_path, monkeypatch):
    def no_link(*_):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", no_link)
    RunDirectory.create(tmp_path, {}, LABEL, seed=0)
    (tmp_path / "metrics.csv").unlink()
    with pytest.raises(ConfigError, match="already holds a run"):
        RunDirectory.create(tmp_path, {}, LABEL, seed=0)


def test_a_torn_last_line_is_ignored(run):
    run.append([(0, "test", None, "accuracy", 0.125), (1, "test", None, "accuracy", 0.5)])
    file = run.path / "metrics.csv"
    whole = file.read_bytes()
    first_row = whole.index(b"\n") + 1
    second_row = whole.index(b"\n", first_row) + 1
    for cut in range(first_row, len(whole)):  # 0.5 without its newline may have been the beginning of 0.53
        file.write_bytes(whole[:cut])
        assert read_run(run.path).series("accuracy")[1].tolist() == ([0.125] if cut >= second_row else [])
    file.write_bytes(whole)
    assert read_run(run.path).series("accuracy")[1].tolist() == [0.125, 0.5]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("run.json", '{"format": 1, "sta', "run.json cannot be read"),
        ("run.json", "[1, 2]", "is not the record of a run"),
        ("run.json", '{"format": 2}', "has format 2; this version reads format 1"),
        ("metrics.csv", "", "should begin with round,split"),
        (
            "metrics.csv",
            "round,split,client,metric,value\n1,test,,accuracy,0.5\n1,te\n2,test,,accuracy,1\n",
            "damaged at line 3",
        ),
        ("metrics.csv", "round,split,client,metric,value\n1,test,,accuracy,much\n", "damaged at line 2"),
        ("config.yaml", "a: [1", "config.yaml cannot be read"),
        ("config.yaml", "- 1", "holds no mapping"),
    ],
)
def test_damage_is_told_and_does_not_hide_the_other_runs(run, make_run, name, content, complaint):
    make_run(run.path.parent / "whole")
    (run.path / name).write_text(content)
    with pytest.raises(FedaggError, match=complaint):
        read_run(run.path)
    damaged, whole = find_runs(run.path.parent)
    assert damaged.status == "unreadable"
    assert complaint in damaged.problem
    assert len(damaged.metrics) == 0
    assert whole.status == "completed"


def test_runs_are_found_at_any_depth_and_only_once(tmp_path, make_run):
    make_run(tmp_path / "b" / "deep" / "er")
    make_run(tmp_path / "a")
    found = find_runs(tmp_path / "b", tmp_path, tmp_path / "a" / "run.json")
    assert [run.path.relative_to(tmp_path).as_posix() for run in found] == ["a", "b/deep/er"]


def test_a_path_without_a_run_is_named(tmp_path, make_run):
    make_run(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"no run in .*empty"):
        find_runs(tmp_path / "a", tmp_path / "empty")
    with pytest.raises(ConfigError, match="nowhere does not exist"):
        find_runs(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"no run in .*empty"):
        read_run(tmp_path / "empty")


def test_series_picks_split_and_client(run):
    run.append([(1, "client", 4, "accuracy", 0.25), (1, "test", None, "accuracy", 0.5), (0, "test", None, "accuracy", 0.0)])
    back = read_run(run.path)
    assert [part.tolist() for part in back.series("accuracy")] == [[0, 1], [0.0, 0.5]]
    assert [part.tolist() for part in back.series("accuracy", "client", client=4)] == [[1], [0.25]]
    assert back.names == ["test/accuracy"]
    assert (back.label, back.seed, len(back.metrics)) == (LABEL, 3, 3)


def test_reading_results_loads_nothing_heavy():
    code = (
        "import sys, fedagg.results; print([m for m in ('torch', 'flwr', 'hydra', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
