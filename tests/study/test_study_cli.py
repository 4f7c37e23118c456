"""The verbs of studies on the command line: what they print, and with which code they end."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedagg.study import Store
from tests.commands import Command, start
from tests.study.parts import files_in, write_study
from tests.study.plugins import plugin

KEYS = {"question": "Which?", "axes": {"strategy": ["mean", "median"]}, "seeds": 2, "workers": 1}


@pytest.fixture(name="study")
def _study(tmp_path: Path) -> Path:
    return write_study(tmp_path / "mine", **KEYS)


def test_a_large_study_says_what_takes_so_long(command: Command, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedagg.cli.MANY", 4)
    assert command("study", study, "--dry-run").err == "mine: composing the configs of 4 runs, which takes a while\n"
    assert not command("study", study, "--dry-run", "seed=0").err


def test_before_during_and_after(command: Command, study: Path, tmp_path: Path) -> None:
    """A dry run writes nothing; the cost is known once something is complete; a run that fails is found again."""
    store = study / "store"
    unless = plugin("Fails", unless=str(tmp_path / "mended"))
    failing = [f"{key}={value}" for key, value in unless.items()]
    done = command("study", study, "--dry-run")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[:5] == [
        "study     mine: Which?",
        f"store     {store}",
        "runs      4: 4 waiting",
        "workers   1 of 1 thread, local",
        "cost      8 rounds to run; how long they take is known once a run of the study is complete",
    ]
    jobs = [f"strategy={strategy} seed={seed}" for strategy in ("mean", "median") for seed in (0, 1)]
    assert [re.sub(" +", " ", line) for line in lines[6:]] == ["run status round job"] + [
        f"{line.split()[0]} waiting 0/2 {job}" for line, job in zip(lines[7:], jobs, strict=True)
    ]
    assert not store.exists()
    assert "has not been run" in command("status", study).err

    done = command("study", study, "strategy=mean")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == "mine: 2 of 2 runs complete"
    assert f"table     {store}/results.csv" in done.out
    assert re.search(r"^1/2  strategy=mean seed=0  accuracy 0\.\d{4}  [\d.]+ s", done.out, re.MULTILINE)

    done = command("study", study, "--dry-run")
    assert "runs      4: 2 completed, 2 waiting" in done.out or "runs      4: 2 waiting, 2 completed" in done.out
    assert re.search(
        r"^cost      4 rounds to run, about \d+ s with 1 at a time, as in the 2 runs that are complete$", done.out, re.M
    )
    assert "cost      nothing left to run" in command("study", study, "strategy=mean", "--dry-run").out

    done = command("study", study, "strategy=median", "seed=7", *failing)
    assert done.code == 1
    assert done.out.splitlines()[-1] == "mine: 0 of 1 runs complete, 1 failed"
    assert "1/1  strategy=median seed=7  FAILED: ValueError: boom" in done.out
    assert done.err.startswith(
        f"what failed: fedagg status {store}; try again with: fedagg study {study} strategy=median seed=7 "
    )
    assert done.err.endswith("--retry-failed\n")
    before = files_in(study)
    status = command("status", study)
    assert (status.code, status.err) == (0, "")
    assert "runs      3: 2 completed, 1 failed" in status.out
    assert status.out.splitlines()[-1].strip() == "ValueError: boom"
    assert files_in(study) == before
    (tmp_path / "mended").touch()
    done = command("study", study, "strategy=median", "seed=7", *failing, "--retry-failed")
    assert (done.code, done.out.splitlines()[-1]) == (0, "mine: 1 of 1 runs complete")
    assert "runs      3: 3 completed" in command("status", store).out


@pytest.fixture(name="slow")
def _slow(tmp_path: Path) -> Iterator[Path]:
    """A study that another process is at, with one run under way and one that waits."""
    folder = write_study(tmp_path / "slow", config=plugin("Slow", seconds=100), seeds=2, workers=1)
    process = start("study", str(folder), cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not any((folder / "store").glob("*/timing.csv")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield folder
    process.kill()
    process.communicate()


def test_while_another_process_is_at_it(command: Command, slow: Path) -> None:
    store = Store(slow / "store")
    done = command("status", slow)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[2] in ("runs      2: 1 running, 1 waiting", "runs      2: 1 waiting, 1 running")
    assert done.out.splitlines()[3].startswith("cost      4 rounds to run; how long they take is known once")
    shown = done.out.splitlines()[-1].split()
    assert [shown[1], *shown[3:]] == ["running", "seed=0"]
    assert shown[0] == store.entries()[0].run
    assert command("status", store.folder).out == done.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["study", "quikstart"], "error: no study quikstart (did you mean quickstart?)"),
        (["status", "quikstart"], "error: no study quikstart (did you mean quickstart?)"),
        (["study", "mine", "stratgy=krum"], "error: strategy=mean seed=0: "),
        (
            ["study", "mine", "strategy=krumm"],
            "error: strategy=krumm seed=0: strategy has no choice krumm (did you mean krum?)",
        ),
        (["study", "mine", "strategy=krumm", "--dry-run"], "error: strategy=krumm seed=0"),
        (["study", "mine", "study.worker=2"], "error: study has no worker (did you mean workers?)"),
        (["study", "mine", "--again"], "unrecognized arguments: --again"),
        (["study"], "the following arguments are required: STUDY"),
    ],
)
def test_mistakes(command: Command, study: Path, words: list[str], message: str) -> None:
    done = command(*(str(study) if word == "mine" else word for word in words))
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert not (study / "store").exists()


@pytest.mark.parametrize(("verb", "words"), [("study", ["--dry-run", "--retry-failed", "--fail-fast"]), ("status", ["STUDY"])])
def test_help(command: Command, verb: str, words: list[str]) -> None:
    done = command(verb, "--help")
    assert done.code == 0
    assert all(word in done.out for word in words)
