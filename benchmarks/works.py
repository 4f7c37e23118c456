"""What is measured: models, data and rounds, the same for every side. Needs torch and NumPy only, so that peers can share it.

Data are random pictures: how long a step takes does not depend on what they show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

LR = 0.05


def mlp() -> nn.Module:
    """784-200-200-10: 199,210 parameters."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10))


def cnn() -> nn.Module:
    """Two 5 x 5 convolutions with 16 and 32 channels and 128 hidden units: 80,202 parameters."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 10)),
    )


def logistic_regression() -> nn.Module:
    """784-10: 7,850 parameters."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


@dataclass(frozen=True)
class Work:
    """One local epoch of plain SGD by each of ``cohort`` clients of ``population`` a round.

    Args:
        factory: makes the model.
        examples: per client.
        population: clients in all.
        cohort: clients a round.
        batch: examples a step.
        rounds: rounds a repeat.
    """

    factory: Callable[[], nn.Module]
    examples: int
    population: int
    cohort: int
    batch: int
    rounds: int

    def model(self) -> nn.Module:
        """Return the initial model, the same each time."""
        with torch.random.fork_rng():
            torch.default_generator.manual_seed(0)
            return self.factory()

    def arrays(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return pictures [M, 1, 28, 28] uint8 and classes [M]; client i holds rows i * examples and on."""
        draw = np.random.default_rng(0)
        total = self.examples * self.population
        return draw.integers(0, 256, (total, 1, 28, 28), dtype=np.uint8), draw.integers(0, 10, total)

    def client(self, arrays: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]], i: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what client i trains on, as floats."""
        mine = slice(i * self.examples, (i + 1) * self.examples)
        return torch.from_numpy(arrays[0][mine].astype(np.float32) / 255.0), torch.from_numpy(arrays[1][mine])


WORKS = {
    "MLP-32 x 10": Work(mlp, 32, 100, 10, 32, 10),
    "MLP-32 x 100": Work(mlp, 32, 100, 100, 32, 2),
    "MLP-600 x 10": Work(mlp, 600, 10, 10, 32, 2),
    "CNN-600 x 10": Work(cnn, 600, 10, 10, 32, 1),
    "FLUTE": Work(logistic_regression, 60, 1000, 10, 10, 100),
}
