"""Multi-Krum: average the clients that have the closest company.

Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017, Multi-Krum.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fedagg import Rule
from fedagg.contracts import check_rows
from strategies.rules._krum_scores import Neighbours, check_variant, equal_weights, krum_scores, least_rows


@dataclass(frozen=True)
class MultiKrum(Rule):
    """Average the m rows with the least scores, where row i scores

        s_i = sum of ||u_i - u_j||^2 over the n - f - 2 other rows j nearest to it.

    The scores are computed once, not again after each pick.

    Args:
        f: Byzantine clients tolerated. More means that fewer neighbours have to agree with a row.
        m: rows to average; None means n - f. 1 is Krum, n is the mean. Fewer is safer, more is less noisy.
        neighbours: "paper" counts the n - f - 2 nearest others; "byzfl" counts n - f - 1, as the byzfl library does.
        power: of the distances in the sum. 2 is the paper's; 1 and 4 reproduce code that takes no square, or two.

    Shapes: updates [n, d] -> delta [d]. Weights are the clients' own claims, so they are not used: picked rows count alike.
    Bound: n >= 2f + 3 and 1 <= m <= n. With m > n - f no score can keep all f Byzantine rows out.
    Cost: time O(n^2 d), memory the distances [n, n] and one block of columns.
    Ties: of equal scores the lower row comes first, so the order of the rows matters then, and only then.
    Differs from the source: it leaves m open; None is a choice of ours.
    Diagnostics: ``last_info`` holds ``scores`` [n], ``selected`` [m], best first, and ``client_weights`` [n].

    Example:
        >>> import torch
        >>> updates = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.5, 1.5], [2.0, 2.0], [10.0, -10.0]])
        >>> MultiKrum(f=1)(updates)
        tensor([1.6250, 1.6250])
        >>> MultiKrum(f=1, m=2).client_weights(updates)
        tensor([0.5000, 0.0000, 0.5000, 0.0000, 0.0000])
    """

    invariances = frozenset({"permutation", "translation", "scale", "orthogonal"})

    f: int
    m: int | None = None
    neighbours: Neighbours = "paper"
    power: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_variant(self, self.neighbours, self.power)

    def client_weights(self, updates: Tensor) -> Tensor:
        """Return [n]: 1/m for the m rows with the least scores, 0 for the others."""
        n, _ = check_rows(self, updates)
        scores = krum_scores(self, updates, self.f, self.neighbours, self.power)
        m = n - self.f if self.m is None else self.m
        if not 1 <= m <= n:
            raise ValueError(f"MultiKrum needs 1 <= m <= n (it averages m of the n rows); got n={n}, f={self.f}, m={m}")
        selected = least_rows(self, scores, m)
        self.last_info.update(scores=scores, selected=selected)
        return equal_weights(updates, selected)
