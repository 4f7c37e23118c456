"""Small models, a proxy for them, and cohorts: what the tests of FedLAW share."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from fedagg import Cohort
from fedagg.models import build
from fedagg.params import Layout

CLASSES, FEATURES = 3, 4


class Normalised(nn.Sequential):
    """A model with running statistics and, where asked for, dropout."""

    def __init__(self, p: float = 0.0) -> None:
        super().__init__(nn.Linear(FEATURES, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(p), nn.Linear(6, CLASSES))


class Tied(nn.Module):
    """One weight in two places, a frozen one, and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, FEATURES, bias=False)
        self.second = self.first
        self.last = nn.Linear(FEATURES, CLASSES)
        self.last.bias.requires_grad_(False)
        self.register_buffer("scale", torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.second(torch.tanh(self.first(self.scale * x)))))


def made(make: Any) -> nn.Module:
    return build(make, seed=1)


def proxy(m: int = 30, classes: int = CLASSES) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(5)
    y = torch.arange(m) % classes
    return torch.randn(m, FEATURES, generator=draw) + y[:, None], y


def cohort_of(model: nn.Module, n: int = 4, round: int = 1, scale: float = 0.3) -> Cohort:
    params = Layout.of_model(model).gather(model).params
    updates = scale * torch.randn(n, len(params), generator=torch.Generator().manual_seed(2))
    counts = torch.tensor([30.0, 10.0, 20.0, 40.0, 5.0][:n])
    return Cohort(round, [3 * i + 1 for i in range(n)], updates, params, counts)


def loaded(model: nn.Module, params: Tensor) -> nn.Module:
    """The model with these parameters written into it, one after the other."""
    other, start = copy.deepcopy(model), 0
    for parameter in other.parameters():
        if parameter.requires_grad:
            parameter.data = params[start : start + parameter.numel()].view(parameter.shape).clone()
            start += parameter.numel()
    return other
