"""One run of a study, in whatever process it happens: begin it, go on with it, or find that it is done."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

from omegaconf import OmegaConf

from fedagg.disk import Lock
from fedagg.errors import FedaggError, InUse
from fedagg.results import FILES, RunDirectory, half_made, read_info

logger = logging.getLogger(__name__)

Tell = Callable[[int, str], None]
Stop = Callable[[], bool]


@dataclass(frozen=True)
class Task:
    """What a worker is asked to do; plain values, so that it can be sent anywhere.

    Args:
        run: the name of the run.
        directory: where it is, or goes.
        config: the config, with its interpolations.
        choices: config group -> choice.
        command: repeats it.
        retry: whether to try again if it has failed before.
    """

    run: str
    directory: str
    config: dict[str, Any]
    choices: dict[str, str]
    command: str
    retry: bool = False

    def plain(self) -> dict[str, Any]:
        """Return the task as a dict."""
        return asdict(self)


@dataclass(frozen=True)
class Outcome:
    """How a task ended: completed, failed, stopped by a signal, or elsewhere, because another process is at it."""

    status: str
    seconds: float = 0.0
    error: str = ""
    summary: str = ""


def carry_out(task: Task, tell: Tell = lambda round, state: None, stop: Stop = lambda: False) -> Outcome:
    """Bring a run to its end.

    Args:
        task: which run.
        tell: told of every finished round, with the round in words.
        stop: asked after every round whether to break the run off, with a checkpoint.
    """
    from fedagg.experiment import Experiment, run_experiment
    from fedagg.loop import Callback, Round
    from fedagg.progress import describe

    class Telling(Callback):
        def __init__(self, f: int) -> None:
            self.f = f

        def round_finished(self, done: Round) -> None:
            tell(done.round, describe(done, self.f))
            self.paused = stop()

    directory, began, built = Path(task.directory), time.monotonic(), False

    def watch(experiment: Experiment) -> list[Callback]:
        nonlocal built
        built = True
        return [Telling(experiment.f)]

    def ended(status: str, error: str = "", summary: str = "") -> Outcome:
        return Outcome(status, time.monotonic() - began, error, summary)

    try:
        begun = prepared(directory, task.retry)
        if begun in ("completed", "failed"):
            return ended(begun, "" if begun == "completed" else str(read_info(directory).get("error")))
        with _logging_into(directory / "fedagg.log"):
            try:
                result = run_experiment(
                    OmegaConf.create(task.config),
                    directory,
                    resume=begun == "begun",
                    choices=task.choices,
                    command=task.command,
                    watch=watch,
                )
            except (InUse, KeyboardInterrupt):
                raise
            except Exception as error:
                if not built and _made_meanwhile(directory, begun):
                    return ended("elsewhere")
                logger.error("%s", traceback.format_exc())
                reason = f"{type(error).__name__}: {error}"
                note_failure(task, reason)
                return ended("failed", reason)
        accuracy = result.series("accuracy") or result.series("accuracy_mean", "clients")
        return ended("completed", summary=f"accuracy {accuracy[-1][1]:.4f}" if accuracy else "")
    except InUse:
        return ended("elsewhere")
    except KeyboardInterrupt:
        return ended("stopped")
    except FedaggError as error:  # a directory that cannot be read, a full disk
        return ended("failed", str(error))


def prepared(directory: Path, retry: bool) -> str:
    """Return what a run's directory holds: nothing (new), a run to go on with (begun), one that completed or failed.

    What cannot be gone on with is cleared away for a new start; the log stays.

    Args:
        directory: need not exist.
        retry: whether a failed run is to be tried again.

    Raises:
        InUse: another process is at it.
    """
    from fedagg.checkpoint import Checkpoints

    if not directory.exists():
        return "new"
    with Lock(directory):
        if not (directory / "run.json").exists() or half_made(directory):
            return "new"
        status = read_info(directory).get("status")
        if status == "completed" or (status == "failed" and not retry):
            return str(status)
        checkpoints = Checkpoints(directory / "checkpoints")
        with suppress(FedaggError):  # all of them are damaged, or the run could not be saved
            if checkpoints.latest() is not None:
                return "begun"
        rmtree(checkpoints.folder, ignore_errors=True)
        for name in reversed(FILES):  # run.json is the last to go: killed in between, the next one goes on clearing
            (directory / name).unlink(missing_ok=True)
    return "new"


def _made_meanwhile(directory: Path, begun: str) -> bool:
    """Whether another process made the run, or completed it, while this one was building it."""
    with suppress(FedaggError):
        made = (directory / "run.json").exists() and not half_made(directory)
        return made and (begun == "new" or read_info(directory).get("status") == "completed")
    return False


def note_failure(task: Task, error: str) -> None:
    """Leave a record of a run that failed where it could not do so itself: before it had begun, or as its process died."""
    directory = Path(task.directory)
    with suppress(FedaggError), Lock(directory):
        if (directory / "run.json").exists() and not half_made(directory):
            record = RunDirectory(directory, read_info(directory))
        else:
            config: dict[str, Any] = OmegaConf.to_container(OmegaConf.create(task.config), resolve=True)  # type: ignore[assignment]
            about = {"rounds": config["rounds"], "command": task.command}
            record = RunDirectory.create(directory, config, task.choices, config["seed"], **about)
        if record.info["status"] in ("running", "interrupted"):
            record.finish("failed", error=error)


@contextmanager
def _logging_into(file: Path) -> Iterator[None]:
    """Write what is logged at the end of ``file``, as ``fedagg run`` does."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(file, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        handler.close()
