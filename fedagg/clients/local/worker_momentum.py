"""Momentum that belongs to the client and outlives the round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from fedagg.clients.local.base import Sent
from fedagg.clients.local.sgd import LocalSGD
from fedagg.errors import ConfigError


@dataclass(frozen=True)
class WorkerMomentum(LocalSGD):
    """Send a momentum that outlives the round instead of the update itself.

    With g what local SGD changed in this round and m what the client sent the last time (zero before its first),

        m <- beta * m + g                   form="heavy_ball"
        m <- beta * m + (1 - beta) * g      form="ema"

    is remembered and sent; the server needs no momentum then. With ``steps=1`` and the plain mean this is distributed SGD with
    heavy-ball momentum. Its updates are up to 1 / (1 - beta) times as long: lower ``lr`` accordingly, and mind that a fixed
    clipping radius means something else.

    Source: Karimireddy, He, Jaggi, "Learning from History for Byzantine Robust Optimization", ICML 2021; "ema" is the form of
    the byzfl library.

    Args:
        epochs: see ``LocalSGD``.
        batch_size: see ``LocalSGD``.
        lr: see ``LocalSGD``.
        momentum: of the steps within a round; see ``LocalSGD``.
        weight_decay: see ``LocalSGD``.
        steps: see ``LocalSGD``.
        beta: how much of the past stays, in [0, 1).
        form: "heavy_ball" or "ema".
    """

    keeps: ClassVar[tuple[str, ...]] = ("momentum",)

    beta: float = 0.9
    form: Literal["heavy_ball", "ema"] = "heavy_ball"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.beta, int | float) or not 0 <= self.beta < 1:
            raise ConfigError(f"local.beta must lie in [0, 1); got {self.beta}")
        if self.form not in ("heavy_ball", "ema"):
            raise ConfigError(f"local.form must be heavy_ball or ema; got {self.form}")

    def send(self, sent: Sent, kept: Mapping[str, Tensor]) -> None:
        rows = sent.rows.mul_(1.0 if self.form == "heavy_ball" else 1 - self.beta)
        kept["momentum"].copy_(rows.add_(kept["momentum"], alpha=self.beta))

    def a_norm(self, steps: int) -> float:
        raise ConfigError("WorkerMomentum sends gradients of earlier rounds as well, so FedNova cannot divide by a_norm")
