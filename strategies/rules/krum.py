"""Krum: believe the one client that has the closest company.

Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017, Section 4
(the Krum function).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fedagg import Rule
from strategies.rules._krum_scores import Neighbours, check_variant, equal_weights, krum_scores, least_rows


@dataclass(frozen=True)
class Krum(Rule):
    """Return the row with the least score, where row i scores

        s_i = sum of ||u_i - u_j||^2 over the n - f - 2 other rows j nearest to it.

    Args:
        f: Byzantine clients tolerated. More means that fewer neighbours have to agree with a row.
        neighbours: "paper" counts the n - f - 2 nearest others; "byzfl" counts n - f - 1, as the byzfl library does.
        power: of the distances in the sum. 2 is the paper's; 1 and 4 reproduce code that takes no square, or two.

    Shapes: updates [n, d] -> delta [d], one of the rows. Weights are the clients' own claims, so they are not used.
    Bound: n >= 2f + 3.
    Cost: time O(n^2 d), memory the distances [n, n] and one block of columns.
    Ties: of equal scores the lowest row wins, so the order of the rows matters then, and only then.
    Differs from the source: nothing; the two options exist to reproduce other code.
    Diagnostics: ``last_info`` holds ``scores`` [n], ``selected`` [1] and ``client_weights`` [n].

    Example:
        >>> import torch
        >>> updates = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.5, 1.5], [2.0, 2.0], [10.0, -10.0]])
        >>> Krum(f=1)(updates)
        tensor([1.5000, 1.5000])
        >>> Krum(f=1).client_weights(updates)
        tensor([0., 0., 1., 0., 0.])
    """

    invariances = frozenset({"permutation", "translation", "scale", "orthogonal"})

    f: int
    neighbours: Neighbours = "paper"
    power: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_variant(self, self.neighbours, self.power)

    def client_weights(self, updates: Tensor) -> Tensor:
        """Return [n]: 1 for the row with the least score, 0 for the others."""
        scores = krum_scores(self, updates, self.f, self.neighbours, self.power)
        selected = least_rows(self, scores, 1)
        self.last_info.update(scores=scores, selected=selected)
        return equal_weights(updates, selected)
