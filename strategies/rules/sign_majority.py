"""Majority vote on signs: every coordinate takes one step of size 1 in the direction that most clients want.

Bernstein, Zhao, Azizzadenesheli, Anandkumar, "signSGD with Majority Vote is Communication Efficient and Fault Tolerant",
ICLR 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from fedagg import Rule
from strategies.rules._sign_sums import sign_sums


@dataclass(frozen=True)
class SignMajority(Rule):
    """Return sign(sum_i sign(u_i)) in every coordinate: 1, -1, or 0 where the vote is tied.

    The result says nothing about size: the step is the server optimizer's learning rate.

    Shapes: updates [n, d] -> delta [d] of -1, 0 and 1. Weights are the clients' own claims, so they are not used.
    Bound: n >= 1. f clients change a coordinate only where the others are divided by f votes or fewer.
    Cost: time O(n d), memory one block of columns. Coordinates are independent: may be chunked.
    Differs from the source: clients there send signs; here the server takes them.

    Example:
        >>> import torch
        >>> SignMajority()(torch.tensor([[0.1, -3.0, 2.0], [0.2, -1.0, 0.0], [-9.0, -1.0, -1.0]]))
        tensor([ 1., -1.,  0.])
    """

    coordinatewise = True
    invariances = frozenset({"permutation"})
    exempt = MappingProxyType({"equal_rows": "it gives signs, not values"})

    def __call__(self, updates: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the signs [d] of the majority."""
        return sign_sums(self, updates).sign_().to(updates.dtype)
