"""What stands in a store: for a look beforehand, and while another process works."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from fedagg.study.plan import Study
from fedagg.study.progress import duration
from fedagg.study.resolve import resolve
from fedagg.study.run import entries, shape
from fedagg.study.store import Entry, State, Store

SHOWN = ("running", "stopped", "failed", "unreadable")  # the others are only counted


def dry_run(study: Study) -> list[str]:
    """Return, as lines, the runs that a study would make, how far each is, and what the rest will cost."""
    planned = resolve(study, study.jobs())
    workers, threads = shape(study, planned)
    listed, store = entries(study, planned), Store(study.store)
    states = store.states(entry.run for entry in listed)
    lines = _head(study.name, study.question, store, listed, states)
    lines += [f"workers   {workers} of {threads} thread{'s' if threads != 1 else ''}, {study.launcher}"]
    return [*lines, f"cost      {_cost(store, listed, states, workers)}", "", *_table(listed, states)]


def status(store: Store) -> list[str]:
    """Return, as lines, how far a study is and what is running or has failed.

    Raises:
        ConfigError: there is no study in the store.
    """
    manifest, listed = store.manifest(), store.entries()
    states = store.states(entry.run for entry in listed)
    lines = _head(manifest["name"], manifest["question"], store, listed, states)
    running = sum(state.status == "running" for state in states.values())
    if running:
        lines.append(f"cost      {_cost(store, listed, states, running)}")
    shown = [entry for entry in listed if states[entry.run].status in SHOWN]
    return [*lines, "", *_table(shown, states)] if shown else lines


def _head(name: str, question: str, store: Store, listed: Sequence[Entry], states: dict[str, State]) -> list[str]:
    counts = Counter(state.status for state in states.values())
    words = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    jobs = f", for {len(listed)} places on the axes" if len(listed) != len(states) else ""
    title = f"study     {name}" + (f": {question}" if question else "")
    return [title, f"store     {store.folder}", f"runs      {len(states)}{jobs}: {words}"]


def _table(listed: Iterable[Entry], states: dict[str, State]) -> list[str]:
    lines = [f"{'run':<12}  {'status':<10}  {'round':>11}  job"]
    for entry in listed:
        state = states[entry.run]
        lines.append(f"{entry.run:<12}  {state.status:<10}  {f'{state.round}/{entry.rounds}':>11}  {entry.title}")
        if state.error:
            lines.append(f"{'':<12}  {state.error.strip().splitlines()[0]}")
    return lines


def _cost(store: Store, listed: Sequence[Entry], states: dict[str, State], workers: int) -> str:
    """Say how long the rest takes, if a round of it takes what it took in the runs that are complete."""
    rounds = {entry.run: entry.rounds for entry in listed}
    done = {run for run, state in states.items() if state.status == "completed"}
    left = sum(rounds[run] - state.round for run, state in states.items() if state.status not in ("completed", "failed"))
    if not left:
        return "nothing left to run"
    spent = [seconds for run in done if (seconds := _seconds(store.directory(run))) is not None]
    if not spent:
        return f"{left:,} rounds to run; how long they take is known once a run of the study is complete"
    seconds = left * sum(spent) / sum(rounds[run] for run in done) / workers
    runs = "the run that is" if len(done) == 1 else f"the {len(done)} runs that are"
    return f"{left:,} rounds to run, about {duration(seconds)} with {workers} at a time, as in {runs} complete"


def _seconds(directory: Path) -> float | None:
    """Return the seconds a run spent in its rounds."""
    try:
        with open(directory / "timing.csv", newline="", encoding="utf-8") as file:
            return sum(float(row["seconds"]) for row in csv.DictReader(file))
    except (OSError, KeyError, TypeError, ValueError):
        return None
