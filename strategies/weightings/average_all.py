"""Whoever stays away counts as if it had sent no change.

A baseline of Wang and Ji, "A Lightweight Method for Tackling Unknown Participation Statistics in Federated Learning",
ICLR 2024 ("average all").
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedagg import Cohort, Weighting


@dataclass(frozen=True)
class AverageAll(Weighting):
    """Divide by the population instead of by who took part:

        w_i = 1 / N.

    The step is short when few take part: its authors use it with ten times the server's learning rate. A client still counts
    in proportion to how often it takes part.

    Shapes: cohort -> w [n], float64, of sum n / N.
    Bound: the population N is known.
    Cost: O(n).

    Example:
        >>> cohort = Cohort(round=1, client_ids=[3, 7], updates=torch.zeros(2, 5), params=torch.zeros(5),
        ...                 num_examples=torch.tensor([10, 30]), population=8)
        >>> AverageAll()(cohort)
        tensor([0.1250, 0.1250], dtype=torch.float64)
    """

    def __call__(self, cohort: Cohort) -> Tensor:
        """Return 1/N for every row of ``cohort.updates``."""
        if cohort.population is None:
            raise ValueError("AverageAll needs to know how many clients there are in all; cohort.population is None")
        return torch.full((cohort.n,), 1.0 / cohort.population, dtype=torch.float64, device=cohort.params.device)
