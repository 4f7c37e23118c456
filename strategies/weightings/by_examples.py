"""A client counts as much as the examples it says it trained on.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017, Algorithm 1.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from fedagg import Cohort, Weighting


@dataclass(frozen=True)
class ByExamples(Weighting):
    """Weigh the clients of the round by their claimed counts m_i:

        w_i = min(m_i, cap) / sum_j min(m_j, cap).

    A round in which every count is 0 falls back to 1/n, with a warning.

    Args:
        cap: no client counts for more examples than this. Counts are claims that nobody checks: without a cap, a client that
            claims a billion examples decides the round alone. None caps nothing.

    Shapes: cohort -> w [n], float64, non-negative, of sum 1.
    Bound: every count is finite and >= 0; cap > 0.
    Cost: O(n).
    Differs from the source: the sum runs over the clients of the round, not over the population; the cap is ours.

    Example:
        >>> cohort = Cohort(round=1, client_ids=[3, 7, 9], updates=torch.zeros(3, 5), params=torch.zeros(5),
        ...                 num_examples=torch.tensor([10, 30, 1_000_000]))
        >>> ByExamples(cap=40)(cohort)
        tensor([0.1250, 0.3750, 0.5000], dtype=torch.float64)
    """

    cap: float | None = None

    def __post_init__(self) -> None:
        if self.cap is not None and not self.cap > 0:
            raise ValueError(f"ByExamples needs cap > 0, or None for no cap; got cap={self.cap}")

    def __call__(self, cohort: Cohort) -> Tensor:
        """Return the share of the examples that each row of ``cohort.updates`` stands for."""
        counts = torch.as_tensor(cohort.num_examples, dtype=torch.float64, device=cohort.params.device)
        for client, count in zip(cohort.client_ids, counts.tolist(), strict=True):
            if not 0 <= count < float("inf"):
                raise ValueError(f"ByExamples needs finite counts >= 0; client {client} claims {count} examples")
        if self.cap is not None:
            counts = counts.clamp(max=self.cap)
        if not counts.any():
            warnings.warn(f"every client of round {cohort.round} claims 0 examples; ByExamples uses 1/n", stacklevel=2)
            counts = torch.ones_like(counts)
        shares = counts / counts.max()  # so that the sum of enormous claims is finite
        return shares / shares.sum()
