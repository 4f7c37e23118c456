"""FedDyn, the clients' half: a linear term makes each client's optimum, with the proximal term, that of all."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from fedagg.clients.local.base import Memory, Sent
from fedagg.clients.local.sgd import LocalSGD
from fedagg.errors import ConfigError
from fedagg.params import Layout


@dataclass(frozen=True)
class FedDyn(LocalSGD):
    """Local SGD on the loss plus -<g_i, y> + (alpha / 2) ||y - w||^2, where w is the model that the client received.

    The gradient gains -g_i + alpha (y - w); after training g_i <- g_i - alpha (y - w), zero at first. The strategy must be
    ``strategies.FedDyn``. The loss that clients report is without both terms.

    Where few clients take part in a round it diverges easily; published benchmarks use alpha = 0.01 and clip_norm = 10.

    Source: Acar et al., "Federated Learning Based on Dynamic Regularization", ICLR 2021, Algorithm 1.

    Args:
        epochs: see ``LocalSGD``.
        batch_size: see ``LocalSGD``.
        lr: see ``LocalSGD``.
        momentum: see ``LocalSGD``; both terms go through it.
        weight_decay: see ``LocalSGD``.
        steps: see ``LocalSGD``.
        alpha: > 0, strength of the proximal term.
        clip_norm: longest gradient, both terms included, before weight decay and momentum; None clips nothing.
    """

    keeps: ClassVar[tuple[str, ...]] = ("gradient",)
    in_steps: ClassVar[tuple[str, ...]] = ("received", "gradient")
    server_half: ClassVar[str] = "FedDyn"

    alpha: float = 0.01
    clip_norm: float | None = None
    _dims: int | None = field(default=None, init=False, repr=False, compare=False)  # of the model's first parameter

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.alpha, int | float) or not self.alpha > 0:
            raise ConfigError(f"local.alpha must be a number > 0; got {self.alpha}")
        if self.clip_norm is not None and (not isinstance(self.clip_norm, int | float) or not self.clip_norm > 0):
            raise ConfigError(f"local.clip_norm must be a number > 0, or null; got {self.clip_norm}")

    def prepared(self, model: nn.Module, layout: Layout) -> Self:
        ready = copy.copy(self)
        trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
        object.__setattr__(ready, "_dims", next(trained).dim())
        return ready

    def step(self, params: list[Tensor], grads: list[Tensor], memory: Memory) -> None:
        drift = torch._foreach_sub(params, memory["received"])
        grads = list(torch._foreach_add(grads, drift, alpha=self.alpha))
        torch._foreach_sub_(grads, memory["gradient"])
        if self.clip_norm is not None:
            clip(grads, self.clip_norm, grads[0].dim() - (grads[0].dim() if self._dims is None else self._dims))
        super().step(params, grads, memory)

    def send(self, sent: Sent, kept: Mapping[str, Tensor]) -> None:
        kept["gradient"].sub_(sent.rows, alpha=self.alpha)

    def a_norm(self, steps: int) -> float:
        raise ConfigError("FedDyn's steps add a term of earlier rounds to every gradient, so FedNova cannot divide by a_norm")


def clip(grads: list[Tensor], longest: float, lead: int) -> None:
    """Scale gradients in place so that none is longer than ``longest``.

    Args:
        grads: of the model's parameters together.
        longest: > 0.
        lead: how many dimensions stand before those of the parameters: 0 for one client, 1 for a batch of clients.
    """
    lengths = torch.stack([torch.linalg.vector_norm(grad.flatten(lead), dim=-1) for grad in grads]).norm(dim=0)
    scale = (longest / lengths).clamp(max=1.0)
    for grad in grads:
        grad.mul_(scale.view(*scale.shape, *[1] * (grad.dim() - lead)))
