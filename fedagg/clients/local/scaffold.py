"""SCAFFOLD, the clients' half: every step is corrected by what sets the client's gradient apart from everybody's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedagg.clients.local.base import Memory, Sent
from fedagg.clients.local.sgd import LocalSGD
from fedagg.errors import ConfigError


@dataclass(frozen=True)
class Scaffold(LocalSGD):
    """Plain SGD whose gradients are corrected by control variates: c of the server, c_i of the client, zero at first.

        y <- y - lr * (g - c_i + c)
        c_i <- c_i - c + (w - y) / (K * lr)         after K steps from w ("option II")

    The change of c_i goes up beside the update, c comes down beside the model: d numbers more each way. The strategy must be
    ``strategies.SCAFFOLD``. Each client divides by its own number of steps.

    The formula for c_i holds for plain SGD alone, so momentum and weight decay are refused.

    Source: Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020, Algorithm 1.

    Args:
        epochs: see ``LocalSGD``.
        batch_size: see ``LocalSGD``.
        lr: > 0; see ``LocalSGD``.
        momentum: 0.
        weight_decay: 0.
        steps: see ``LocalSGD``.
    """

    keeps: ClassVar[tuple[str, ...]] = ("own_control",)
    receives: ClassVar[tuple[str, ...]] = ("control",)
    in_steps: ClassVar[tuple[str, ...]] = ("control", "own_control")
    server_half: ClassVar[str] = "SCAFFOLD"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.momentum or self.weight_decay or not self.lr > 0:
            raise ConfigError(
                "SCAFFOLD's control variates are mean gradients only where every step is plain SGD: it needs lr > 0, "
                f"momentum=0 and weight_decay=0; got lr={self.lr}, momentum={self.momentum}, weight_decay={self.weight_decay}"
            )

    def step(self, params: list[Tensor], grads: list[Tensor], memory: Memory) -> None:
        if "correction" not in memory:
            memory["correction"] = list(torch._foreach_sub(memory["control"], memory["own_control"]))
        super().step(params, list(torch._foreach_add(grads, memory["correction"])), memory)

    def send(self, sent: Sent, kept: Mapping[str, Tensor]) -> None:
        scale = (1 / (sent.steps * self.lr)).to(sent.rows)
        sent.extras["control"] = -torch.addcmul(sent.received["control"], scale[:, None], sent.rows)
        kept["own_control"].add_(sent.extras["control"])
