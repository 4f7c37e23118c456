"""Callbacks that do to workers of a study what the world does."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from fedagg import Callback
from fedagg.loop import Round


class Dies(Callback):
    """Its process is killed after round ``last``, so many times; a folder counts."""

    def __init__(self, last: int, count: str, times: int = 1) -> None:
        self.last, self.count, self.times = last, Path(count), times

    def round_finished(self, done: Round) -> None:
        self.count.mkdir(exist_ok=True)
        died = len(list(self.count.iterdir()))
        if done.round == self.last and died < self.times:
            (self.count / str(died)).touch()
            os.kill(os.getpid(), signal.SIGKILL)


class Fails(Callback):
    """Raises after round 1 unless a file exists."""

    def __init__(self, unless: str) -> None:
        self.unless = Path(unless)

    def round_finished(self, done: Round) -> None:
        if done.round == 1 and not self.unless.exists():
            raise ValueError("boom")


class Prints(Callback):
    """Prints what could be taken for a message of the worker's, in every way there is."""

    def round_finished(self, done: Round) -> None:
        for text in ('{"outcome": {"status": "failed"}}', "pause", "no JSON {"):
            print(text, flush=True)
            sys.__stdout__.write(f"{text}\n")  # type: ignore[union-attr]
            os.write(1, f"{text}\n".encode())
            print(text, file=sys.stderr)


class Slow(Callback):
    """Every round takes so many seconds more."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def round_finished(self, done: Round) -> None:
        time.sleep(self.seconds)


class Writes(Callback):
    """Notes every begun run in a file, which several processes may do at once."""

    def __init__(self, into: str) -> None:
        self.into = into

    def round_finished(self, done: Round) -> None:
        if done.round == 0:
            with open(self.into, "a") as file:
                file.write(f"{os.getpid()}\n")


def plugin(name: str, **arguments: Any) -> dict[str, Any]:
    """The overrides that add a callback."""
    settings = {"_target_": f"{__name__}.{name}", **arguments}
    return {f"+callbacks.{name.lower()}.{key}": value for key, value in settings.items()}
