"""A disk that fills up: nothing already written is lost, the message says what to do, and doing it gives the same bytes."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedagg import Callback, FedaggError
from fedagg.loop import Round
from fedagg.results import RunDirectory, read_run
from tests.commands import Command
from tests.resume.parts import KillAfter, Killed
from tests.running import SMALL, run_into

WORLD = ["rounds=12", "checkpoint.every=3", "evaluation.clients=true", "server_optimizer=adam"]


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str]:
    """Metrics and final parameters of a run with room enough."""
    _, run = run_into(tmp_path_factory.mktemp("whole") / "run", *WORLD)
    return (run.path / "metrics.csv").read_bytes(), run.info["parameters"]


@pytest.fixture(name="small_disk")
def _small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few hundred kilobytes, where one may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Fill a disk up to the last ``leave`` bytes."""
    junk = disk / "junk"
    junk.write_bytes(b"x" * (shutil.disk_usage(disk).free - leave))
    return junk


def hidden_files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*")]


@pytest.mark.parametrize("leave", [0, 4096, 12288, 24576], ids=lambda leave: f"{leave // 1024} kB left")
def test_a_disk_that_is_full(small_disk: Path, command: Command, whole: tuple[bytes, str], leave: int) -> None:
    """It fills up after round 4, whose predecessor was saved; how much is left decides which file is the first to fail."""
    run = small_disk / "run"
    with pytest.raises(Killed):
        run_into(run, *WORLD, watch=lambda _: [KillAfter(4)])
    saved = (run / "metrics.csv").read_bytes().partition(b"\n4,test")[0]  # up to round 3
    junk = fill(small_disk, leave)
    failed = command("resume", run)
    assert failed.code == 1
    assert failed.err.startswith(f"error: {run}")
    assert "cannot be written: No space left on device. What was written before is whole" in failed.err
    assert "fedagg resume RUN_DIR" in failed.err
    assert hidden_files(run) == []
    rows = read_run(run).series("accuracy")[0].tolist()
    assert rows == list(range(len(rows)))
    assert len(rows) >= 4
    assert (run / "metrics.csv").read_bytes().startswith(saved)
    junk.unlink()
    assert command("resume", run).code == 0
    assert (run / "metrics.csv").read_bytes() == whole[0]
    assert read_run(run).info["parameters"] == whole[1]


def test_a_disk_that_is_full_from_the_start(small_disk: Path, command: Command) -> None:
    junk = fill(small_disk, 0)
    words = ["run", *SMALL, *WORLD, f"hydra.run.dir={small_disk / 'run'}", "hydra/job_logging=none"]
    failed = command(*words)
    assert failed.code == 1
    assert "cannot be written: No space left on device" in failed.err
    junk.unlink()
    assert command(*words).code == 0


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from fedagg.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("limit", "file"),
    [(2000, "metrics.csv"), (9000, "round-00000003.ckpt"), (200, "run.json")],
    ids=["rows", "checkpoint", "start"],
)
def test_files_that_may_not_grow(command: Command, tmp_path: Path, whole: tuple[bytes, str], limit: int, file: str) -> None:
    """The same without mounting: the system refuses files beyond a size, with another error number."""
    words = ["run", *SMALL, *WORLD, f"hydra.run.dir={tmp_path / 'run'}", "resume=auto"]
    script = tmp_path / "limited.py"
    script.write_text(LIMITED)
    failed = subprocess.run([sys.executable, script, str(limit), *words], capture_output=True, text=True, check=False)
    assert failed.returncode == 1, failed.stderr
    assert failed.stderr.startswith("error: ")
    assert f"{file} cannot be written: File too large" in failed.stderr
    assert "Traceback" not in failed.stdout + failed.stderr
    assert [name for name in hidden_files(tmp_path / "run") if name != ".lock"] == []
    if file != "run.json":
        rounds = read_run(tmp_path / "run").series("accuracy")[0].tolist()
        assert rounds == list(range(len(rounds)))
        assert rounds
    assert command(*words).code == 0
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == whole[0]
    assert read_run(tmp_path / "run").info["parameters"] == whole[1]


class Complaining(Callback):
    """Fails in round 2, and from then on nothing can be written into the record of the run."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.patch = patch

    def round_finished(self, done: Round) -> None:
        if done.round == 2:
            self.patch.setattr(RunDirectory, "finish", self._refuse)
            raise FedaggError("this came first")

    def _refuse(self, *_: object, **__: object) -> None:
        raise FedaggError("and then the record could not be written")


def test_the_first_error_is_the_one_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FedaggError, match="this came first"):
        run_into(tmp_path / "run", *WORLD, watch=lambda _: [Complaining(monkeypatch)])
    assert read_run(tmp_path / "run").status == "running"
