"""MoNNA: average the clients nearest to one that is trusted.

Farhadkhani et al., "Robust Collaborative Learning with Linear Gradient Overhead", ICML 2023 (nearest neighbour averaging).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from fedagg import Rule
from fedagg.contracts import check_rows
from fedagg.linalg import row_norms
from strategies.rules._finite import refuse_non_finite
from strategies.rules._krum_scores import equal_weights, least_rows


@dataclass(frozen=True)
class MoNNA(Rule):
    """Average the ``n - f`` rows nearest to the row ``reference``, that row included.

    Args:
        f: Byzantine clients tolerated, and rows left out. 0 gives the plain mean.
        reference: the row of a client that the server trusts. Rows are in ascending client id, so where not all clients take
            part in every round the number of that row changes, and has to be set anew. A Byzantine reference decides alone.

    Shapes: updates [n, d] -> delta [d]. Weights are the clients' own claims, so they are not used: kept rows count alike.
    Bound: n >= 2f + 1 and 0 <= reference < n.
    Cost: time O(n d), memory one block of columns.
    Ties: the reference comes first, then of equal distances the lower row.
    Differs from the source: its simulation, in the krum library, averages n - 2f rows.
    Diagnostics: ``last_info`` holds ``scores`` [n], the squared distances, ``selected`` [n - f], nearest first, and
        ``client_weights`` [n].

    Example:
        >>> import torch
        >>> updates = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.5, 1.5], [2.0, 2.0], [10.0, -10.0]])
        >>> MoNNA(f=1)(updates)
        tensor([1.6250, 1.6250])
    """

    follows_clients = True
    invariances = frozenset({"translation", "scale", "orthogonal"})
    exempt = MappingProxyType({"bounded": "it believes the row `reference`, which must be honest"})

    f: int
    reference: int = 0

    def client_weights(self, updates: Tensor) -> Tensor:
        """Return [n]: 1/(n - f) for the rows nearest to the reference, 0 for the others."""
        n, _ = check_rows(self, updates)
        if not 0 <= 2 * self.f < n or not 0 <= self.reference < n:
            raise ValueError(
                f"MoNNA needs f >= 0, n >= 2f + 1 and 0 <= reference < n (Farhadkhani et al. 2023); "
                f"got n={n}, f={self.f}, reference={self.reference}"
            )
        scores = row_norms(updates, updates[self.reference]).square()
        if not scores.isfinite().all():
            refuse_non_finite(self, updates)
        ranked = scores.clone()
        ranked[self.reference] = -1.0  # before a twin of lower number
        selected = least_rows(self, ranked, n - self.f)
        self.last_info.update(scores=scores, selected=selected)
        return equal_weights(updates, selected)
