"""FedProx: a proximal term keeps clients near the model they received."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedagg.clients.local.base import Memory
from fedagg.clients.local.sgd import LocalSGD, coefficient_sum
from fedagg.errors import ConfigError


@dataclass(frozen=True)
class FedProx(LocalSGD):
    """Local SGD on the loss plus (mu / 2) ||y - w||^2, where w is the model that the client received.

    The gradient gains mu (y - w). Any strategy goes with it. The loss that clients report is without the proximal term.

    Source: Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, Algorithm 2. ``steps`` gives the partial
    work of the paper's stragglers.

    Args:
        epochs: see ``LocalSGD``.
        batch_size: see ``LocalSGD``.
        lr: see ``LocalSGD``.
        momentum: see ``LocalSGD``; the proximal term goes through it.
        weight_decay: see ``LocalSGD``.
        steps: see ``LocalSGD``.
        mu: strength of the proximal term; 0 is ``LocalSGD``, to the bit.
    """

    in_steps: ClassVar[tuple[str, ...]] = ("received",)

    mu: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.mu, int | float) or self.mu < 0:
            raise ConfigError(f"local.mu must be a number >= 0; got {self.mu}")

    def step(self, params: list[Tensor], grads: list[Tensor], memory: Memory) -> None:
        if self.mu:
            drift = torch._foreach_sub(params, memory["received"])
            grads = list(torch._foreach_add(grads, drift, alpha=self.mu))
        super().step(params, grads, memory)

    def a_norm(self, steps: int) -> float:
        """Return (1 - (1 - lr mu)^K) / (lr mu) for plain steps with lr mu <= 1; see ``LocalSGD``."""
        return coefficient_sum(steps, self.momentum, self.lr * self.mu)
