"""ARC: adaptive robust clipping, clip the longest clients to a norm that the others set.

Allouah, Guerraoui, Gupta, Jellouli, Rizk and Stephan, "Adaptive Gradient Clipping for Robust Federated Learning", 2024.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fedagg import PreAggregator
from fedagg.contracts import check_rows
from fedagg.linalg import row_norms
from strategies.pre_aggregators._clip import clipped
from strategies.rules._finite import refuse_non_finite


@dataclass(frozen=True)
class ARC(PreAggregator):
    """Clip the k longest rows to the norm of the longest row but k, where ``k = floor(2 f (n - f) / n)``.

    Args:
        f: Byzantine clients tolerated. It sets k; 0 changes nothing.

    Shapes: updates [n, d] -> [n, d], in the same order.
    Bound: n >= 2f + 1.
    Cost: time O(n d + n log n), memory the result [n, d].
    Differs from the source: nothing.
    Diagnostics: ``last_info`` holds ``scores`` [n], the norms, and ``clipped`` [n], which rows were shortened.

    Example:
        >>> import torch
        >>> ARC(f=1)(torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.5, 1.5], [2.0, 2.0], [10.0, -10.0]]))[3:]
        tensor([[ 2.,  2.],
                [ 2., -2.]])
    """

    f: int

    def __call__(self, updates: Tensor) -> Tensor:
        """Return the clipped rows [n, d]."""
        n, _ = check_rows(self, updates)
        if not 0 <= 2 * self.f < n:
            raise ValueError(f"ARC needs f >= 0 and n >= 2f + 1 (Allouah et al. 2024); got n={n}, f={self.f}")
        norms = row_norms(updates)
        if not norms.isfinite().all():
            refuse_non_finite(self, updates)
        k = 2 * self.f * (n - self.f) // n
        longest = norms.sort().values[n - 1 - k]
        self.last_info.update(scores=norms, clipped=norms > longest)
        return clipped(updates, norms, float(longest))
