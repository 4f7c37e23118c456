"""One run of a study, carried out in this process: whatever its directory holds, it comes to the same end, or says why not."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedagg import Callback
from fedagg.checkpoint import Checkpoints
from fedagg.disk import Lock
from fedagg.loop import Round
from fedagg.results import FILES, read_run
from fedagg.study.work import Outcome, carry_out, note_failure, prepared
from tests.resume.parts import Killed
from tests.study.parts import files_in, task

FOUR = ["rounds=4", "checkpoint.every=1"]


class Trouble(Callback):
    """Fails or dies after round ``last``, unless a file says that this has happened."""

    def __init__(self, last: int, once: str, how: str = "fail") -> None:
        self.last, self.once, self.how = last, Path(once), how

    def round_finished(self, done: Round) -> None:
        if done.round == self.last and not self.once.exists():
            self.once.touch()
            raise {"fail": ValueError("boom\nand more"), "die": Killed()}[self.how]

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Unsavable(Trouble):
    """The same, with state that cannot be saved."""

    def state_dict(self) -> dict[str, Any]:
        return {"seen": {1}}


class NotMade(Callback):
    """Cannot be built."""

    def __init__(self) -> None:
        raise ValueError("not today")


def trouble(last: int, once: Path, how: str = "fail", kind: str = "Trouble") -> str:
    return f"+callbacks.t={{_target_: {__name__}.{kind}, last: {last}, once: '{once}', how: {how}}}"


def killed(directory: Path, *overrides: str) -> None:
    """Leave what a SIGKILL leaves: the last words of the process are taken back."""
    with pytest.raises(Killed):
        carry_out(task(directory, *overrides))
    record = directory / "run.json"
    info = json.loads(record.read_text())
    record.write_text(json.dumps({**info, "status": "running", "error": None, "finished": None}))


def ends(directory: Path) -> tuple[bytes, str]:
    run = read_run(directory)
    assert run.status == "completed"
    return (directory / "metrics.csv").read_bytes(), run.info["parameters"]


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str]:
    """How four undisturbed rounds end."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    assert carry_out(task(directory, *FOUR)).status == "completed"
    return ends(directory)


def test_a_new_run(tmp_path: Path, whole: tuple[bytes, str]) -> None:
    told: list[tuple[int, str]] = []
    outcome = carry_out(task(tmp_path / "run", *FOUR), lambda *words: told.append(words))
    accuracy = read_run(tmp_path / "run").series("accuracy")[1]
    assert (outcome.status, outcome.error, outcome.summary) == ("completed", "", f"accuracy {accuracy[-1]:.4f}")
    assert outcome.seconds > 0
    assert [round for round, _ in told] == [0, 1, 2, 3, 4]
    assert ends(tmp_path / "run") == whole
    info = read_run(tmp_path / "run").info
    assert (info["label"]["model"], info["command"]) == ("logistic_regression", "fedagg run")


def test_what_is_complete_is_left_alone(tmp_path: Path) -> None:
    carry_out(task(tmp_path / "run"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}
    for retry in (False, True):
        assert carry_out(task(tmp_path / "run", retry=retry)).status == "completed"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()} == before


@pytest.mark.parametrize("every", ["1", "null"], ids=["from its checkpoint", "from the start"])
def test_a_run_that_fails(tmp_path: Path, whole: tuple[bytes, str], every: str) -> None:
    words = ["rounds=4", f"checkpoint.every={every}", trouble(2, tmp_path / "once")]
    first = carry_out(task(tmp_path / "run", *words))
    assert (first.status, first.error) == ("failed", "ValueError: boom\nand more")
    assert read_run(tmp_path / "run").status == "failed"
    log = (tmp_path / "run" / "fedagg.log").read_text()
    assert "Traceback (most recent call last)" in log
    assert log.count("ValueError: boom") == 1
    before = files_in(tmp_path / "run")
    again = carry_out(task(tmp_path / "run", *words))
    assert (again.status, again.error) == (first.status, first.error)
    assert files_in(tmp_path / "run") == before
    rounds: list[int] = []
    assert carry_out(task(tmp_path / "run", *words, retry=True), lambda round, _: rounds.append(round)).status == "completed"
    assert rounds == ([2, 3, 4] if every == "1" else [0, 1, 2, 3, 4])
    assert ends(tmp_path / "run") == whole
    assert (tmp_path / "run" / "fedagg.log").read_text().startswith(log)


@pytest.mark.parametrize("last", [0, 1, 3])
def test_a_run_that_was_killed(tmp_path: Path, whole: tuple[bytes, str], last: int) -> None:
    words = [*FOUR, trouble(last, tmp_path / "once", "die")]
    killed(tmp_path / "run", *words)
    with open(tmp_path / "run" / "metrics.csv", "a") as file:
        file.write("4,test,,acc")  # and it was writing a line
    assert carry_out(task(tmp_path / "run", *words)).status == "completed"
    assert ends(tmp_path / "run") == whole


@pytest.mark.parametrize("kind", ["refused", "damaged"])
def test_checkpoints_that_are_of_no_use(tmp_path: Path, whole: tuple[bytes, str], kind: str) -> None:
    """Its directory has the name of its config, so a run of a study cannot start over elsewhere."""
    words = [*FOUR, trouble(2, tmp_path / "once", "die", "Unsavable" if kind == "refused" else "Trouble")]
    killed(tmp_path / "run", *words)
    folder = tmp_path / "run" / "checkpoints"
    assert (folder / "refused.txt").exists() == (kind == "refused")
    for file in folder.glob("*.ckpt"):
        file.write_bytes(file.read_bytes()[:-10])
    assert carry_out(task(tmp_path / "run", *words)).status == "completed"
    assert ends(tmp_path / "run") == whole


@pytest.mark.parametrize("fails_at", range(len(FILES)))
def test_killed_while_clearing_for_a_new_start(
    tmp_path: Path, whole: tuple[bytes, str], monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    """Whichever files are gone by then, the next call clears the rest."""
    words = [*FOUR, trouble(2, tmp_path / "once", "die", "Unsavable")]
    killed(tmp_path / "run", *words)
    unlink, gone = Path.unlink, list[Path]()

    def dying(path: Path, missing_ok: bool = False) -> None:
        if path.name in FILES:
            if len(gone) == fails_at:
                raise Killed
            gone.append(path)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", dying)
    with pytest.raises(Killed):
        prepared(tmp_path / "run", retry=False)
    monkeypatch.undo()
    assert carry_out(task(tmp_path / "run", *words)).status == "completed"
    assert ends(tmp_path / "run") == whole


def test_an_error_before_the_run_begins(tmp_path: Path) -> None:
    """Its config is on record all the same, and why it failed."""
    words = ["rounds=7", f"+callbacks.x={{_target_: {__name__}.NotMade}}"]
    outcome = carry_out(task(tmp_path / "run", *words))
    assert outcome.status == "failed"
    assert "not today" in outcome.error
    run = read_run(tmp_path / "run")
    assert (run.status, run.info["error"], run.info["rounds"]) == ("failed", outcome.error, 7)
    assert run.config["cohort"] == 4
    assert "not today" in (tmp_path / "run" / "fedagg.log").read_text()
    assert carry_out(task(tmp_path / "run", *words)).error == outcome.error
    assert carry_out(task(tmp_path / "run", *words, retry=True)).error == outcome.error  # it is tried, and fails again
    assert (tmp_path / "run" / "fedagg.log").read_text().count("[ERROR]") == 2


def test_an_impossible_setting(tmp_path: Path) -> None:
    outcome = carry_out(task(tmp_path / "run", "cohort=5"))
    assert outcome.status == "failed"
    assert outcome.error.startswith("ConfigError: cohort must be at most the population")


def test_an_error_before_it_goes_on(tmp_path: Path, whole: tuple[bytes, str]) -> None:
    """The data have gone, say. Then it has failed, and goes on from its checkpoint when it is tried again."""
    words = [*FOUR, trouble(2, tmp_path / "once", "die")]
    killed(tmp_path / "run", *words)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("fedagg.experiment.build", lambda cfg: (_ for _ in ()).throw(OSError("no data")))
        assert carry_out(task(tmp_path / "run", *words)).error == "OSError: no data"
    assert read_run(tmp_path / "run").info["error"] == "OSError: no data"
    rounds: list[int] = []
    assert carry_out(task(tmp_path / "run", *words, retry=True), lambda round, _: rounds.append(round)).status == "completed"
    assert rounds == [2, 3, 4]
    assert ends(tmp_path / "run") == whole


def test_stopped(tmp_path: Path, whole: tuple[bytes, str]) -> None:
    asked: list[int] = []

    def stop() -> bool:
        asked.append(0)
        return len(asked) == 3

    words = ["rounds=4", "checkpoint.every=100"]
    assert carry_out(task(tmp_path / "run", *words), stop=stop).status == "stopped"
    assert read_run(tmp_path / "run").status == "interrupted"
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["round-00000002.ckpt"]
    assert carry_out(task(tmp_path / "run", *words)).status == "completed"
    assert ends(tmp_path / "run") == whole


# Two processes


def test_another_process_is_at_it(tmp_path: Path) -> None:
    """The system tells two openings of a lock apart also within one process."""
    with Lock(tmp_path / "run"):
        assert carry_out(task(tmp_path / "run")).status == "elsewhere"
        assert os.listdir(tmp_path / "run") == [".lock"]


class Meanwhile:
    """Lets something happen while the first experiment is built, which is done outside the lock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], Any]) -> None:
        from fedagg.experiment import build

        def building(*arguments: Any) -> Any:
            monkeypatch.setattr("fedagg.experiment.build", build)
            happens()
            return build(*arguments)

        monkeypatch.setattr("fedagg.experiment.build", building)


@pytest.mark.parametrize("rounds", [2, 5], ids=["completes", "breaks off"])
@pytest.mark.parametrize("begun", [False, True])
def test_another_process_is_quicker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int, begun: bool) -> None:
    """It has the run, or had it, before this one has the lock; this one neither fails nor spoils anything."""
    ours = task(tmp_path / "run", *FOUR, trouble(2, tmp_path / "once", "die"))
    if begun:
        killed(tmp_path / "run", *FOUR, trouble(2, tmp_path / "once", "die"))
    else:
        (tmp_path / "once").touch()
    calls: list[int] = []

    def stop() -> bool:
        calls.append(0)
        return rounds == 5 and len(calls) == 2

    Meanwhile(monkeypatch, lambda: carry_out(ours, stop=stop))
    outcome = carry_out(ours)
    assert outcome.status == ("completed" if begun and rounds == 5 else "elsewhere")
    assert read_run(tmp_path / "run").status == (
        "interrupted" if outcome.status == "elsewhere" and rounds == 5 else "completed"
    )
    assert carry_out(ours).status == "completed"


# What a process that died could not say itself


def test_a_failure_is_noted(tmp_path: Path) -> None:
    note_failure(task(tmp_path / "new"), "its worker died")
    carry_out(task(tmp_path / "done"))
    before = files_in(tmp_path / "done")
    note_failure(task(tmp_path / "done"), "its worker died")
    assert files_in(tmp_path / "done") == before
    killed(tmp_path / "begun", *FOUR, trouble(2, tmp_path / "once", "die"))
    note_failure(task(tmp_path / "begun"), "its worker died")
    for name in ("new", "begun"):
        run = read_run(tmp_path / name)
        assert (run.status, run.info["error"]) == ("failed", "its worker died")
    assert Checkpoints(tmp_path / "begun" / "checkpoints").any()


def test_a_directory_that_cannot_be_read(tmp_path: Path) -> None:
    carry_out(task(tmp_path / "run"))
    (tmp_path / "run" / "run.json").write_text("{")
    outcome = carry_out(task(tmp_path / "run"))
    assert isinstance(outcome, Outcome)
    assert outcome.status == "failed"
    assert "run.json cannot be read" in outcome.error
