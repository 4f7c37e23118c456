"""MOON: features should be like those of the received model, and unlike those of the client's last one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedagg.clients.local.base import Seen, Sent
from fedagg.clients.local.sgd import LocalSGD
from fedagg.clients.network import Network, head
from fedagg.errors import ConfigError
from fedagg.params import Layout, State


@dataclass(frozen=True)
class Moon(LocalSGD):
    """Local SGD on the loss plus mu times the mean over the batch of

        -log( exp(cos(z, z_glob) / T) / (exp(cos(z, z_glob) / T) + exp(cos(z, z_prev) / T)) ),

    where z is what enters the model's last linear layer, for the model that is trained, the one that was received, and the one
    with which the client ended the last time it took part (before its first time: the received one, so the term is log 2).
    The two others compute in evaluation mode, each with its own buffers, and get no gradient. Any strategy goes with it. The
    loss that clients report contains the term. A step costs three forward passes instead of one.

    Source: Li, He, Song, "Model-Contrastive Federated Learning", CVPR 2021. There a projection head of two layers, 256 wide,
    makes z; here it is the model's own last hidden layer, as in several later comparisons.

    Args:
        epochs: see ``LocalSGD``.
        batch_size: see ``LocalSGD``.
        lr: see ``LocalSGD``.
        momentum: see ``LocalSGD``.
        weight_decay: see ``LocalSGD``.
        steps: see ``LocalSGD``.
        mu: strength of the term; 0 is ``LocalSGD``, to the bit.
        temperature: T > 0.
    """

    keeps: ClassVar[tuple[str, ...]] = ("previous", "previous_buffers")
    in_steps: ClassVar[tuple[str, ...]] = ("received", "previous")
    buffers_in_steps: ClassVar[tuple[str, ...]] = ("received_buffers", "previous_buffers")

    mu: float = 1.0
    temperature: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.mu, int | float) or self.mu < 0:
            raise ConfigError(f"local.mu must be a number >= 0; got {self.mu}")
        if not isinstance(self.temperature, int | float) or not self.temperature > 0:
            raise ConfigError(f"local.temperature must be a number > 0; got {self.temperature}")

    def prepared(self, model: nn.Module, layout: Layout) -> Self:
        last = {id(parameter) for parameter in head(model).parameters()}
        if all(id(parameter) in last for parameter in model.parameters() if parameter.requires_grad):
            raise ConfigError(
                "MOON compares what enters the last linear layer, and this model trains nothing before it; "
                "take a model with a hidden layer, model=mlp for one"
            )
        return self

    def first(self, state: State) -> dict[str, Tensor]:
        """Return the received model."""
        return {"previous": state.params, "previous_buffers": state.float_buffers}

    def objective(
        self, network: Network, params: list[Tensor], x: Tensor, y: Tensor, mask: Tensor | None, seen: Seen
    ) -> Tensor:
        if not self.mu:
            return super().objective(network, params, x, y, mask, seen)
        z, logits = network.features(params, x)
        glob, previous = (network.frozen(seen[name], seen[f"{name}_buffers"][0], x) for name in ("received", "previous"))
        terms = contrast(z, glob, previous, self.temperature)
        term = terms.mean() if mask is None else (terms * mask).sum() / mask.sum()
        return self.loss(logits, y, mask) + self.mu * term

    def send(self, sent: Sent, kept: Mapping[str, Tensor]) -> None:
        torch.add(sent.model.params, sent.rows, out=kept["previous"])
        kept["previous_buffers"].copy_(sent.float_buffers)


def contrast(z: Tensor, glob: Tensor, previous: Tensor, temperature: float) -> Tensor:
    """Return MOON's term of each example, [b], for features [b, ...] of the three models."""
    near, far = (functional.cosine_similarity(z.flatten(1), other.flatten(1)) for other in (glob, previous))
    return functional.softplus((far - near) / temperature)
