"""Edge-popup, the clients' half of Federated Rank Learning: train scores of fixed weights, and send how they rank."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from fedagg.clients.local.base import LocalTraining, Memory, Sent
from fedagg.clients.local.sgd import LocalSGD
from fedagg.contracts import Payload
from fedagg.errors import ConfigError
from fedagg.models.supermask import supermask
from fedagg.params import Layout, ModelState
from fedagg.rankings import NOT_RANKED, checked_sparsity, frl_rank, importance


@dataclass(frozen=True)
class EdgePopup(LocalTraining):
    """SGD on the scores of a network whose weights never change; a client sends one ranking of each layer's edges.

    The model becomes a ``supermask``: its parameters are the scores. A step is that of ``LocalSGD`` at the rate

        lr * lr_decay^(round - 1) * (1 + cos(pi e / epochs)) / 2        in epoch e = 0, 1, ... of the round,

    with momentum that does not outlive the round. Up go the rankings alone, no scores. Down come those that were elected;
    along them every client hands out the initial scores, which it knows from the seed. Where training has diverged, -1 goes up
    in place of every edge, which the server takes for a reply that is not finite. The strategy must be ``strategies.FRL``.

    Source: Mozaffari, Shejwalkar, Houmansadr, "Every Vote Counts: Ranking-Based Training of Federated Learning to Resist
    Poisoning Attacks", USENIX Security 2023.

    Args:
        sparsity: the fraction of each layer's edges that is *kept*, in (0, 1].
        rank_by: rank scores as they are ("signed") or by magnitude ("abs"); the latter learns little, see ``FRL``.
        mask_by: keep edges of largest magnitude ("abs") or of largest score ("signed").
        epochs: passes over the client's data; the paper's are 5 for CIFAR-10 and 2 for MNIST.
        batch_size: examples per step.
        lr: learning rate of the first epoch of the first round.
        lr_decay: factor on it from round to round, > 0.
        momentum: 0 is plain SGD.
        weight_decay: coefficient of the L2 term on scores.
    """

    payload: ClassVar[Payload] = "rankings"
    buffers_in_steps: ClassVar[tuple[str, ...]] = ("round", "steps")
    server_half: ClassVar[str] = "FRL"

    sparsity: float = 0.5
    rank_by: str = "signed"
    mask_by: str = "abs"
    epochs: int = 5
    batch_size: int = 8
    lr: float = 0.4
    lr_decay: float = 0.999
    momentum: float = 0.9
    weight_decay: float = 1e-4
    _layout: Layout | None = field(default=None, init=False, repr=False, compare=False)
    _values: Tensor | None = field(default=None, init=False, repr=False, compare=False)  # [d], initial scores, sorted by layer

    def __post_init__(self) -> None:
        checked_sparsity(self.sparsity)
        importance(torch.empty(0), "rank_by", self.rank_by)
        importance(torch.empty(0), "mask_by", self.mask_by)
        if not isinstance(self.lr_decay, int | float) or not 0 < self.lr_decay < math.inf:
            raise ConfigError(f"local.lr_decay must be a number > 0; got {self.lr_decay}")
        self._solver()

    def _solver(self) -> LocalSGD:
        return LocalSGD(
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )

    def trains(self, model: nn.Module, seed: int) -> nn.Module:
        """Return the supermask of ``model``."""
        return supermask(model, self.sparsity, self.mask_by, seed=seed)

    def prepared(self, model: nn.Module, layout: Layout) -> Self:
        ready = copy.copy(self)
        scores = layout.gather(model).params
        values = torch.cat([scores[layer].sort().values for layer in layout.layers()])
        object.__setattr__(ready, "_layout", layout)
        object.__setattr__(ready, "_values", values)
        return ready

    def rebuild(self, rankings: Tensor) -> ModelState:
        """Return the initial scores, handed out along ``rankings`` [d] layer by layer."""
        assert self._layout is not None
        assert self._values is not None
        values = self._values.to(rankings.device)
        state = self._layout.empty(rankings.device)
        for layer in self._layout.layers():
            state.params[layer][rankings[layer].long()] = values[layer]
        return state

    def batches(self, m: int, generator: torch.Generator) -> list[Tensor]:
        return self._solver().batches(m, generator)

    def step(self, params: list[Tensor], grads: list[Tensor], memory: Memory) -> None:
        (steps,), (round,) = memory["steps"], memory["round"]
        made = memory.setdefault("made", [torch.zeros_like(steps)])[0]
        epoch = (made * self.epochs // steps).double()
        rate = self.lr * self.lr_decay ** (round - 1).double() * (1 + torch.cos(math.pi * epoch / self.epochs)) / 2
        made += 1
        for values, velocity in zip(params, self._solver().direction(params, grads, memory), strict=True):
            clients = rate.shape[:-1]  # of one client there is no such dimension
            values.addcmul_(velocity, rate.to(values).view(*clients, *[1] * (values.ndim - len(clients))), value=-1)

    def send(self, sent: Sent, kept: Mapping[str, Tensor]) -> None:
        assert self._layout is not None
        rankings = torch.empty_like(sent.rows, dtype=torch.int32)
        for row, into in zip(sent.rows, rankings, strict=True):
            scores = sent.model.params + row
            if not scores.isfinite().all():  # an order of them would be a vote like any other
                into.fill_(NOT_RANKED)
                continue
            for layer in self._layout.layers():
                into[layer] = frl_rank(scores[layer], self.rank_by)
        sent.extras["rankings"] = rankings
