"""Min-Sum: leave the mean as far as the loneliest honest client allows.

Shejwalkar, Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses for Federated Learning",
NDSS 2021.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from fedagg.attacks._rows import around
from fedagg.attacks._shifted_mean import Direction, Search, ShiftedMean, official_gamma


@dataclass(frozen=True)
class MinSum(ShiftedMean):
    """Send f times

        c = mu - gamma * dev,    gamma >= 0 the largest with    sum_i ||c - x_i||^2 <= max_i sum_j ||x_i - x_j||^2,

    with mu the mean of the honest rows x_i. The terms that mix c and x_i add up to nothing, which leaves

        gamma = max_i ||x_i - mu|| / ||dev||.

    Args:
        dev: where to go: against the standard deviation of every coordinate ("std"), the mean made one long ("unit") or the
            signs of the mean ("sign").
        bound: "max" as above; "min" takes the least of those sums, and so min_i, as the published notebooks do.
        ddof: the variance divides by h - ddof.
        search: "exact" as above; "official" searches as the published notebooks do, and stays below 20.

    Shapes: honest [h, d] -> [f, d], equal rows.
    Bound: h > ddof for dev="std"; any f >= 0. Where all honest rows are equal, gamma is 0.
    Cost: time O(h d), memory one block of columns in float64.
    Differs from the source: gamma in closed form instead of a search.
    Diagnostics: ``last_info`` holds ``gamma``.

    Example:
        >>> import torch
        >>> honest = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.5, 1.5], [2.0, 2.0]])
        >>> MinSum()(honest, f=1)
        tensor([[1.1096, 1.1096]])
    """

    dev: Direction = "std"
    bound: Literal["max", "min"] = "max"
    ddof: int = 1
    search: Search = "exact"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bound not in ("max", "min"):
            raise ValueError(f"MinSum needs bound in ['max', 'min']; got {self.bound!r}")

    def _gamma(self, honest: Tensor, mean: Tensor, dev: Tensor) -> float:
        """Return the largest gamma with ``a gamma^2 <= room``, both sides being shares of one honest row."""
        squares, _ = around(honest, mean, dev)
        a, room = float(dev.square().sum()), float(squares.max() if self.bound == "max" else squares.min())
        if a == 0:
            return 0.0
        if self.search == "official":
            return official_gamma(lambda gamma: a * gamma**2 <= room)
        return math.sqrt(room / a)
