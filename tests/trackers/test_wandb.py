"""Weights & Biases, offline: what is in the files that ``wandb sync`` would upload; and what it is asked for online."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedagg.results import read_info
from fedagg.trackers import WandB
from tests.trackers.parts import go_on, kill, shown, table

pytest.importorskip("wandb", reason="wandb is not installed: pip install 'fedagg[wandb]'")
pytestmark = pytest.mark.filterwarnings("ignore")


def records(file: Path) -> Iterator[Any]:
    """Read a run file: blocks of 32 KiB of pieces, each with a header of check sum (4), length (2) and kind (1)."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, record = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(record)
            record = b""


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("wandb/offline-run-*/run-*.wandb"))


def items(entries: Any) -> dict[str, Any]:
    return {entry.key or entry.nested_key[0]: json.loads(entry.value_json) for entry in entries}


def history(file: Path) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for record in records(file):
        if record.HasField("history"):
            row = items(record.history.item)
            assert row["round"] == row["_step"]
            for name, value in row.items():
                if "/" in name:
                    found.setdefault(name, []).append((row["round"], value))
    return found


def one(file: Path, kind: str) -> Any:
    (record,) = [getattr(record, kind) for record in records(file) if record.HasField(kind)]
    return record


def test_a_run(tmp_path: Path) -> None:
    shown(tmp_path / "group" / "run", "logger=wandb", "evaluation.clients=true", "local.lr=0.25")
    (file,) = files(tmp_path / "group" / "run")
    assert history(file) == table(tmp_path / "group" / "run")
    run = one(file, "run")
    assert (run.project, run.run_group, run.job_type) == ("fedagg", "group", "fedavg x ipm")
    assert run.display_name == "fedavg x ipm, seed 5"
    assert sorted(run.tags) == ["attack=ipm", "strategy=fedavg"]
    assert read_info(tmp_path / "group" / "run")["trackers"] == {"wandb": run.run_id}
    assert items(run.config.update)["local"]["lr"] == 0.25
    assert one(file, "exit").exit_code == 0
    steps = {metric.metric.glob_name or metric.metric.name: metric.metric.step_metric for metric in metrics(file)}
    assert steps == {"round": "", "*": "round"}
    artifact = next(record.artifact for record in records(file) if record.HasField("artifact"))
    assert sorted(entry.path for entry in artifact.manifest.contents) == ["config.yaml", "metrics.csv", "run.json"]


def metrics(file: Path) -> list[Any]:
    return [record for record in records(file) if record.HasField("metric")]


def test_a_run_that_was_killed_goes_on_under_its_id_with_all_rounds(tmp_path: Path) -> None:
    kill(tmp_path / "run", "logger=wandb")
    id = read_info(tmp_path / "run")["trackers"]["wandb"]
    time.sleep(1.1)  # folders are named by the second
    go_on(tmp_path / "run", "logger=wandb")
    newest = files(tmp_path / "run")[-1]  # how much of another there is depends on when W&B's process wrote
    assert one(newest, "run").run_id == read_info(tmp_path / "run")["trackers"]["wandb"] == id
    assert history(newest) == table(tmp_path / "run")


def test_a_run_that_failed_says_so(tmp_path: Path) -> None:
    fails = "+callbacks.stops={_target_: tests.trackers.test_tensorboard.fails}"
    with pytest.raises(RuntimeError):
        shown(tmp_path / "run", "logger=wandb", fails)
    (file,) = files(tmp_path / "run")
    assert one(file, "exit").exit_code == 1
    summary: dict[str, Any] = {}
    for record in records(file):
        if record.HasField("summary"):
            summary |= items(record.summary.update)
    assert (summary["status"], summary["error"]) == ("failed", "RuntimeError: broken")


def test_online_only_rounds_that_are_missing_are_sent() -> None:
    """W&B says at which step a resumed run stands, here 3; earlier ones it would refuse."""
    sent = []
    tracker = WandB(mode="online")
    tracker._run = SimpleNamespace(step=3, log=lambda row, step, commit: sent.append((row, step, commit)))
    for round in range(5):
        tracker.log(round, {"test/loss": 1.0})
    assert sent == [({"round": round, "test/loss": 1.0}, round, True) for round in (3, 4)]


@pytest.mark.parametrize(("mode", "resume"), [("offline", None), ("online", "allow")])
def test_what_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, resume: str | None) -> None:
    from fedagg.trackers import About

    asked: dict[str, Any] = {}

    def init(**arguments: Any) -> Any:
        asked.update(arguments)
        return SimpleNamespace(id=arguments["id"], define_metric=lambda *_, **__: None)

    monkeypatch.setattr("wandb.init", init)
    tracker = WandB(project="p", entity="e", mode=mode, group="g")
    assert tracker.start(About(tmp_path, {}, {"data": "d" * 90}, 0, 1), "known") == "known"
    assert (asked["mode"], asked["resume"], asked["id"]) == (mode, resume, "known")
    assert (asked["project"], asked["entity"], asked["group"]) == ("p", "e", "g")
    assert [len(tag) for tag in asked["tags"]] == [64]
