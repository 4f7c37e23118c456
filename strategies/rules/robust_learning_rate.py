"""Robust learning rate: step backwards in every coordinate on which too few clients agree.

Ozdayi, Kantarcioglu, Gel, "Defending against Backdoors in Federated Learning with Robust Learning Rate", AAAI 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedagg import Rule
from fedagg.contracts import check_rows
from fedagg.linalg import weighted_sum
from strategies.rules._sign_sums import sign_sums


@dataclass(frozen=True)
class RobustLearningRate(Rule):
    """Return the weighted sum of the rows, with its sign turned in every coordinate where

        |sum_i sign(u_i)| < theta.

    It is meant for backdoors, where few clients push some coordinates against the rest. As the size of a row counts in full,
    it does not stand rows that are far too long: put a clipping before it.

    Args:
        theta: the agreement that a coordinate needs. 0 never turns a sign; n turns all on which not everybody agrees. It
            should lie between f + 1 and the number of honest clients, and hence follow the size of the cohort.

    Shapes: updates [n, d], weights [n] or None for 1/n each -> delta [d]. Votes are counted without weights.
    Bound: 0 <= theta <= n.
    Cost: time O(n d), memory one block of columns. Coordinates are independent: may be chunked.
    Differs from the source: the weights are those of the strategy, where its code takes numbers of examples.

    Example:
        >>> updates = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, -4.0]])
        >>> RobustLearningRate(theta=2)(updates)
        tensor([1.0000, 0.6667])
    """

    coordinatewise = True
    uses_weights = True
    invariances = frozenset({"permutation", "scale"})

    theta: float

    def __call__(self, updates: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the weighted sum [d], turned where the clients disagree."""
        n, _ = check_rows(self, updates)
        if not 0 <= self.theta <= n:
            raise ValueError(f"RobustLearningRate needs 0 <= theta <= n (Ozdayi et al. 2021); got n={n}, theta={self.theta}")
        agreed = sign_sums(self, updates).abs_() >= self.theta
        total = weighted_sum(updates, weights)
        return torch.where(agreed, total, -total)
