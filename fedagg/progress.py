"""What a run shows while it runs: a bar on a terminal, otherwise one line a round."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fedagg.loop import Callback, Round

if TYPE_CHECKING:
    from fedagg.experiment import Experiment


class ShowProgress(Callback):
    """Show every finished round.

    Args:
        title: what is running.
        rounds: how many rounds there will be.
        f: Byzantine clients the strategy stands up to; a round with more is marked.
    """

    def __init__(self, title: str, rounds: int, f: int) -> None:
        self.title, self.rounds, self.f = title, rounds, f
        self._bar: Progress | None = None
        if sys.stdout.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[state]}"),
                TimeRemainingColumn(),
                console=Console(),
            )
            self._task = self._bar.add_task(title, total=rounds, state="")

    def __enter__(self) -> ShowProgress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def round_finished(self, done: Round) -> None:
        state = describe(done, self.f)
        if self._bar:
            self._bar.update(self._task, completed=done.round, state=state)
        else:
            print(f"{self.title}  round {done.round}/{self.rounds}  {state}", flush=True)


def watcher(stack: ExitStack, title: str, lines: Sequence[str]) -> Callable[[Experiment], list[Callback]]:
    """Return what prints the plan of an experiment, and these lines, and then shows its rounds until ``stack`` ends."""

    def watch(experiment: Experiment) -> list[Callback]:
        print("\n".join([*experiment.plan(), *lines]), flush=True)
        return [stack.enter_context(ShowProgress(title, experiment.cfg.rounds, experiment.f))]

    return watch


def describe(done: Round, f: int) -> str:
    """Return one round in a few words; ``f`` is what the strategy stands up to."""
    words = []
    for name in ("accuracy", "loss"):
        value, own = done.value("test", name), done.value("clients", f"{name}_mean")
        if value is not None:
            words.append(f"{name} {value:.4f}")
        elif own is not None:  # of models that the clients have and the server has not
            words.append(f"clients' {name} {own:.4f}")
    byzantine, asked = done.value("server", "byzantine"), done.value("server", "asked")
    if byzantine is not None and asked is not None:
        words.append(f"byzantine {byzantine:.0f}/{asked:.0f}" + (f" (more than f={f})" if byzantine > f else ""))
    for name in ("dropped", "late", "rejected", "sanitized", "client_errors"):
        count = done.value("server", name)
        if count:
            words.append(f"{name.replace('_', ' ')} {count:.0f}")
    words.append(f"{sum(done.seconds.values()):.2f} s")
    return "  ".join(words)
