"""Trackers in general: one of the user's own, one that fails, one whose library is missing; and that a run never notices."""

import logging
import random
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedagg import Callback, ConfigError
from fedagg.hydra_app import compose
from fedagg.loop import Round
from fedagg.report.grouping import group_runs
from fedagg.results import differences, find_runs, read_info, read_run
from fedagg.trackers import About, Tracker
from tests.commands import Command
from tests.running import SMALL, run_into
from tests.trackers.parts import CHOICES, go_on, kill, shown, table

told: list[tuple[Any, ...]] = []


class Notes(Tracker):
    """Remembers what it was told, and stirs the global generators at every occasion."""

    def start(self, about: About, id: str | None) -> str:
        told.append(("start", about, id))
        return "page 7"

    def log(self, round: int, metrics: Mapping[str, float]) -> None:
        random.random(), np.random.rand(), torch.rand(1)
        told.append(("log", round, metrics))

    def finish(self, status: str, files: Sequence[Path], error: str | None) -> None:
        told.append(("finish", status, files, error))


class Fails(Tracker):
    """Fails at one of its calls."""

    def __init__(self, at: str) -> None:
        self.at = at

    def start(self, about: About, id: str | None) -> None:
        self._maybe("start")

    def log(self, round: int, metrics: Mapping[str, float]) -> None:
        self._maybe(f"log {round}")

    def finish(self, status: str, files: Sequence[Path], error: str | None) -> None:
        self._maybe("finish")

    def _maybe(self, where: str) -> None:
        told.append((where,))
        if where == self.at:
            raise OSError("no space left")


class Ends(Callback):
    """Breaks a run off after round 3."""

    def __init__(self, how: str) -> None:
        self.how = how

    def round_finished(self, done: Round) -> None:
        if done.round == 3:
            raise {"failed": RuntimeError("broken"), "interrupted": KeyboardInterrupt()}[self.how]


NOTES = f"+logger.notes={{_target_: {__name__}.Notes}}"


@pytest.fixture(autouse=True)
def _forget() -> None:
    told.clear()


def rounds_told() -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for call in told:
        if call[0] == "log":
            for name, value in call[2].items():
                found.setdefault(name, []).append((call[1], value))
    return found


def test_one_of_the_users_own(tmp_path: Path) -> None:
    shown(tmp_path / "run", NOTES, "evaluation.clients=true")
    assert [call[0] for call in told] == ["start", *["log"] * 7, "finish"]
    about = told[0][1]
    assert (about.directory, about.label, about.seed, about.rounds) == (tmp_path / "run", CHOICES, 5, 6)
    assert about.config == read_run(tmp_path / "run").config
    assert about.name == "fedavg x ipm, seed 5"
    assert rounds_told() == table(tmp_path / "run")
    assert told[-1] == (
        "finish",
        "completed",
        [tmp_path / "run" / n for n in ("config.yaml", "metrics.csv", "run.json")],
        None,
    )
    assert read_info(tmp_path / "run")["trackers"] == {"notes": "page 7"}


@pytest.mark.parametrize("strategy", ["fedavg", "flwr_fedavg"])
def test_the_bytes_of_a_run_do_not_depend_on_it(tmp_path: Path, strategy: str) -> None:
    for name, added in {"without": [], "with": [NOTES]}.items():
        shown(tmp_path / name, f"strategy={strategy}", "cohort=4", "participation=bernoulli", *added)
    assert told
    assert (tmp_path / "with/metrics.csv").read_bytes() == (tmp_path / "without/metrics.csv").read_bytes()
    assert read_run(tmp_path / "with").info["parameters"] == read_run(tmp_path / "without").info["parameters"]


@pytest.mark.parametrize("at", ["start", "log 0", "log 3", "finish"])
def test_one_that_fails_is_named_once_and_the_run_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture, at: str) -> None:
    shown(tmp_path / "without")
    with caplog.at_level(logging.WARNING, "fedagg"):
        shown(tmp_path / "run", f"+logger.bad={{_target_: {__name__}.Fails, at: {at}}}", NOTES)
    calls = [call[0] for call in told if len(call) == 1]
    everything = ["start", *(f"log {round}" for round in range(7)), "finish"]
    assert calls == everything[: everything.index(at) + 1]
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning == "logger bad failed and is told no more; the run directory has everything: OSError: no space left"
    assert rounds_told() == table(tmp_path / "run")
    assert read_run(tmp_path / "run").status == "completed"
    assert (tmp_path / "run/metrics.csv").read_bytes() == (tmp_path / "without/metrics.csv").read_bytes()


@pytest.mark.parametrize(
    ("how", "raised", "error"), [("failed", RuntimeError, "RuntimeError: broken"), ("interrupted", KeyboardInterrupt, None)]
)
def test_it_is_closed_whatever_happens(tmp_path: Path, how: str, raised: type[BaseException], error: str | None) -> None:
    with pytest.raises(raised):
        shown(tmp_path / "run", NOTES, f"+callbacks.ends={{_target_: {__name__}.Ends, how: {how}}}")
    assert [call[1] for call in told if call[0] == "log"] == [0, 1, 2, 3]
    assert (told[-1][1], told[-1][3]) == (how, error)


# A run that goes on


def test_all_rounds_are_told_again(tmp_path: Path) -> None:
    kill(tmp_path / "run", NOTES)
    assert read_info(tmp_path / "run")["trackers"] == {"notes": "page 7"}
    assert told == []  # that was another process
    go_on(tmp_path / "run", NOTES)
    assert (told[0][0], told[0][2], told[0][1].label) == ("start", "page 7", CHOICES)
    assert rounds_told() == table(tmp_path / "run")
    assert [call[0] for call in told] == ["start", *["log"] * 7, "finish"]


def test_a_tracker_may_come_or_go_in_between(tmp_path: Path) -> None:
    kill(tmp_path / "run")
    go_on(tmp_path / "run", NOTES)
    assert told[0][2] is None
    assert rounds_told() == table(tmp_path / "run")
    told.clear()
    kill(tmp_path / "other", NOTES)
    go_on(tmp_path / "other")
    assert told == []
    assert (tmp_path / "other/metrics.csv").read_bytes() == (tmp_path / "run/metrics.csv").read_bytes()


def test_also_where_no_round_was_left_to_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process died after its last round and before it could write that it was done."""

    def dies(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("fedagg.experiment.save_model", dies)
        with pytest.raises(MemoryError):
            shown(tmp_path / "run")
    go_on(tmp_path / "run", NOTES)
    assert rounds_told() == table(tmp_path / "run")
    assert told[-1][1] == "completed"


def test_a_table_that_cannot_be_read_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill(tmp_path / "run", NOTES)
    monkeypatch.setattr("fedagg.trackers.tracking.read_run", lambda _: 1 // 0)
    go_on(tmp_path / "run", NOTES)
    assert [call[0] for call in told] == ["start"]
    assert read_run(tmp_path / "run").status == "completed"


# What is the same run, and what is none


def test_it_makes_no_other_run(tmp_path: Path) -> None:
    plain, noted = ({"a": 1, "logger": logger} for logger in ({}, {"notes": {"_target_": "x.Notes"}}))
    assert differences(plain, noted) == differences({"a": 1}, noted) == {}
    for name, added, seed in (("without", (), 1), ("with", (NOTES,), 2)):
        run_into(tmp_path / name, *added, f"seed={seed}", choices=CHOICES)
    (group,), notes = group_runs(find_runs(tmp_path))
    assert [len(runs) for runs in group.cells.values()] == [2]
    assert notes == []


def test_a_run_that_is_verified_is_not_shown_again(command: Command) -> None:
    assert command("run", *SMALL, NOTES, "hydra.run.dir=run").code == 0
    assert "logger" not in read_info(Path("run"))["label"]
    told.clear()
    assert command("verify", "run").code == 0
    assert told == []


# Settings


@pytest.mark.parametrize(
    ("name", "module"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb"), ("mlflow", "mlflow")]
)
def test_a_missing_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"^logger={name} needs the package {name}.*pip install 'fedagg\[{name}\]'$"):
        run_into(tmp_path / "run", f"logger={name}", "data.dir=nowhere")  # before any data is read
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+logger.mine._target_=fedagg.Callback"], "logger.mine must be a fedagg.trackers.Tracker; Callback is not"),
        (["+logger.mine._target_=json.Nope"], "logger.mine._target_=json.Nope cannot be imported"),
        (["logger=wandb", "logger.wandb.mode=onlin"], r"must be one of offline, online; got onlin \(did you mean online\?\)"),
        (["logger=wand"], "logger has no choice wand .did you mean wandb"),
        (["logger=[wandb,mlflw]"], r"logger has no choice mlflw \(did you mean mlflow\?\)"),
    ],
)
def test_what_cannot_be(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_into(tmp_path / "run", *overrides)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("logger=none", []),
        ("logger=[]", []),
        ("logger=wandb", ["wandb"]),
        ("logger=[tensorboard,mlflow]", ["mlflow", "tensorboard"]),
    ],
)
def test_choices(override: str, names: list[str]) -> None:
    assert sorted(compose([override]).get("logger") or {}) == names


def test_a_library_is_imported_only_for_its_tracker() -> None:
    code = "import sys, fedagg.experiment; sys.exit(bool({'tensorboard', 'wandb', 'mlflow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_commands_of_the_page_compose() -> None:
    page = (Path(__file__).parents[2] / "docs" / "trackers.md").read_text()
    commands = [shlex.split(line)[2:] for line in page.splitlines() if line.startswith("fedagg run")]
    assert len(commands) >= 4
    for overrides in commands:
        compose([word if re.search(r"[\[{]", word) else word.split(",")[0] for word in overrides if word != "-m"])
