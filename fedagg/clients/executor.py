"""Who runs local training: one client at a time, in one model whose memory is three flat vectors."""

from __future__ import annotations

import math
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedagg import rng
from fedagg.clients.dropout import seed_dropout
from fedagg.clients.local import LocalTraining
from fedagg.clients.network import Network
from fedagg.params import Layout, ModelState, SentState, State, Update
from fedagg.resident import ResidentModel

EVALUATION_BATCH = 2048
GROUP, GROUP_BYTES = 32, 1 << 22  # clients whose data are made at once: so many, if they take no more than so much


@dataclass
class Job:
    """One client's training in one round.

    Args:
        x: [m', ...] float, those of its m examples that it will see in this round.
        y: [m'] int64, their classes.
        batches: its steps in order: for each the rows of ``x`` that it sees.
        examples: m.
        noise: seed of everything else that is random, dropout for one.
        seen: name -> [d] or [b], what steps and objective see.
        start: parameters [d] and float buffers [b] to start from; None starts from what all receive.
    """

    x: Tensor
    y: Tensor
    batches: list[Tensor]
    examples: int
    noise: int
    seen: Mapping[str, Tensor] = field(default_factory=dict)
    start: tuple[Tensor, Tensor] | None = None

    def begin(self, received: State) -> State:
        """Return what this client starts from."""
        return received if self.start is None else ModelState(*self.start, received.int_buffers)


@dataclass
class Block:
    """What a cohort changed, one row per client: ``updates`` [n, d], ``float_buffers`` [n, b], ``int_buffers`` [n, c].

    ``base`` [d] are the parameters all of them received.
    """

    base: Tensor
    updates: Tensor
    float_buffers: Tensor
    int_buffers: Tensor

    @classmethod
    def over(cls, updates: Tensor, base: Tensor, layout: Layout) -> Block:
        """Return a block whose rows of parameters lie in ``updates`` [n, d], with fresh memory for the buffers."""
        n, device = len(updates), updates.device
        floats = torch.empty(n, layout.size("float_buffers"), dtype=layout.dtype("float_buffers"), device=device)
        integers = torch.empty(n, layout.size("int_buffers"), dtype=torch.int64, device=device)
        return cls(base, updates, floats, integers)

    def below(self, row: int) -> Block:
        """Return the block without its first rows."""
        return Block(self.base, self.updates[row:], self.float_buffers[row:], self.int_buffers[row:])

    def places(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return where the i-th client's row and buffers are to be written."""
        return self.updates[i], self.float_buffers[i], self.int_buffers[i]

    def sent(self, i: int, finite: bool) -> SentState:
        """Return what the i-th client sends, without a copy."""
        return SentState(self.base, Update(self.updates[i], finite), self.float_buffers[i], self.int_buffers[i])


@dataclass
class Outcome:
    """How one client's training ended.

    Args:
        client: its id.
        num_examples: how many it trained on.
        metrics: what it reports beside its row; None if it failed.
        finite: whether its row is.
        error: the traceback of what it raised.
    """

    client: int
    num_examples: int = 0
    metrics: dict[str, float] | None = None
    finite: bool = True
    error: str = ""


Jobs = Callable[[Sequence[int]], list[Job]]
"""Makes the jobs of some clients, in their order; may be called again for the same client and then makes the same job."""


def made(jobs: Jobs, clients: Sequence[int]) -> tuple[dict[int, Job], dict[int, str]]:
    """Return the jobs of some clients, made at once if possible, and the tracebacks of those that cannot be made."""
    try:
        return dict(zip(clients, jobs(clients), strict=True)), {}
    except Exception:
        done, errors = dict[int, Job](), dict[int, str]()
        for client in clients:
            try:
                (done[client],) = jobs([client])
            except Exception:
                errors[client] = traceback.format_exc()
        return done, errors


class Executor(ABC):
    """Trains the clients of a cohort, and evaluates."""

    layout: Layout
    device: torch.device

    @abstractmethod
    def train(self, state: State, local: LocalTraining, clients: Sequence[int], jobs: Jobs, into: Block) -> Iterable[Outcome]:
        """Train ``clients`` from ``state`` and yield how each ended, in this order.

        The j-th client that does not raise fills row j of ``into``.
        """

    @abstractmethod
    def evaluate(self, state: State, x: Tensor, y: Tensor) -> dict[str, float]:
        """Return mean cross-entropy and accuracy of ``state`` on ``x, y``; NaN for an empty set."""


class OneAtATime(Executor):
    """Train and evaluate one client after another, in place.

    Args:
        model: the architecture.
        device: where to compute.
        precision: what the forward pass computes in; parameters, gradients and losses are float32 either way.
    """

    def __init__(self, model: nn.Module, device: torch.device, precision: torch.dtype = torch.float32) -> None:
        self.device = device
        self.resident = ResidentModel(model, device)
        self.noise = seed_dropout(self.resident.module)
        self.network = Network(self.resident, partial(autocast, device=device, precision=precision))
        self._forward = self.network.forward
        self.layout = self.resident.layout

    def train(self, state: State, local: LocalTraining, clients: Sequence[int], jobs: Jobs, into: Block) -> Iterable[Outcome]:
        # After a training nothing else is in the processor's caches, not even code. What can be done for a group of clients
        # before they train, or after, is done there: it is several times as quick as between two of them.
        base, row, start, size = into.base.to(self.device), 0, 0, 1
        self.resident.module.train()
        while start < len(clients):
            group, done = clients[start : start + size], list[tuple[int, list[Tensor]]]()
            work, errors = made(jobs, group)
            for client, job in work.items():
                try:
                    losses = self._train(state, local, job)
                    self.resident.store_update(base, *into.places(row + len(done)))
                except Exception:
                    errors[client] = traceback.format_exc()
                else:
                    done.append((client, losses))
            summaries = {client: local.summary(torch.stack(losses).tolist()) for client, losses in done}
            finite = {client: Update.checked(into.updates[row + i]).finite for i, (client, _) in enumerate(done)}
            for client in group:
                if client in errors:
                    yield Outcome(client, error=errors[client])
                else:
                    yield Outcome(client, work[client].examples, summaries[client], finite[client])
            start, row = start + len(group), row + len(done)
            size = max(1, min(GROUP, GROUP_BYTES // max([1, *(job.x.nbytes for job in work.values())])))

    def _train(self, state: State, local: LocalTraining, job: Job) -> list[Tensor]:
        self.resident.load(job.begin(state))
        rng.seed_torch(job.noise)
        self.network.forward = self.noise.during(job.noise, self._forward) if self.noise else self._forward
        seen = laid_out(self.resident, local, {name: vector.to(self.device) for name, vector in job.seen.items()})
        x, y = job.x.to(self.device), job.y.to(self.device)
        return local.train(self.network, self.resident.params, x, y, [rows.to(self.device) for rows in job.batches], seen)

    def evaluate(self, state: State, x: Tensor, y: Tensor) -> dict[str, float]:
        if len(y) == 0:
            return {"loss": math.nan, "accuracy": math.nan}
        self.resident.load(state)
        self.resident.module.eval()
        loss, correct = 0.0, 0
        with torch.inference_mode():
            for start in range(0, len(y), EVALUATION_BATCH):
                batch = slice(start, start + EVALUATION_BATCH)
                logits, target = self._forward(x[batch].to(self.device)), y[batch].to(self.device)
                loss += float(functional.cross_entropy(logits, target, reduction="sum"))
                correct += int((logits.argmax(dim=1) == target).sum())
        return {"loss": loss / len(y), "accuracy": correct / len(y)}


def laid_out(resident: ResidentModel, local: LocalTraining, vectors: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
    """Return what steps see, [..., d] each, as tensors like the model's parameters, and buffers [..., b] as they are."""
    return {name: [rows] if name in local.buffers_in_steps else resident.views(rows) for name, rows in vectors.items()}


def autocast(forward: Callable[..., Tensor], device: torch.device, precision: torch.dtype) -> Callable[..., Tensor]:
    """Return a forward pass that computes in ``precision`` where torch thinks it safe; its outputs are float32."""
    if precision == torch.float32:
        return forward

    def lower(*args: Any) -> Tensor:
        with torch.autocast(device.type, precision, cache_enabled=False):
            return forward(*args).float()

    return lower
