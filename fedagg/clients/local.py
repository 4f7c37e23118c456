"""Local training: what happens to the parameters between receiving and sending a model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedagg.errors import ConfigError


@dataclass(frozen=True)
class LocalSGD:
    """Mini-batch SGD on the cross-entropy, the local solver of FedAvg (McMahan et al., AISTATS 2017, Algorithm 1).

    Every epoch visits the client's examples once, in a new random order, in batches of ``batch_size`` (the last may be
    smaller). A step is ``v <- momentum * v + g + weight_decay * y``, ``y <- y - lr * v``, with v = 0 at the start of a round.

    Args:
        epochs: passes over the client's data, E.
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

    def __post_init__(self) -> None:
        for name, value, bound in (("epochs", self.epochs, 1), ("batch_size", self.batch_size, 1)):
            if not isinstance(value, int) or value < bound:
                raise ConfigError(f"local.{name} must be an integer >= {bound}; got {value}")
        for name, rate in (("lr", self.lr), ("momentum", self.momentum), ("weight_decay", self.weight_decay)):
            if not isinstance(rate, int | float):
                raise ConfigError(f"local.{name} must be a number; got {rate}")
        if self.lr < 0 or not 0 <= self.momentum < 1 or self.weight_decay < 0:
            raise ConfigError(
                "local training needs lr >= 0, 0 <= momentum < 1 and weight_decay >= 0; "
                f"got lr={self.lr}, momentum={self.momentum}, weight_decay={self.weight_decay}"
            )

    def train(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> dict[str, float]:
        """Train ``model`` in place.

        Args:
            model: in training mode, on the device of ``x``.
            x: [m, ...] float, the client's examples, m >= 1.
            y: [m] int64, their classes.
            generator: CPU generator that orders the examples.

        Returns:
            ``loss``: the mean over the steps of the last epoch; ``local_steps``: how many steps were made in all.
        """
        params: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        velocity: list[Tensor] | None = None
        steps, losses = 0, list[Tensor]()
        for _ in range(self.epochs):
            order = torch.randperm(len(y), generator=generator).to(y.device)
            losses.clear()
            for batch in torch.split(order, self.batch_size):
                loss = functional.cross_entropy(model(x[batch]), y[batch])
                grads = list(torch.autograd.grad(loss, params))
                with torch.no_grad():
                    velocity = self._step(params, grads, velocity)
                losses.append(loss.detach())
                steps += 1
        return {"loss": float(torch.stack(losses).mean()), "local_steps": float(steps)}

    def _step(self, params: list[Tensor], grads: list[Tensor], velocity: list[Tensor] | None) -> list[Tensor] | None:
        if self.weight_decay:
            torch._foreach_add_(grads, params, alpha=self.weight_decay)
        if self.momentum:
            if velocity is None:
                velocity = grads
            else:
                torch._foreach_mul_(velocity, self.momentum)
                torch._foreach_add_(velocity, grads)
            grads = velocity
        torch._foreach_add_(params, grads, alpha=-self.lr)
        return velocity
