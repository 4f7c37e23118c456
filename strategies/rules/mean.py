"""Mean: the weighted sum of the updates. Not robust; what every robust rule is compared with.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017, Algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fedagg import Rule
from fedagg.contracts import check_rows
from fedagg.linalg import weighted_sum, wide_sum
from strategies.rules._finite import all_finite, refuse_non_finite


@dataclass(frozen=True)
class Mean(Rule):
    """Add up the rows, each times its weight:

        sum_i w_i u_i.

    The weights are applied as they are and need not sum to 1. ``None`` gives each of the n rows 1/n. With a weighting
    ``ByExamples`` this is federated averaging.

    Shapes: updates [n, d], weights [n] -> delta [d].
    Bound: n >= 1. A single client can move the result anywhere.
    Cost: time O(n d), memory one block of columns in float64. A sum: may be added up in parts.
    Differs from the source: it averages updates, which equals averaging models where the weights sum to 1.

    Example:
        >>> import torch
        >>> updates = torch.tensor([[0.0, 3.0], [1.0, 4.0], [2.0, 8.0]])
        >>> Mean()(updates)
        tensor([1., 5.])
        >>> Mean()(updates, torch.tensor([0.5, 0.0, 0.5]))
        tensor([1.0000, 5.5000])
    """

    associative = True
    coordinatewise = True
    uses_weights = True
    invariances = frozenset({"permutation", "translation", "scale", "orthogonal"})

    def __call__(self, updates: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the weighted sum [d] of ``updates`` [n, d]."""
        check_rows(self, updates)
        total = weighted_sum(updates, weights)
        if not all_finite(total):
            refuse_non_finite(self, updates)
            total = wide_sum(updates, weights)
        return total
