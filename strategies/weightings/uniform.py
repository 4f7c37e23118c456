"""Every client of the round counts the same."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedagg import Cohort, Weighting


@dataclass(frozen=True)
class Uniform(Weighting):
    """Give each of the n clients of the round

        w_i = 1 / n.

    What a client claims has no effect, so nobody gains by claiming more.

    Shapes: cohort -> w [n], float64.
    Bound: n >= 1.
    Cost: O(n).

    Example:
        >>> cohort = Cohort(round=1, client_ids=[3, 7], updates=torch.zeros(2, 5), params=torch.zeros(5),
        ...                 num_examples=torch.tensor([10, 30]))
        >>> Uniform()(cohort)
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """

    def __call__(self, cohort: Cohort) -> Tensor:
        """Return 1/n for every row of ``cohort.updates``."""
        return torch.full((cohort.n,), 1.0 / cohort.n, dtype=torch.float64, device=cohort.params.device)
