"""CGE: comparative gradient elimination, average the clients that moved least.

Gupta, Liu and Vaidya, "Byzantine Fault-Tolerant Distributed Machine Learning Using Stochastic Gradient Descent (SGD) and
Norm-Based Comparative Gradient Elimination (CGE)", 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fedagg import Rule
from fedagg.contracts import check_rows
from fedagg.linalg import row_norms
from strategies.rules._finite import refuse_non_finite
from strategies.rules._krum_scores import equal_weights, least_rows


@dataclass(frozen=True)
class CGE(Rule):
    """Average the ``n - f`` rows with the least norms ``||u_i||``.

    It bounds how far a liar can pull, and no more: rows of small norm are believed whatever their direction.

    Args:
        f: Byzantine clients tolerated, and rows left out. 0 gives the plain mean.

    Shapes: updates [n, d] -> delta [d]. Weights are the clients' own claims, so they are not used: kept rows count alike.
    Bound: n >= 2f + 1.
    Cost: time O(n d), memory one block of columns.
    Ties: of equal norms the lower row is kept, so the order of the rows matters then, and only then.
    Differs from the source: the mean of the kept rows is taken, as in the ByzPy library; it does not grow with n.
    Diagnostics: ``last_info`` holds ``scores`` [n], the squared norms, ``selected`` [n - f], shortest first, and
        ``client_weights`` [n].

    Example:
        >>> import torch
        >>> updates = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.5, 1.5], [2.0, 2.0], [10.0, -10.0]])
        >>> CGE(f=1)(updates)
        tensor([1.6250, 1.6250])
    """

    invariances = frozenset({"permutation", "scale", "orthogonal"})

    f: int

    def client_weights(self, updates: Tensor) -> Tensor:
        """Return [n]: 1/(n - f) for the rows with the least norms, 0 for the others."""
        n, _ = check_rows(self, updates)
        if not 0 <= 2 * self.f < n:
            raise ValueError(f"CGE needs f >= 0 and n >= 2f + 1 (Gupta et al. 2020); got n={n}, f={self.f}")
        scores = row_norms(updates).square()
        if not scores.isfinite().all():
            refuse_non_finite(self, updates)
        selected = least_rows(self, scores, n - self.f)
        self.last_info.update(scores=scores, selected=selected)
        return equal_weights(updates, selected)
