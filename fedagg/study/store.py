"""The store of a study: a folder of run directories, named by the hash of their configs, and one file that says what they are.

Any number of processes may work in one store. A run belongs to the process that holds its directory's lock, which the system
takes back when the process ends, however it ends; everything else is read from the run directories themselves.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedagg.disk import Lock, write_whole
from fedagg.errors import ConfigError, FedaggError, InUse
from fedagg.results import half_made, read_info

FORMAT = 1
MANIFEST = "study.json"
PATIENCE = 10.0  # seconds to wait for another process that writes the manifest


@dataclass(frozen=True)
class Entry:
    """One job as the manifest keeps it.

    Args:
        run: the name of its directory.
        axes: where it stands.
        seed: its seed.
        rounds: how many it has.
        command: repeats this run alone.
    """

    run: str
    axes: dict[str, str]
    seed: int
    rounds: int
    command: str

    @property
    def title(self) -> str:
        """The job in a few words."""
        return " ".join([*(f"{axis}={label}" for axis, label in self.axes.items()), f"seed={self.seed}"])

    @property
    def place(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """What tells one job from another."""
        return self.run, tuple(sorted(self.axes.items()))


@dataclass(frozen=True)
class State:
    """How far a run is: waiting, running, stopped, completed, failed or unreadable, its last finished round, its error."""

    status: str
    round: int = 0
    error: str = ""


class Store:
    """The runs of a study.

    Args:
        folder: where they are; need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def directory(self, run: str) -> Path:
        """Return the directory of a run."""
        return self.folder / run

    def exists(self) -> bool:
        """Whether there is a study in the folder."""
        return (self.folder / MANIFEST).is_file()

    def manifest(self) -> dict[str, Any]:
        """Return what is known about the study: name, question, report, and its jobs.

        Raises:
            ConfigError: there is none, or it is of another version.
        """
        file = self.folder / MANIFEST
        try:
            found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{self.folder} holds no study: there is no {MANIFEST}") from None
        except (OSError, ValueError) as error:
            raise FedaggError(
                f"{file} cannot be read: {error}. The runs beside it are whole: remove it, and start the study again"
            ) from None
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            version = found.get("format") if isinstance(found, dict) else None
            raise ConfigError(
                f"{file} has format {version}, and this version of fedagg reads format {FORMAT}. Use the version that wrote "
                "it, or choose another folder with study.store=..."
            )
        return found

    def entries(self) -> list[Entry]:
        """Return the jobs of the study in their order."""
        return [Entry(**job) for job in self.manifest()["jobs"]]

    def enter(self, name: str, question: str, report: dict[str, str], entries: Sequence[Entry]) -> None:
        """Write the jobs into the manifest, behind those of earlier calls that were begun and are not among them.

        Earlier runs of the very same command, which has come to mean another config since (a default has changed), are
        superseded: they stay on the disk, and tables and reports leave them out.
        """
        with self._alone():
            manifest = self.manifest() if self.exists() else {"jobs": []}
            before = [Entry(**job) for job in manifest["jobs"]]
            new = {entry.place: entry for entry in entries}  # commands may differ, as in how often checkpoints are written
            again = {(entry.command, entry.title) for entry in entries}
            old = [entry for entry in before if entry.place not in new and self.directory(entry.run).exists()]
            kept = [entry for entry in old if (entry.command, entry.title) not in again]
            jobs = [vars(entry) for entry in [*kept, *new.values()]]
            superseded = {*manifest.get("superseded", []), *(entry.run for entry in old)} - {job["run"] for job in jobs}
            content = {"format": FORMAT, "name": name, "question": question, "report": report, "jobs": jobs}
            content["superseded"] = sorted(superseded)
            write_whole(self.folder / MANIFEST, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def state(self, run: str) -> State:
        """Return how far a run is, as its directory tells."""
        directory = self.directory(run)
        try:
            if not (directory / "run.json").exists() or half_made(directory):
                return State("waiting")
            info = read_info(directory)
        except FedaggError as error:
            return State("unreadable", error=str(error))
        status = str(info.get("status"))
        if status in ("running", "interrupted"):
            status = "running" if in_use(directory) else "stopped"
        return State(status, _last_round(directory), str(info.get("error") or ""))

    def states(self, runs: Iterable[str]) -> dict[str, State]:
        """Return how far these runs are."""
        return {run: self.state(run) for run in dict.fromkeys(runs)}

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock of the store, once no other process has it."""
        deadline = time.monotonic() + PATIENCE
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(Lock(self.folder))
                    break
                except InUse:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.02)
            yield


def _last_round(directory: Path) -> int:
    """Return the last round whose metrics are on the disk; a torn line does not count."""
    try:
        with open(directory / "metrics.csv", "rb") as file:
            file.seek(max(0, file.seek(0, 2) - 4096))
            lines = file.read().split(b"\n")[:-1]
        return int(lines[-1].split(b",")[0])
    except (OSError, ValueError, IndexError):  # only the header, or nothing at all
        return 0


def in_use(folder: Path) -> bool:
    """Whether a process works in ``folder``."""
    if not (folder / ".lock").exists():
        return False
    try:
        with Lock(folder):
            return False
    except InUse:
        return True
