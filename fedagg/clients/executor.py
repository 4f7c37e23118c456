"""Who runs local training: one client at a time, in one model whose memory is three flat vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedagg.clients.local import LocalSGD
from fedagg.params import ModelState, ResidentModel

EVALUATION_BATCH = 2048


class OneAtATime:
    """Train and evaluate one client after another, in place.

    Args:
        model: the architecture.
        device: where to compute.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.device = device
        self._resident = ResidentModel(model, device)
        self.layout = self._resident.layout

    def train(
        self, state: ModelState, local: LocalSGD, x: Tensor, y: Tensor, generator: torch.Generator, into: ModelState
    ) -> dict[str, float]:
        """Train from ``state`` on one client's data, write the outcome ``into`` other vectors, return the client's metrics."""
        self._resident.load(state)
        module = self._resident.module.train()
        metrics = local.train(module, x.to(self.device), y.to(self.device), generator)
        self._resident.store(into)
        return metrics

    def evaluate(self, state: ModelState, x: Tensor, y: Tensor) -> dict[str, float]:
        """Return mean cross-entropy and accuracy of ``state`` on ``x, y``; NaN for an empty set."""
        if len(y) == 0:
            return {"loss": math.nan, "accuracy": math.nan}
        self._resident.load(state)
        module = self._resident.module.eval()
        loss, correct = 0.0, 0
        with torch.inference_mode():
            for start in range(0, len(y), EVALUATION_BATCH):
                batch = slice(start, start + EVALUATION_BATCH)
                logits, target = module(x[batch].to(self.device)), y[batch].to(self.device)
                loss += float(functional.cross_entropy(logits, target, reduction="sum"))
                correct += int((logits.argmax(dim=1) == target).sum())
        return {"loss": loss / len(y), "accuracy": correct / len(y)}
