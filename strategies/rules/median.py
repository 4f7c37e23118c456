"""Coordinate-wise median: in every coordinate, the value in the middle.

Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018, Definition 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fedagg import Rule
from fedagg.contracts import check_rows
from strategies.rules._sorted_columns import sorted_columns


@dataclass(frozen=True)
class Median(Rule):
    """Take the middle of the sorted values u_(1) <= ... <= u_(n) of each coordinate.

    It is u_((n+1)/2) for odd n. For even n there are two middle values, and ``even`` decides.

    Args:
        even: "midpoint" takes half the sum of the two middle values; "lower" takes the smaller one, as ``torch.median`` does,
            so that the result is always a value somebody sent.

    Shapes: updates [n, d] -> delta [d]. Weights are the clients' own claims, so they are not used.
    Bound: n >= 1. While Byzantine rows are fewer than half, every coordinate lies between two honest values.
    Cost: time O(d n log n), memory one block of columns. Coordinates are independent: may be chunked.
    Differs from the source: nothing; "lower" is there to reproduce code that uses it.

    Example:
        >>> updates = torch.tensor([[0.0, 3.0], [1.0, 4.0], [2.0, 5.0], [1e9, -1e9]])
        >>> Median()(updates)
        tensor([1.5000, 3.5000])
        >>> Median(even="lower")(updates)
        tensor([1., 3.])
    """

    coordinatewise = True
    invariances = frozenset({"permutation", "translation", "scale"})

    even: Literal["midpoint", "lower"] = "midpoint"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.even not in ("midpoint", "lower"):
            raise ValueError(f"Median needs even in ['midpoint', 'lower']; got {self.even!r}")

    def __call__(self, updates: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the median [d] of ``updates`` [n, d]."""
        n, d = check_rows(self, updates)
        if n == 0:
            raise ValueError("Median needs n >= 1; got n=0")
        lower = (n - 1) // 2
        upper = n // 2 if self.even == "midpoint" else lower
        result = torch.empty(d, dtype=updates.dtype, device=updates.device)
        for block, values in sorted_columns(self, updates):
            middle = values[:, lower]
            if upper != lower:
                middle = middle.double() / 2 + values[:, upper].double() / 2
            result[block] = middle
        return result
