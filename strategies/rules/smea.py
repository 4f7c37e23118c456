"""SMEA: smallest maximum eigenvalue averaging, average the n - f clients that vary least in their worst direction.

Allouah, Guerraoui, Gupta, Pinot and Stephan, "On the Privacy-Robustness-Utility Trilemma in Distributed Learning", ICML 2023.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fedagg import Rule
from fedagg.contracts import check_rows
from strategies.rules._distances import checked_distances
from strategies.rules._krum_scores import equal_weights
from strategies.rules._subsets import check_subsets, subsets

CHUNK_NUMBERS = 1 << 22  # numbers in the Gram matrices of one chunk of subsets
TIE = 1e-12  # eigenvalues closer than this, relative to the least, differ by rounding only


@dataclass(frozen=True)
class SMEA(Rule):
    """Average the subset S of ``n - f`` rows whose covariance has the least top eigenvalue:

        C_S = 1/|S| sum over i in S of (u_i - m_S)(u_i - m_S)^T, with m_S the mean of S.

    The top eigenvalue of C_S [d, d] is that of the centred Gram matrix of S, which is only [n - f, n - f].

    Args:
        f: Byzantine clients tolerated, and rows left out. 0 gives the plain mean.
        max_subsets: raise where there are more subsets than this.

    Shapes: updates [n, d] -> delta [d]. Weights are the clients' own claims, so they are not used: kept rows count alike.
    Bound: n >= 2f + 1 and C(n, f) <= max_subsets.
    Cost: time O(n^2 d + C(n, f) n^3), memory the distances [n, n], one block of columns and 200 MB.
    Ties: of subsets with equal eigenvalues the first counts, in the lexicographic order of their row numbers.
    Differs from the source: nothing but the tie rule, which it leaves open. The eigenvalue is exact, not a power step.
    Diagnostics: ``last_info`` holds ``eigenvalue``, ``selected`` [n - f], ascending, and ``client_weights`` [n].

    Example:
        >>> updates = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.5, 1.5], [2.0, 2.0], [10.0, -10.0]])
        >>> SMEA(f=1)(updates)
        tensor([1.6250, 1.6250])
    """

    invariances = frozenset({"permutation", "translation", "scale", "orthogonal"})

    f: int
    max_subsets: int = 200_000

    def client_weights(self, updates: Tensor) -> Tensor:
        """Return [n]: 1/(n - f) for the rows of the subset with the least top eigenvalue, 0 for the others."""
        n, _ = check_rows(self, updates)
        check_subsets(self, n, self.f, self.max_subsets, "Allouah et al. 2023")
        distances = checked_distances(self, updates)[0]
        size = n - self.f
        best, selected = math.inf, None
        for chunk in subsets(n, size, max(1, CHUNK_NUMBERS // size**2)):
            rows = chunk.to(updates.device)
            values = _top_eigenvalues(distances[rows[:, :, None], rows[:, None, :]], best)
            least = float(values.min())
            if least < best * (1 - TIE):
                best = least
                selected = rows[int((values <= least * (1 + TIE)).int().argmax())]
        if selected is None:
            raise ValueError(f"SMEA found more than f={self.f} rows whose squared length overflows")
        self.last_info.update(eigenvalue=best / size, selected=selected)
        return equal_weights(updates, selected)


def _top_eigenvalues(distances: Tensor, best: float) -> Tensor:
    """Return the top eigenvalues [k] of the centred Gram matrices behind ``distances`` [k, m, m].

    Infinite where it cannot be below ``best``: the sum of squared eigenvalues over their sum is a lower bound.
    """
    to_mean = distances.mean(dim=2)
    grams = (to_mean[:, :, None] + to_mean[:, None, :] - to_mean.mean(dim=1)[:, None, None] - distances) / 2
    values = torch.full((len(grams),), math.inf, dtype=torch.float64, device=grams.device)
    trace = grams.diagonal(dim1=1, dim2=2).sum(dim=1)
    at_least = grams.square().sum(dim=(1, 2)) / trace
    hopeful = (trace == 0) | (at_least < best)
    values[hopeful] = torch.linalg.eigvalsh(grams[hopeful])[:, -1].clamp(min=0.0)
    return values
