"""Who carries out the runs of a study: warm processes on this machine."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from fedagg.study.work import Outcome, Task
from fedagg.study.worker import PAUSE


@dataclass(frozen=True)
class Event:
    """What a worker reports: a finished round in words, the outcome of its task, or that it died."""

    worker: int
    round: int = 0
    state: str = ""
    outcome: Outcome | None = None
    died: str = ""


class Crew(ABC):
    """Workers that carry out one task at a time each. Used as a context manager."""

    size: int

    @abstractmethod
    def give(self, worker: int, task: Task) -> None:
        """Hand a task to a worker that has none."""

    @abstractmethod
    def events(self, timeout: float) -> list[Event]:
        """Wait for reports, at most ``timeout`` seconds. A worker that died has been replaced."""

    @abstractmethod
    def pause(self) -> None:
        """Tell all workers to end after the round they are in; each still reports its outcome."""

    @abstractmethod
    def close(self) -> None:
        """End all workers at once."""

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@dataclass
class _Process:
    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    unread: bytes = b""
    said_before: int = 0  # bytes of ``errors`` that are of earlier tasks


class LocalCrew(Crew):
    """Worker processes on this machine; see ``fedagg.study.worker``.

    They are no children of the terminal: Ctrl-C reaches the study, which tells them.

    Args:
        size: how many.
        threads: of torch and BLAS, each.
    """

    def __init__(self, size: int, threads: int) -> None:
        self.size, self.threads = size, threads
        self._selector = selectors.DefaultSelector()
        self._workers = [self._start(number) for number in range(size)]

    def _start(self, number: int) -> _Process:
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)  # plug-ins are found as here
        errors = tempfile.TemporaryFile()  # noqa: SIM115  open as long as the worker lives
        process = subprocess.Popen(
            [sys.executable, "-m", "fedagg.study.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            start_new_session=True,
        )
        assert process.stdout is not None
        self._selector.register(process.stdout, selectors.EVENT_READ, number)
        return _Process(process, errors)

    def give(self, worker: int, task: Task) -> None:
        process = self._workers[worker]
        process.said_before = os.fstat(process.errors.fileno()).st_size
        _write(process, json.dumps(task.plain()))

    def events(self, timeout: float) -> list[Event]:
        found = []
        for key, _ in self._selector.select(timeout):
            number, worker = key.data, self._workers[key.data]
            arrived = os.read(key.fd, 1 << 16)
            if not arrived:
                self._selector.unregister(key.fileobj)
                found.append(Event(number, died=_obituary(worker)))
                _close_pipes(worker)
                self._workers[number] = self._start(number)
                continue
            *lines, worker.unread = (worker.unread + arrived).split(b"\n")
            for line in lines:
                event: dict[str, Any] = json.loads(line)
                outcome = Outcome(**event["outcome"]) if "outcome" in event else None
                found.append(Event(number, event.get("round", 0), event.get("state", ""), outcome))
        return found

    def pause(self) -> None:
        for worker in self._workers:
            _write(worker, PAUSE)

    def close(self) -> None:
        for worker in self._workers:
            worker.process.kill()
            worker.process.wait()
            worker.errors.close()
            _close_pipes(worker)
        self._selector.close()


def _write(worker: _Process, line: str) -> None:
    stdin = worker.process.stdin
    assert stdin is not None
    with suppress(BrokenPipeError):  # it is dead, which ``events`` reports
        stdin.write(line.encode() + b"\n")
        stdin.flush()


def _close_pipes(worker: _Process) -> None:
    for pipe in (worker.process.stdin, worker.process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):  # a task that it never read
                pipe.close()


def _obituary(worker: _Process) -> str:
    """Say how a worker died, with the last thing it said about its task."""
    code = worker.process.wait()
    worker.errors.seek(worker.said_before)
    last = worker.errors.read().decode(errors="replace").strip().splitlines()[-1:]
    worker.errors.close()
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return f"its worker process {how}" + (f": {last[0]}" if last else "")
