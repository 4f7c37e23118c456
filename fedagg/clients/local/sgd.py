"""Mini-batch SGD, the local solver of FedAvg."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedagg.clients.local.base import LocalTraining, Memory
from fedagg.errors import ConfigError


@dataclass(frozen=True)
class LocalSGD(LocalTraining):
    """Mini-batch SGD on the cross-entropy, the local solver of FedAvg (McMahan et al., AISTATS 2017, Algorithm 1).

    Every epoch visits the client's examples once, in a new random order, in batches of ``batch_size`` (the last may be
    smaller). A step is ``v <- momentum * v + g + weight_decay * y``, ``y <- y - lr * v``, with v = 0 at the start of a round.

    Args:
        epochs: passes over the client's data, E.
        steps: end after so many steps of these epochs, K; None makes them all. 1 is distributed SGD: one batch, one step.
        batch_size: examples per step, B.
        lr: learning rate.
        momentum: 0 is plain SGD; the buffer does not outlive the round.
        weight_decay: coefficient of the L2 term.
    """

    epochs: int = 1
    batch_size: int = 32
    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    steps: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("epochs", self.epochs), ("batch_size", self.batch_size), ("steps", self.steps)):
            if (value is not None or name != "steps") and (not isinstance(value, int) or value < 1):
                raise ConfigError(f"local.{name} must be an integer >= 1{', or null' * (name == 'steps')}; got {value}")
        for name, rate in (("lr", self.lr), ("momentum", self.momentum), ("weight_decay", self.weight_decay)):
            if not isinstance(rate, int | float):
                raise ConfigError(f"local.{name} must be a number; got {rate}")
        if self.lr < 0 or not 0 <= self.momentum < 1 or self.weight_decay < 0:
            raise ConfigError(
                "local training needs lr >= 0, 0 <= momentum < 1 and weight_decay >= 0; "
                f"got lr={self.lr}, momentum={self.momentum}, weight_decay={self.weight_decay}"
            )

    def batches(self, m: int, generator: torch.Generator) -> list[Tensor]:
        orders = (torch.randperm(m, generator=generator) for _ in range(self.epochs))
        return [batch for order in orders for batch in torch.split(order, self.batch_size)][: self.steps]

    def step(self, params: list[Tensor], grads: list[Tensor], memory: Memory) -> None:
        torch._foreach_add_(params, self.direction(params, grads, memory), alpha=-self.lr)

    def direction(self, params: list[Tensor], grads: list[Tensor], memory: Memory) -> list[Tensor]:
        """Return what a step multiplies by the learning rate, see ``step``; only to be read."""
        if self.weight_decay:
            grads = list(torch._foreach_add(grads, params, alpha=self.weight_decay))
        if self.momentum:
            if "velocity" in memory:
                torch._foreach_mul_(memory["velocity"], self.momentum)
                torch._foreach_add_(memory["velocity"], grads)
            else:
                memory["velocity"] = [grad.clone() for grad in grads]
            grads = memory["velocity"]
        return grads

    def a_norm(self, steps: int) -> float:
        """Return the sum of the coefficients with which ``steps`` steps add up their gradients, in units of the learning rate.

        Plain SGD has K, momentum m has (K - m (1 - m^K) / (1 - m)) / (1 - m). The L2 term counts as part of the loss.
        """
        return coefficient_sum(steps, self.momentum)


def coefficient_sum(steps: int, momentum: float, pull: float = 0.0) -> float:
    """Return the sum of the absolute coefficients with which heavy-ball steps add up gradients, in units of the learning rate.

    A gradient of 1 at some step, and 0 at all others, has moved the parameters by the coefficient it has after as many steps
    as follow; so it is enough to watch one for K steps.

    Args:
        steps: K >= 0.
        momentum: m.
        pull: learning rate times strength of a proximal term, which draws the parameters back to where they were.
    """
    velocity, moved, total = 0.0, 0.0, 0.0
    for step in range(steps):
        velocity = momentum * velocity - pull * moved + (step == 0)
        moved += velocity
        total += abs(moved)
    return total
