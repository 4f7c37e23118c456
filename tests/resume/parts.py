"""What tests of resuming share: a crash on demand, plug-ins that remember something, and worlds made anew as after a crash."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Strategy as FlowerStrategy
from torch import Tensor, nn

from fedagg import Attack, Callback, Cohort, PreAggregator, Rule, Weighting, run
from fedagg.checkpoint import Checkpoints
from fedagg.grid import SimulationGrid
from fedagg.loop import Result, Round

Plain = dict[str, Any]


class Killed(BaseException):
    """The process dies here: nothing catches this, and nothing is written because of it."""


@dataclass
class KillAfter(Callback):
    """Dies when round ``last`` is finished, before its checkpoint."""

    last: int

    def round_finished(self, done: Round) -> None:
        if done.round == self.last:
            raise Killed


def bytes_of(arrays: ArrayRecord) -> dict[str, bytes]:
    return {name: array.numpy().tobytes() for name, array in arrays.items()}


def exact(result: Result) -> tuple[dict[str, bytes], list[tuple[Any, ...]], int, bool]:
    """Everything about a result, to the bit: NaN equals itself here, and -0.0 is not 0.0."""
    rows = [(*row[:4], struct.pack("d", row[4])) for row in result.rows]
    return bytes_of(result.arrays), rows, result.rounds, result.stopped_early


@dataclass
class World:
    """How to make everything that a run needs, as often as processes begin."""

    grid: Callable[[], SimulationGrid]
    strategy: Callable[[], FlowerStrategy]
    model: nn.Module | ArrayRecord
    callbacks: Callable[[], Sequence[Callback]] = tuple
    rounds: int = 6
    settings: Plain | None = None

    def run(self, checkpoints: Checkpoints | None = None, kill_after: int | None = None) -> Result:
        callbacks = [*self.callbacks(), *([] if kill_after is None else [KillAfter(kill_after)])]
        return run(
            self.grid(),
            self.strategy(),
            self.model,
            self.rounds,
            seed=3,
            callbacks=callbacks,
            checkpoints=checkpoints,
            **(self.settings or {}),
        )

    def killed_and_resumed(self, folder: Path, kill_after: Sequence[int] = (5,), every: int = 2) -> Result:
        """Die after each of these rounds, a new process each time, and then run to the end."""
        for last in kill_after:
            try:
                self.run(Checkpoints(folder, every=every), last)
            except Killed:
                continue
            raise AssertionError("it outlived its death")
        return self.run(Checkpoints(folder, every=every))


class Momentum(Rule):
    """The mean with a memory of earlier means."""

    def __init__(self) -> None:
        self.memory: Tensor | None = None

    def __call__(self, updates: Tensor, weights: Tensor | None = None) -> Tensor:
        mean = updates.mean(0)
        self.memory = mean if self.memory is None else 0.5 * self.memory + mean
        return self.memory

    def state_dict(self) -> Plain:
        return {"memory": self.memory}

    def load_state_dict(self, state: Plain) -> None:
        self.memory = state["memory"]

    def reset(self) -> None:
        self.memory = None


class WeightedMomentum(Momentum):
    """The same over weighted rows."""

    uses_weights = True

    def __call__(self, updates: Tensor, weights: Tensor | None = None) -> Tensor:
        assert weights is not None
        return super().__call__(updates * weights[:, None].to(updates.dtype))


class SeenOften(Weighting):
    """Clients count the more the oftener they came: state by client id."""

    def __init__(self) -> None:
        self.times: dict[int, int] = {}

    def __call__(self, cohort: Cohort) -> Tensor:
        for client in cohort.client_ids:
            self.times[client] = self.times.get(client, 0) + 1
        weights = torch.tensor([float(self.times[client]) for client in cohort.client_ids], dtype=torch.float64)
        return weights / weights.sum()

    def state_dict(self) -> Plain:
        return {"times": dict(self.times)}

    def load_state_dict(self, state: Plain) -> None:
        self.times = dict(state["times"])

    def reset(self) -> None:
        self.times = {}


class Pulling(PreAggregator):
    """Pulls every row towards the mean row of the round before."""

    def __init__(self) -> None:
        self.before: Tensor | None = None

    def __call__(self, updates: Tensor) -> Tensor:
        mixed = updates if self.before is None else 0.5 * (updates + self.before)
        self.before = updates.mean(0)
        return mixed

    def state_dict(self) -> Plain:
        return {"before": self.before}

    def load_state_dict(self, state: Plain) -> None:
        self.before = state["before"]

    def reset(self) -> None:
        self.before = None


class Grudge(Attack):
    """Undoes the step that the server took last, the harder the longer the run: state of its own, and the adversary's."""

    def __init__(self) -> None:
        self.anger = 0.0

    def __call__(self, honest: Tensor, f: int, *, last_delta: Tensor | None = None, **known: Any) -> Tensor:
        self.anger += 0.25
        row = -honest.mean(0) if last_delta is None else -self.anger * last_delta
        return row.expand(f, -1)

    def state_dict(self) -> Plain:
        return {"anger": self.anger}

    def load_state_dict(self, state: Plain) -> None:
        self.anger = state["anger"]

    def reset(self) -> None:
        self.anger = 0.0


class EnoughSeen(Callback):
    """Ends the run when it has been told of so many rounds, the initial model among them."""

    def __init__(self, rounds: int) -> None:
        self.rounds, self.seen = rounds, 0

    def round_finished(self, done: Round) -> bool:
        self.seen += 1
        return self.seen >= self.rounds

    def state_dict(self) -> Plain:
        return {"seen": self.seen}

    def load_state_dict(self, state: Plain) -> None:
        self.seen = state["seen"]


class Turns:
    """Participation in turns, counted by hand: who comes depends on how often somebody asked, not on the round."""

    def __init__(self, num_clients: int) -> None:
        self.asked, self.n = 0, num_clients

    def available(self, round: int) -> Tensor:
        self.asked += 1
        return (torch.arange(self.n) + self.asked) % 3 != 0

    def state_dict(self) -> Plain:
        return {"asked": self.asked}

    def load_state_dict(self, state: Plain) -> None:
        self.asked = state["asked"]


remembering = ClientApp()


@remembering.train()
def _train(message: Message, context: Context) -> Message:
    """Move towards the client's own number, with a momentum that lives in the context."""
    arrays: ArrayRecord = message.content["arrays"]  # type: ignore[assignment]
    visits = context.state.get("visits")
    count = 1 + (int(visits["count"]) if isinstance(visits, MetricRecord) else 0)  # type: ignore[arg-type]
    before = context.state.get("momentum")
    moved, momentum = ArrayRecord(), ArrayRecord()
    for name, array in arrays.items():
        step = 0.1 * (int(context.node_config["partition-id"]) + count - array.numpy())
        if isinstance(before, ArrayRecord):
            step = step + 0.5 * before[name].numpy()
        momentum[name] = Array(step)
        moved[name] = Array((array.numpy() + step).astype("float32"))
    context.state["visits"], context.state["momentum"] = MetricRecord({"count": count}), momentum
    return Message(RecordDict({"arrays": moved, "metrics": MetricRecord({"num-examples": count})}), reply_to=message)
