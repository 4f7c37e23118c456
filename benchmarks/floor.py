"""A round of federated averaging as a bare torch loop: the floor that a round of ours is measured against.

No optimizer object, in-place steps, a running mean instead of a matrix of updates, no metrics, no messages. What a simulator
needs beside this (a row per client, checks of every reply, a float64 mean, metrics) is what the ratio shows.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


class BareLoop:
    """Train clients one after another and average them.

    Args:
        model: the initial model.
        data: client -> (x, y), already floats.
    """

    def __init__(self, model: nn.Module, data: dict[int, tuple[Tensor, Tensor]], lr: float, batch_size: int) -> None:
        self.model = copy.deepcopy(model)
        self.params = list(self.model.parameters())
        self.current = [p.detach().clone() for p in self.params]
        self.data, self.lr, self.batch_size = data, lr, batch_size

    def round(self, clients: list[int]) -> None:
        """One local epoch per client, then the plain mean."""
        mean = [torch.zeros_like(p) for p in self.params]
        for client in clients:
            x, y = self.data[client]
            with torch.no_grad():
                torch._foreach_copy_(self.params, self.current)
            for batch in torch.randperm(len(y)).split(self.batch_size):
                grads = torch.autograd.grad(cross_entropy(self.model(x[batch]), y[batch]), self.params)
                with torch.no_grad():
                    torch._foreach_add_(self.params, grads, alpha=-self.lr)
            with torch.no_grad():
                torch._foreach_add_(mean, self.params, alpha=1 / len(clients))
        self.current = mean
