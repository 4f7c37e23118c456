"""Min-Max: leave the mean as far as the two most distant honest clients allow.

Shejwalkar, Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses for Federated Learning",
NDSS 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedagg.attacks._rows import around
from fedagg.attacks._shifted_mean import Direction, Search, ShiftedMean, official_gamma
from fedagg.linalg import squared_distances


@dataclass(frozen=True)
class MinMax(ShiftedMean):
    """Send f times

        c = mu - gamma * dev,    gamma >= 0 the largest with    max_i ||c - x_i|| <= max_ij ||x_i - x_j||,

    with mu the mean of the honest rows x_i. So no honest row is further from c than two honest rows are from each other.

    Args:
        dev: where to go: against the standard deviation of every coordinate ("std"), the mean made one long ("unit") or the
            signs of the mean ("sign").
        ddof: the variance divides by h - ddof.
        search: "exact" solves for gamma; "official" searches as the published notebooks do, and stays below 20.

    Shapes: honest [h, d] -> [f, d], equal rows.
    Bound: h > ddof for dev="std"; any f >= 0. Where all honest rows are equal, gamma is 0.
    Cost: time O(h^2 d), memory one block of columns in float64.
    Differs from the source: gamma is the least root of h quadratic equations instead of the end of a search.
    Diagnostics: ``last_info`` holds ``gamma``.

    Example:
        >>> honest = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.5, 1.5], [2.0, 2.0]])
        >>> MinMax()(honest, f=1)
        tensor([[1., 1.]])
    """

    dev: Direction = "std"
    ddof: int = 1
    search: Search = "exact"

    def _gamma(self, honest: Tensor, mean: Tensor, dev: Tensor) -> float:
        """Return the largest gamma with ``a gamma^2 + 2 b_i gamma + c_i <= 0`` for every honest row i, where c_i <= 0."""
        squares, b = around(honest, mean, dev)
        a, c = float(dev.square().sum()), squares - squared_distances(honest).max()
        if a == 0:
            return 0.0
        if self.search == "official":
            return official_gamma(lambda gamma: bool(((a * gamma + 2 * b) * gamma + c <= 0).all()))
        c = c.clamp(max=0.0)
        root = (b.square() - a * c).sqrt()
        return float(torch.where(b > 0, -c / (b + root), (root - b) / a).min())  # either form, without cancellation
