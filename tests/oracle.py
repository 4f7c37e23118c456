"""The 1-D oracle: two clients with quadratic losses, on which the rounds of an algorithm can be worked out by hand.

    F_1(w) = (w - 1)^2 / 2        gradient w - 1
    F_2(w) = (w + 1)^2            gradient 2 (w + 1)        the optimum of F_1 + F_2 is -1/3

The model is the number w, from 0. An example (a, b) has the loss a (w - b)^2 / 2, so a client that holds K equal examples and
takes one at a time makes K full-batch gradient steps.

    for executor, allowed in EXECUTORS.items():
        found = trajectory(Strategy(weighting=Uniform()), local(), rounds=2, executor=executor)
        assert found.w == pytest.approx([-0.085, -0.146625], abs=allowed)
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedagg import Clients, LocalGrid, LocalSGD, Population, Strategy, run
from fedagg.checkpoint import Checkpoints
from fedagg.clients.local import LocalTraining
from fedagg.contracts import REPORTS
from fedagg.data import Dataset
from fedagg.loop import Callback, Round

CURVATURES, CENTRES = (1.0, 2.0), (1.0, -1.0)  # a and b of the two clients
LR = 0.1
OPTIMUM = -1 / 3
EXECUTORS = {"one_at_a_time": 1e-12, "batched": 1e-12}  # and how far rounding may take them


class Number(nn.Module):
    """The model w; for examples [m, 2], rows (a, b), its "logits" are the rows (w - b, a)."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.w - x[:, 1], x[:, 0].to(self.w.dtype)], dim=1)


class Quadratic:
    """Mixed into local training, it makes the loss of an example a (w - b)^2 / 2."""

    def loss(self, logits: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        losses = logits[:, 1] * logits[:, 0].square() / 2
        return losses.mean() if mask is None else (losses * mask).sum() / mask.sum()


def local(kind: type[LocalTraining] = LocalSGD, **settings: Any) -> LocalTraining:
    """Return local training of any kind whose loss is quadratic: ``local(FedProx, mu=1.0)``."""
    made: LocalTraining = type(f"Quadratic{kind.__name__}", (Quadratic, kind), {})(**{"batch_size": 1, "lr": LR, **settings})
    return made


def population(steps: tuple[int, ...] = (2, 2)) -> Population:
    """Return the two clients; client i makes ``steps[i]`` steps an epoch."""
    examples = [[a, b] for a, b, k in zip(CURVATURES, CENTRES, steps, strict=True) for _ in range(k)]
    x, ends = np.asarray(examples, dtype=np.float32), np.cumsum((0, *steps))
    data = Dataset("two parabolas", x, np.zeros(len(x), int), x[:1], np.zeros(1, int), num_classes=2, source="typed in")
    return Population(data, [np.arange(start, end) for start, end in pairwise(ends)])


@dataclass
class Found:
    """Where a run went.

    Args:
        w: the model after each round.
        grid: with what clients remember.
        strategy: with its state.
    """

    w: list[float]
    grid: LocalGrid
    strategy: Strategy


def trajectory(
    strategy: Strategy,
    local: LocalTraining,
    *,
    rounds: int = 2,
    steps: tuple[int, ...] = (2, 2),
    executor: str = "one_at_a_time",
    resumed_in: Path | None = None,
) -> Found:
    """Return where ``strategy`` and ``local`` take w in ``rounds`` rounds.

    Args:
        strategy: of the server; is used up.
        local: what ``local`` made.
        rounds: how many.
        steps: K of each client and epoch.
        executor: a key of ``EXECUTORS``.
        resumed_in: a folder; the run is then broken off after round 1 and goes on, with new objects, from a checkpoint there.
    """

    def go(strategy: Strategy, watch: _Watch) -> LocalGrid:
        model = Number()
        reports = strategy.required & REPORTS
        clients = Clients(population(steps), model, local, seed=0, executor=executor, reports=reports)
        assert clients.engine.name == executor, clients.engine.why
        checkpoints = None if resumed_in is None else Checkpoints(resumed_in, every=1)
        grid = LocalGrid(clients)
        run(grid, strategy, model, rounds, evaluate_every=rounds, callbacks=[watch], checkpoints=checkpoints)
        return grid

    first, rest = _Watch(stop_after=1), _Watch()
    if resumed_in is not None:
        go(copy.deepcopy(strategy), first)
        assert len(first.w) == 1
    grid = go(strategy, rest)
    return Found(first.w + rest.w, grid, strategy)


class _Watch(Callback):
    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.w: list[float] = []

    def round_finished(self, done: Round) -> None:
        if done.round:
            self.w.append(float(done.arrays["w"].numpy()[0]))
        self.paused = done.round == self.stop_after
