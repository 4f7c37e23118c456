"""Ditto: beside the shared model each client trains one of its own, which is drawn to the shared one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedagg.clients.local.fedprox import FedProx
from fedagg.errors import ConfigError
from fedagg.params import State


@dataclass(frozen=True)
class Ditto(FedProx):
    """Train the model w that was received, and send that; then train one's own v on the loss plus (lam / 2) ||v - w||^2.

    v, with its float buffers, is remembered and never sent. It starts as the first model that the client receives, and goes on
    in every round in which the client takes part, with batches and dropout of its own draws. Clients evaluate v
    (``evaluation.clients=true``); the server's test set measures w. Any strategy goes with it. A round costs twice as much.

    Source: Li et al., "Ditto: Fair and Robust Federated Learning Through Personalization", ICML 2021, Algorithm 1.

    Args:
        epochs: of both; see ``LocalSGD``.
        batch_size: of both; see ``LocalSGD``.
        lr: of both; see ``LocalSGD``.
        momentum: of both; see ``LocalSGD``.
        weight_decay: of both; see ``LocalSGD``.
        steps: of both; see ``LocalSGD``.
        mu: proximal term of the shared model; see ``FedProx``.
        lam: how strongly v is drawn to w; 0 is training alone.
    """

    keeps: ClassVar[tuple[str, ...]] = ("personal", "personal_buffers")
    personalises: ClassVar[bool] = True

    mu: float = 0.0
    lam: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.lam, int | float) or self.lam < 0:
            raise ConfigError(f"local.lam must be a number >= 0; got {self.lam}")

    @property
    def personal(self) -> FedProx:
        """The training of v."""
        return dataclasses.replace(self, mu=self.lam)

    def first(self, state: State) -> dict[str, Tensor]:
        """Return the received model."""
        return {"personal": state.params, "personal_buffers": state.float_buffers}

    def evaluates(self, params: Tensor, float_buffers: Tensor, kept: Mapping[str, Tensor]) -> None:
        params.copy_(kept["personal"])
        float_buffers.copy_(kept["personal_buffers"])
