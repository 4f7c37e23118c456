"""How far runs are, read from directories made by hand; and a manifest that many processes write."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fedagg import ConfigError, FedaggError
from fedagg.disk import Lock
from fedagg.results import find_runs
from fedagg.study.store import Entry, State, Store

HEADER = "round,split,client,metric,value\n"
ROWS = "0,test,,accuracy,0.1\n1,test,,accuracy,0.25\n1,client,0,accuracy,0.5\n2,test,,accuracy,0.5\n"


def made(folder: Path, name: str = "abc", metrics: str = HEADER + ROWS, **info: Any) -> Store:
    """A run directory as another process would have left it."""
    directory = folder / name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "run.json").write_text(json.dumps({"format": 1, "label": {}, "seed": 0, "error": None, **info}))
    (directory / "metrics.csv").write_text(metrics)
    (directory / "timing.csv").write_text("round,phase,seconds\n")
    return Store(folder)


def entry(run: str, place: str = "", command: str = "fedagg run") -> Entry:
    return Entry(run, {"axis": place or run}, 0, 2, command)


@contextmanager
def lock_elsewhere(folder: Path) -> Iterator[None]:
    """Another process holds the lock of this folder."""
    script = (
        "import sys, pathlib, fedagg.disk\nwith fedagg.disk.Lock(pathlib.Path(sys.argv[1])):\n"
        " print('mine', flush=True)\n sys.stdin.read()"
    )
    words = [sys.executable, "-c", script, str(folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "mine\n"
        yield
        process.kill()


@pytest.mark.parametrize(
    ("info", "state"),
    [
        ({"status": "completed"}, State("completed", 2)),
        ({"status": "failed", "error": "ValueError: boom"}, State("failed", 2, "ValueError: boom")),
        ({"status": "interrupted"}, State("stopped", 2)),
        ({"status": "running"}, State("stopped", 2)),  # nobody holds its lock
        (
            {"status": "completed", "format": 9},
            State("unreadable", 0, "{}/abc/run.json has format 9; this version reads format 1"),
        ),
    ],
)
def test_states(tmp_path: Path, info: dict[str, Any], state: State) -> None:
    found = made(tmp_path, **info).state("abc")
    assert (found.status, found.round, found.error) == (state.status, state.round, state.error.format(tmp_path))


def test_running(tmp_path: Path) -> None:
    """The lock tells, not what a process that died had written; looking changes nothing."""
    store = made(tmp_path, status="running")
    with lock_elsewhere(tmp_path / "abc"):
        assert store.state("abc") == State("running", 2)
        assert store.state("abc") == State("running", 2)
    assert store.state("abc") == State("stopped", 2)
    (tmp_path / "abc" / ".lock").write_text("4711\n")  # of a process that was killed
    assert store.state("abc") == State("stopped", 2)


def test_waiting(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    made(tmp_path, "half", HEADER, status="running")
    (tmp_path / "half" / "timing.csv").unlink()
    states = Store(tmp_path).states(["none", "empty", "half", "none"])
    assert states == {name: State("waiting") for name in ("none", "empty", "half")}


@pytest.mark.parametrize(
    ("metrics", "last"),
    [
        (HEADER + ROWS, 2),
        (HEADER + ROWS + "3,test,,accur", 2),  # it was killed in the middle of a line
        (HEADER + ROWS + "3", 2),
        (HEADER, 0),
        (HEADER[:7], 0),
        ("", 0),
        (HEADER + "".join(f"{r},client,{c},accuracy,0.123456789\n" for r in range(12) for c in range(99)), 11),
    ],
)
def test_the_last_whole_round(tmp_path: Path, metrics: str, last: int) -> None:
    assert made(tmp_path, metrics=metrics, status="failed").state("abc").round == last


@pytest.mark.parametrize("content", ["{", "[]", "", "\x00"])
@pytest.mark.parametrize("tables", [True, False])
def test_a_damaged_record(tmp_path: Path, content: str, tables: bool) -> None:
    store = made(tmp_path, metrics=HEADER)
    (tmp_path / "abc" / "run.json").write_text(content)
    if not tables:
        (tmp_path / "abc" / "timing.csv").unlink()
    found = store.state("abc")
    assert found.status == "unreadable"
    assert "run.json" in found.error


# The manifest


def test_two_calls(tmp_path: Path) -> None:
    """Jobs stay once they were begun, also when a later call does not name them; the later one says what the study is."""
    store = Store(tmp_path)
    assert not store.exists()
    store.enter("mine", "Why?", {"metric": "loss"}, [entry("a"), entry("b"), entry("c")])
    assert store.entries() == [entry("a"), entry("b"), entry("c")]
    for run in ("a", "c"):
        (tmp_path / run).mkdir()
    store.enter("mine", "Why not?", {}, [entry("c"), entry("d")])
    assert [each.run for each in store.entries()] == ["a", "c", "d"]  # b was never begun
    manifest = json.loads((tmp_path / "study.json").read_text())
    assert {key: manifest[key] for key in ("format", "name", "question", "report")} == {
        "format": 1,
        "name": "mine",
        "question": "Why not?",
        "report": {},
    }


def test_a_command_that_means_another_config_since(tmp_path: Path) -> None:
    """A default has changed: the run of old stays on the disk, and no table mixes it with that of now."""
    store = Store(tmp_path)
    for run, place in (("a", "x"), ("b", "y"), ("c", "x")):
        made(tmp_path, run, HEADER)
        store.enter("mine", "", {}, [entry(run, place)])
    assert [(each.run, each.axes["axis"]) for each in store.entries()] == [("b", "y"), ("c", "x")]
    assert [run.path.name for run in find_runs(tmp_path)] == ["b", "c"]
    assert (tmp_path / "a" / "metrics.csv").exists()
    store.enter("mine", "", {}, [entry("a", "x")])  # the default is what it was
    assert [run.path.name for run in find_runs(tmp_path)] == ["a", "b"]


def test_one_run_at_two_places(tmp_path: Path) -> None:
    """Two points may come to the same config; how a call would repeat it makes no other job."""
    store = Store(tmp_path)
    store.enter("mine", "", {}, [entry("a", "x"), entry("a", "y")])
    (tmp_path / "a").mkdir()
    store.enter("mine", "", {}, [entry("a", "x", "fedagg run --config-dir elsewhere")])
    assert [(each.run, each.axes) for each in store.entries()] == [("a", {"axis": "y"}), ("a", {"axis": "x"})]


def test_a_job_that_is_named_twice_is_one(tmp_path: Path) -> None:
    """A search may try a setting twice."""
    store = Store(tmp_path)
    store.enter("mine", "", {}, [entry("a", "x"), entry("b", "y"), entry("a", "x")])
    assert [each.run for each in store.entries()] == ["a", "b"]


def test_another_version_is_refused_and_stays(tmp_path: Path) -> None:
    content = json.dumps({"format": 2, "jobs": {"new": "layout"}})
    (tmp_path / "study.json").write_text(content)
    store = Store(tmp_path)
    for action in (store.manifest, store.entries, lambda: store.enter("mine", "", {}, [entry("a")])):
        with pytest.raises(
            ConfigError, match=r"study\.json has format 2, and this .* reads format 1\. .* study\.store=\.\.\."
        ):
            action()
    assert (tmp_path / "study.json").read_text() == content
    assert [path.name for path in tmp_path.iterdir()] == ["study.json"]


@pytest.mark.parametrize("content", ["{", "", "\x00"])
def test_a_damaged_manifest(tmp_path: Path, content: str) -> None:
    (tmp_path / "study.json").write_text(content)
    store = Store(tmp_path)
    with pytest.raises(FedaggError, match=r"study\.json cannot be read: .*: remove it, and start the study again"):
        store.enter("mine", "", {}, [entry("a")])
    assert (tmp_path / "study.json").read_text() == content
    (tmp_path / "study.json").unlink()
    store.enter("mine", "", {}, [entry("a")])
    assert store.entries() == [entry("a")]


def test_no_study(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no study: there is no study\.json"):
        Store(tmp_path).entries()


def test_eight_processes_enter_at_once(tmp_path: Path) -> None:
    """Each twenty jobs, one by one, all begun. None is lost, and nobody is turned away."""
    script = (
        "import sys, pathlib\nfrom fedagg.study.store import Entry, Store\nstore = Store(pathlib.Path(sys.argv[1]))\n"
        "for i in range(20):\n run = f'{sys.argv[2]}-{i}'\n (store.folder / run).mkdir()\n"
        " store.enter('mine', '', {}, [Entry(run, {}, i, 1, run)])"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(n)], stderr=subprocess.PIPE, text=True)
        for n in range(8)
    ]
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    runs = [each.run for each in Store(tmp_path).entries()]
    assert sorted(runs) == sorted(f"{n}-{i}" for n in range(8) for i in range(20))
    for n in range(8):
        own = [run for run in runs if run.startswith(f"{n}-")]
        assert own == [f"{n}-{i}" for i in range(20)]


def test_a_lock_nobody_lets_go_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedagg.study.store.PATIENCE", 0.1)
    with Lock(tmp_path), pytest.raises(ConfigError, match="is in use by process"):
        Store(tmp_path).enter("mine", "", {}, [entry("a")])
