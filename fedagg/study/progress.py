"""What a study shows while it runs: one bar with the time left and what is running, or a line for every run that ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table

from fedagg.study.store import Entry
from fedagg.study.work import Outcome


class Progress:
    """Shows how far a study is. Used as a context manager.

    Args:
        name: of the study.
        entries: run -> its job.
        quiet: show nothing.
    """

    def __init__(self, name: str, entries: Mapping[str, Entry], *, quiet: bool = False) -> None:
        self.name, self.entries, self.quiet = name, entries, quiet
        self._running: dict[str, tuple[float, int, str]] = {}
        self._ended, self._before = 0, 0
        self._spent: list[float] = []
        self._live: Live | None = None
        self.workers = 1  # how many runs there are at a time
        if not quiet and sys.stdout.isatty():
            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}")
            self._bar = Bar(*columns)
            self._task = self._bar.add_task(name, total=len(entries), left="")
            self._live = Live(self._bar, console=Console(), refresh_per_second=4)

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._live.stop()

    def begun(self, run: str) -> None:
        """A worker has taken the run."""
        self._running[run] = (time.monotonic(), 0, "")
        self._draw()

    def reached(self, run: str, round: int, state: str) -> None:
        """The run has finished a round."""
        if run in self._running:
            self._running[run] = (self._running[run][0], round, state)
            self._draw()

    def put_back(self, run: str) -> None:
        """The run has not ended and is nobody's."""
        self._running.pop(run, None)
        self._draw()

    def ended(self, run: str, outcome: Outcome, before: bool) -> None:
        """The run has ended, in this call or before it."""
        self._running.pop(run, None)
        self._ended += 1
        if before:
            self._before += 1
        elif outcome.status == "completed":
            self._spent.append(outcome.seconds)
        if not before:
            entry, seconds = self.entries[run], f"{outcome.seconds:.1f} s" if outcome.seconds else ""
            words = outcome.summary if outcome.status == "completed" else f"FAILED: {_first_line(outcome.error)}"
            left = "" if self._live else self._left()
            self.say("  ".join(part for part in (self._count(), entry.title, words, seconds, left) if part))
        self._draw()

    def say(self, text: str) -> None:
        """Print a line."""
        if self.quiet:
            return
        if self._live:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, flush=True)

    def _count(self) -> str:
        return f"{self._ended}/{len(self.entries)}"

    def _left(self) -> str:
        """Say how long the rest will take, as the runs of this call did; runs that are under way count by their rounds."""
        if not self._spent:
            return ""
        under_way = sum(min(1.0, reached / self.entries[run].rounds) for run, (_, reached, _) in self._running.items())
        runs = max(0.0, len(self.entries) - self._ended - under_way)
        seconds = runs * sum(self._spent) / len(self._spent) / self.workers
        return f"about {duration(seconds)} left" if runs else ""

    def _draw(self) -> None:
        if not self._live:
            return
        self._bar.update(self._task, completed=self._ended, left=self._left())
        now = Table.grid(padding=(0, 2))
        for run, (_, reached, state) in self._running.items():
            now.add_row(f"  {self.entries[run].title}", f"round {reached}/{self.entries[run].rounds}", state)
        self._live.update(Group(self._bar, now))


def duration(seconds: float) -> str:
    """Return a time as people say it.

    Example:
        >>> duration(42), duration(180), duration(5400)
        ('42 s', '3 min', '1.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "no reason given"
