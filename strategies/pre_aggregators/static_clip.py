"""Static clipping: let no client be longer than a constant.

Norm bounding, as in Sun, Kairouz, Suresh and McMahan, "Can You Really Backdoor Federated Learning?", 2019.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from fedagg import PreAggregator
from fedagg.contracts import check_rows
from fedagg.linalg import row_norms
from strategies.pre_aggregators._clip import clipped
from strategies.rules._finite import refuse_non_finite


@dataclass(frozen=True)
class StaticClip(PreAggregator):
    """Replace row u by ``u min(1, c / ||u||)``. A row of zeros stays as it is.

    Args:
        c: the greatest norm. It is absolute: set it from the scale of updates, which depends on model and learning rate.

    Shapes: updates [n, d] -> [n, d], in the same order.
    Bound: c > 0 and n >= 1.
    Cost: time O(n d), memory the result [n, d].
    Differs from the source: nothing.
    Diagnostics: ``last_info`` holds ``scores`` [n], the norms, and ``clipped`` [n], which rows were shortened.

    Example:
        >>> import torch
        >>> StaticClip(c=5.0)(torch.tensor([[3.0, 4.0], [30.0, 40.0], [0.0, 0.0]]))
        tensor([[3., 4.],
                [3., 4.],
                [0., 0.]])
    """

    exempt = MappingProxyType({"equal_rows_stay": "it shortens what is longer than c"})

    c: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.c < math.inf:
            raise ValueError(f"StaticClip needs a finite c > 0; got c={self.c}")

    def __call__(self, updates: Tensor) -> Tensor:
        """Return the clipped rows [n, d]."""
        n, _ = check_rows(self, updates)
        if n == 0:
            raise ValueError("StaticClip needs n >= 1; got n=0")
        norms = row_norms(updates)
        if not norms.isfinite().all():
            refuse_non_finite(self, updates)
        self.last_info.update(scores=norms, clipped=norms > self.c)
        return clipped(updates, norms, self.c)
