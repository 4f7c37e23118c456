"""Carry a study out: what is done is left alone, what was begun goes on, what is missing is run, several at a time."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fedagg.errors import ConfigError, FedaggError
from fedagg.study.crew import Crew, Event, LocalCrew
from fedagg.study.plan import Study
from fedagg.study.progress import Progress
from fedagg.study.resolve import Planned, resolve
from fedagg.study.store import Entry, Store
from fedagg.study.table import write_table
from fedagg.study.work import Outcome, Task, note_failure

DEATHS = 2  # a run whose worker died so often has failed
LOOK_AGAIN = 1.0  # seconds between looks at what happens, and at runs that another process is at


@dataclass(frozen=True)
class Summary:
    """How a study stands after a call.

    Args:
        outcomes: run -> how it ended, for those that have.
        runs: how many there are.
        stopped: the signal that stopped the call.
    """

    outcomes: dict[str, Outcome]
    runs: int
    stopped: int | None = None

    @property
    def failed(self) -> dict[str, Outcome]:
        """The runs that failed."""
        return {run: outcome for run, outcome in self.outcomes.items() if outcome.status == "failed"}

    @property
    def exit_code(self) -> int:
        """0 where every run is complete, 1 where one failed, 130 or 143 where a signal stopped the study."""
        if self.stopped is not None:
            return 128 + self.stopped
        return 1 if self.failed else 0

    def __str__(self) -> str:
        counts = Counter(outcome.status for outcome in self.outcomes.values())
        left = self.runs - counts["completed"] - counts["failed"]
        words = [f"{counts['completed']} of {self.runs} runs complete"]
        words += [f"{counts['failed']} failed"] if counts["failed"] else []
        words += [f"{left} left"] if left else []
        return ", ".join(words)


def entries(study: Study, planned: Sequence[Planned]) -> list[Entry]:
    """Return the jobs as the manifest keeps them."""
    own = any(study.folder.glob("*/*.yaml"))  # config groups; a folder without any may be the store
    flags = ["--config-dir", os.path.relpath(study.folder)] if own else []
    made = []
    for each in planned:
        command = shlex.join(["fedagg", "run", *flags, *each.job.overrides])
        made.append(Entry(each.run, each.job.axes, each.job.seed, each.rounds, command))
    return made


def run_study(study: Study, *, retry_failed: bool = False, fail_fast: bool = False, quiet: bool = False) -> Summary:
    """Bring all runs of a study to their end, and write its table.

    Args:
        study: what to run.
        retry_failed: try runs again that failed in an earlier call.
        fail_fast: stop at the first failure instead of going on with the others.
        quiet: show nothing.

    Raises:
        ConfigError: the study is impossible, or its store is of another version.
        FedaggError: workers cannot work at all.
    """
    with Runner(study, retry_failed=retry_failed, fail_fast=fail_fast, quiet=quiet) as runner:
        planned = resolve(study, study.jobs())
        summary = runner.run(planned)
        runner.enter(planned)  # once more: another call may have entered other jobs meanwhile
        runner.say(f"table     {write_table(runner.store)[0]}")
    return summary


class Runner:
    """Carries out jobs of a study, as often as it is asked to, with the same workers. Used as a context manager.

    Args:
        study: where the store is, and how to work.
        retry_failed: try runs again that failed before.
        fail_fast: stop at the first failure.
        quiet: show nothing.
    """

    def __init__(self, study: Study, *, retry_failed: bool = False, fail_fast: bool = False, quiet: bool = False) -> None:
        self.study, self.store = study, Store(study.store)
        self.retry_failed, self.fail_fast, self.quiet = retry_failed, fail_fast, quiet
        self._crew: Crew | None = None

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._crew is not None:
            self._crew.close()

    def run(self, planned: Sequence[Planned]) -> Summary:
        """Bring these jobs to their end."""
        size, threads = shape(self.study, planned)
        listed = self.enter(planned)
        tasks, first = dict[str, Task](), dict[str, Entry]()
        for each, entry in zip(planned, listed, strict=True):
            directory = str(self.store.directory(each.run).resolve())
            task = Task(each.run, directory, each.config, each.choices, entry.command, self.retry_failed)
            tasks.setdefault(each.run, task)
            first.setdefault(each.run, entry)
        with Progress(self.study.name, first, quiet=self.quiet) as progress:
            shift = _Shift(self.store, tasks, progress, self.fail_fast)
            shift.look_at_the_store(self.retry_failed)
            if shift.waiting:
                self._crew = self._crew or _crew(self.study, min(size, len(shift.waiting)), threads)
                with shift.listening_to_signals():
                    shift.work(self._crew)
        return Summary(shift.outcomes, len(tasks), shift.signum)

    def enter(self, planned: Sequence[Planned]) -> list[Entry]:
        """Enter these jobs into the manifest of the store, and return them as it keeps them."""
        listed = entries(self.study, planned)
        try:
            self.store.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"study.store={self.store.folder} cannot be made: {error.strerror}") from None
        self.store.enter(self.study.name, self.study.question, self.study.report, listed)
        return listed

    def say(self, text: str) -> None:
        """Print a line, unless nothing is to be shown."""
        if not self.quiet:
            print(text, flush=True)


def shape(study: Study, planned: Sequence[Planned]) -> tuple[int, int]:
    """Return how many workers, and threads of each: together no more than there are cores.

    Raises:
        ConfigError: the runs start workers of their own.
    """
    threads = max(each.threads for each in planned)
    own_workers = any("workers" in each.config["engine"] for each in planned)
    if own_workers and (study.launcher == "ray" or study.workers != 1):
        raise ConfigError("engine=ray has workers of its own: set study.workers=1, or another engine and study.launcher=ray")
    if study.launcher == "ray":
        return study.workers or 1, threads
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    room = max(1, cores // threads)
    if study.workers is not None and study.workers > room:
        print(f"{room} workers: {study.workers} of {threads} threads each are more than {cores} cores", file=sys.stderr)
    return min(study.workers or room, room), threads


def _crew(study: Study, size: int, threads: int) -> Crew:
    if study.launcher == "ray":
        from fedagg.study.ray_crew import RayCrew

        return RayCrew(size, threads, study.address)
    return LocalCrew(size, threads)


class _Shift:
    """The work of one call: which run waits, which worker has which, what has ended."""

    def __init__(self, store: Store, tasks: dict[str, Task], progress: Progress, fail_fast: bool) -> None:
        self.store, self.tasks, self.progress, self.fail_fast = store, tasks, progress, fail_fast
        self.waiting: deque[str] = deque()
        self.elsewhere: set[str] = set()
        self.at: dict[int, str] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.deaths: Counter[str] = Counter()
        self.signum: int | None = None
        self.stopping = False

    def look_at_the_store(self, retry_failed: bool) -> None:
        """Find out what an earlier call left to do."""
        for run, state in self.store.states(self.tasks).items():
            if state.status == "completed" or (state.status == "failed" and not retry_failed):
                self._end(run, Outcome(state.status, error=state.error), before=True)
            else:
                self.waiting.append(run)

    def work(self, crew: Crew) -> None:
        """Hand out runs until all have ended."""
        self.progress.workers = crew.size
        while self.at or (not self.stopping and (self.waiting or self.elsewhere)):
            if self.signum is not None and not self.stopping:
                self.progress.say("stopping after these rounds; once more to stop at once")
                self._stop(crew)
            for worker in range(crew.size):
                if worker not in self.at and self.waiting and not self.stopping:
                    self.at[worker] = run = self.waiting.popleft()
                    self.progress.begun(run)
                    crew.give(worker, self.tasks[run])
            for event in crew.events(LOOK_AGAIN):
                self._hear(event, crew)
            if not self.waiting:
                self._look_elsewhere()

    def _hear(self, event: Event, crew: Crew) -> None:
        run = self.at.get(event.worker)
        if event.died:
            if run is None:
                raise FedaggError(f"the workers cannot work: {event.died}")
            del self.at[event.worker]
            self.deaths[run] += 1
            if self.deaths[run] < DEATHS or self.stopping:
                self.waiting.append(run)
                self.progress.put_back(run)
            else:
                reason = f"{event.died}, {DEATHS} times"
                note_failure(self.tasks[run], reason)
                self._end(run, Outcome("failed", error=reason))
        elif run is None:
            return
        elif event.outcome is None:
            self.progress.reached(run, event.round, event.state)
        else:
            del self.at[event.worker]
            if event.outcome.status == "elsewhere":
                self.elsewhere.add(run)
                self.progress.put_back(run)
            elif event.outcome.status == "stopped":
                self.progress.put_back(run)
            else:
                self._end(run, event.outcome)
                if event.outcome.status == "failed" and self.fail_fast:
                    self._stop(crew)

    def _look_elsewhere(self) -> None:
        """See what became of the runs that other processes were at."""
        for run, state in self.store.states(self.elsewhere).items():
            if state.status != "running":
                self.elsewhere.discard(run)
            if state.status in ("completed", "failed"):
                self._end(run, Outcome(state.status, error=state.error))
            elif state.status != "running":
                self.waiting.append(run)

    def _end(self, run: str, outcome: Outcome, before: bool = False) -> None:
        self.outcomes[run] = outcome
        self.progress.ended(run, outcome, before)

    def _stop(self, crew: Crew) -> None:
        self.stopping = True
        crew.pause()

    @contextmanager
    def listening_to_signals(self) -> Iterator[None]:
        """Let a first Ctrl-C or SIGTERM end the rounds that are under way; a second one ends everything at once."""

        def caught(signum: int, frame: Any) -> None:
            if self.signum is not None:
                raise SystemExit(128 + signum)
            self.signum = signum  # ``work`` sees it in a moment; here a line to a worker might be half written

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {signum: signal.signal(signum, caught) for signum in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)
