"""Models that both executors train, each with a twin that the slow reference can train."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fedagg import models
from tests.clients.reference import SlowDropout

SHAPE, CLASSES = (1, 8, 8), 10


class Extras(nn.Module):
    """Everything beside layers: frozen weights, constant buffers, a tied weight, parameters that are only added."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 12), nn.Linear(12, 12)
        self.again = self.second
        self.shift, self.drift = nn.Parameter(torch.zeros(12)), nn.Parameter(torch.ones(12))
        self.last = nn.Linear(12, 10)
        self.last.bias.requires_grad_(False)
        self.register_buffer("scale", torch.linspace(0.5, 1.5, 64))
        self.register_buffer("on", torch.tensor(True))
        self.register_buffer("count", torch.tensor(7))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x.flatten(1) * self.scale) + (self.shift + self.drift)
        return self.last(self.again(torch.tanh(self.second(torch.tanh(hidden)))))


class Twice(nn.Module):
    """One dropout layer in two places of a pass."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.input, self.output, self.first, self.second = nn.Linear(64, 20), nn.Linear(20, 10), first, second

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.second(torch.relu(self.first(self.input(x.flatten(1))))))


def dropout(drop: Callable[[float, int], nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), drop(0.2, 0), nn.Linear(64, 20), nn.ReLU(), drop(0.5, 1), nn.Linear(20, 10))


def channels(drop: Callable[[float, int], nn.Module]) -> nn.Module:
    head = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 10))
    return nn.Sequential(nn.Conv2d(1, 6, 3), drop(0.4, 0), nn.GroupNorm(2, 6), *head)


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    return models.build(make, seed=5)


def model_and_twin(name: str) -> tuple[nn.Module, nn.Module]:
    """The model of this name, and an equal one for the reference."""
    if name in PLAIN:
        model = seeded(PLAIN[name])
        return model, copy.deepcopy(model)
    if name == "dropout":
        return seeded(lambda: dropout(lambda p, place: nn.Dropout(p))), seeded(lambda: dropout(SlowDropout))
    if name == "channel dropout":
        slow = seeded(lambda: channels(lambda p, place: SlowDropout(p, place, channels=True)))
        return seeded(lambda: channels(lambda p, place: nn.Dropout2d(p))), slow
    shared = nn.Dropout(0.3)
    return seeded(lambda: Twice(shared, shared)), seeded(lambda: Twice(SlowDropout(0.3, 0), SlowDropout(0.3, 1)))


PLAIN: dict[str, Callable[[], nn.Module]] = {
    "logistic regression": lambda: models.logistic_regression(SHAPE, CLASSES),
    "mlp": lambda: models.mlp(SHAPE, CLASSES, hidden=(16, 16)),
    "cnn": lambda: models.cnn(SHAPE, CLASSES, channels=(4, 6), hidden=12),
    "frozen, tied, added, buffers": Extras,
}
NAMES = [*PLAIN, "dropout", "channel dropout", "one dropout layer twice"]
