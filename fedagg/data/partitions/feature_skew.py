"""Feature skew: clients see the same things differently."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from fedagg import rng
from fedagg.compact import Integers
from fedagg.data.partitions.contract import Labels, Partition, is_number, reads, require_between
from fedagg.data.partitions.iid import IID
from fedagg.errors import ConfigError

if TYPE_CHECKING:
    from fedagg.data.datasets import Dataset


@dataclass(frozen=True)
class FeatureSkew:
    """Let a client turn its images, change their brightness and add noise, each in a way of its own.

    ``base`` says who holds what. What a client's samples look like is drawn once for (seed, client), whatever the number of
    clients: it holds for what the client trains on and for what it holds out. The server's test set, and examples that the
    server keeps, stay as they are.

        rotation     by an angle uniform in [-rotation, rotation], counterclockwise about the centre, with bilinear
                     interpolation; what comes in from outside is a raw 0. Quarter turns of square images are exact
        brightness   raw values times a factor uniform in [1 - brightness, 1 + brightness]; nothing is clipped
        noise        plus Gaussian noise, drawn once for each sample, of a standard deviation uniform in [0, noise]

    They are applied in this order. A list of angles gives each client one of them, as in Ghosh et al., "An Efficient Framework
    for Clustered Federated Learning", NeurIPS 2020; noise levels that differ from client to client are as in Li et al.,
    "Federated Learning on Non-IID Data Silos: An Experimental Study", ICDE 2022 (where they rise from client to client).

    Args:
        base: any other partition; None: equal shares at random.
        rotation: the largest angle in degrees, 0 .. 180, or a list of angles to choose from. Needs images [channels, height,
            width].
        brightness: 0 .. 1; larger differs more.
        noise: the largest standard deviation, >= 0, in units of the features that the model reads.

    Shapes: as ``base``.
    Bound: as ``base``. Features must be measurements: numbers of words would become those of other words.
    Cost: a client's features are made anew at every read, and its noise with them.

    Example:
        >>> FeatureSkew(rotation=[0, 90, 180, 270]).of(client=3, seed=0)
        (180.0, 1.0, 0.0)
    """

    base: Partition | None = None
    rotation: float | list[float] | tuple[float, ...] = 0.0
    brightness: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        if hasattr(self.base, "transform"):
            raise ConfigError(f"FeatureSkew needs a base that leaves features alone; got {self.base}")
        if isinstance(self.rotation, list | tuple):
            if not self.rotation or not all(is_number(angle) and math.isfinite(angle) for angle in self.rotation):
                raise ConfigError(f"FeatureSkew needs angles in degrees to choose from; got rotation={self.rotation}")
            object.__setattr__(self, "rotation", tuple(self.rotation))
        else:
            require_between(self, "rotation", 0, 180)
        require_between(self, "brightness", 0, 1)
        if not (is_number(self.noise) and 0 <= self.noise < float("inf")):
            raise ConfigError(f"FeatureSkew needs a finite noise >= 0; got noise={self.noise}")

    @property
    def reads(self) -> str:
        """That of the base."""
        return reads(self.base)

    @property
    def min_size(self) -> int | None:
        """That of the base."""
        return getattr(self.base, "min_size", None)

    def __call__(self, labels: Labels, num_clients: int, seed: int) -> Sequence[Integers]:
        return (self.base or IID())(labels, num_clients, seed)

    def of(self, client: int, seed: int) -> tuple[float, float, float]:
        """Return what a client does: its angle in degrees, its factor of brightness, its standard deviation of noise."""
        turn, light, grain = rng.numpy_generator(seed, "feature skew", client).random(3).tolist()
        if isinstance(self.rotation, tuple):
            angle = float(self.rotation[int(turn * len(self.rotation))])
        else:
            angle = (2 * turn - 1) * self.rotation
        return angle, 1 + (2 * light - 1) * self.brightness, grain * self.noise

    def transform(self, x: Tensor, dataset: Dataset, client: int, seed: int) -> Tensor:
        """Return how a client sees its samples.

        Args:
            x: [m, *input_shape] float32, the features of all samples that it holds, in their order.
            dataset: whose features they are.
            client: its id.
            seed: of the population.

        Returns:
            [m, *input_shape] float32, a new tensor or ``x`` itself.

        Raises:
            ConfigError: a rotation of what is no image.
        """
        angle, factor, deviation = self.of(client, seed)
        zero = torch.tensor(-dataset.shift / dataset.scale)  # the feature of a raw 0
        if self.rotation and x.dim() != 4:
            raise ConfigError(
                f"FeatureSkew turns images [channels, height, width]; rows of {dataset.name} have the shape "
                f"{list(x.shape[1:])}. Leave rotation out"
            )
        if angle % 360 and len(x):
            x = rotated(x - zero, angle) + zero
        if factor != 1:
            x = (x - zero) * factor + zero
        if deviation:
            x = x + deviation * torch.randn(x.shape, generator=rng.generator(seed, "feature noise", client))
        return x


def rotated(images: Tensor, angle: float) -> Tensor:
    """Turn images [m, channels, height, width] counterclockwise by degrees about their centre; zeros come in from outside."""
    height, width = images.shape[2:]
    if height == width and angle % 90 == 0:
        return torch.rot90(images, int(angle // 90), (2, 3))
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    back = torch.tensor([[cos, -sin * height / width, 0.0], [sin * width / height, cos, 0.0]])  # where a pixel comes from
    grid = F.affine_grid(back.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
