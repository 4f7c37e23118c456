"""Bucketing: average a few clients at random before a rule sees them.

Karimireddy, He and Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR 2022.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedagg import PreAggregator
from fedagg.contracts import check_rows, private_generator
from fedagg.linalg import weighted_sum, wide_sum
from strategies.rules._finite import all_finite, refuse_non_finite


@dataclass(frozen=True)
class Bucketing(PreAggregator):
    """Shuffle the rows, cut them into ``ceil(n / s)`` consecutive buckets, and replace each bucket by its plain mean.

    Buckets differ less from each other than clients do. One Byzantine row spoils its whole bucket, so f stays what it was
    while there are fewer rows: the bound of the rule that follows applies to ceil(n / s) rows.

    Args:
        s: rows per bucket; the last one may hold fewer. 1 only shuffles; more evens out more, and tolerates fewer attackers.
        generator: source of the order. None: the engine lends one from the seed tree, and a direct call uses seed 0 each time.

    Shapes: updates [n, d] -> [ceil(n / s), d], buckets in the order of the shuffle.
    Bound: s >= 1 and n >= 1.
    Cost: time O(n d), memory the result and s rows.
    Differs from the source: nothing.
    Diagnostics: ``last_info`` holds ``order`` [n], the rows as they were shuffled.

    Example:
        >>> updates = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]])
        >>> Bucketing(s=5)(updates), Bucketing(s=2)(updates).shape
        (tensor([[3.]]), torch.Size([3, 1]))
    """

    keeps_clients = False
    random = True

    s: int = 2
    generator: torch.Generator | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.s < 1:
            raise ValueError(f"Bucketing needs s >= 1 (Karimireddy et al. 2022); got s={self.s}")

    def __call__(self, updates: Tensor) -> Tensor:
        """Return the means of the buckets [ceil(n / s), d]."""
        n, d = check_rows(self, updates)
        if n == 0:
            raise ValueError("Bucketing needs n >= 1; got n=0")
        source = private_generator(self.generator)
        order = torch.randperm(n, generator=source, device=source.device).to(updates.device)
        self.last_info["order"] = order
        means = torch.empty(-(-n // self.s), d, dtype=updates.dtype, device=updates.device)
        for rows, mean in zip(torch.split(order, self.s), means, strict=True):
            if len(rows) == 2:  # the usual size; no copy of the rows
                torch.add(updates[int(rows[0])] / 2, updates[int(rows[1])], alpha=0.5, out=mean)
            else:
                mean.copy_(weighted_sum(updates[rows]))
        if not all_finite(means):
            refuse_non_finite(self, updates)
            means = torch.stack([wide_sum(updates[rows]) for rows in torch.split(order, self.s)])
        return means
