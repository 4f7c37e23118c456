"""MDA: minimum diameter averaging, average the n - f clients that lie closest together.

El Mhamdi, Guerraoui, Guirguis, Hoang and Rouault, "Genuinely Distributed Byzantine Machine Learning", PODC 2020.
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
from strategies.rules._subsets import check_subsets


@dataclass(frozen=True)
class MDA(Rule):
    """Average the subset S of ``n - f`` rows with the least diameter

        max ||u_i - u_j|| over i, j in S.

    Of the two ends of the longest distance one at least must be left out, then of the longest that remains, and so on f times:
    so at most 2^f subsets are looked at, not all C(n, f).

    Args:
        f: Byzantine clients tolerated, and rows left out. 0 gives the plain mean.
        max_subsets: raise where there are more subsets than this.

    Shapes: updates [n, d] -> delta [d]. Weights are the clients' own claims, so they are not used: kept rows count alike.
    Bound: n >= 2f + 1 and C(n, f) <= max_subsets.
    Cost: time O(n^2 d + 2^f n^2), memory the distances [n, n] and one block of columns.
    Ties: of subsets with equal diameters the first counts, in the lexicographic order of their row numbers. Several subsets
        may well share their longest distance, so the order of the rows matters unless the Byzantine rows stand out.
    Differs from the source: nothing but the tie rule, which it leaves open.
    Diagnostics: ``last_info`` holds ``diameter``, ``selected`` [n - f], ascending, and ``client_weights`` [n].

    Example:
        >>> updates = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.5, 1.5], [2.0, 2.0], [10.0, -10.0]])
        >>> MDA(f=1)(updates)
        tensor([1.6250, 1.6250])
    """

    invariances = frozenset({"translation", "scale", "orthogonal"})

    f: int
    max_subsets: int = 200_000

    def client_weights(self, updates: Tensor) -> Tensor:
        """Return [n]: 1/(n - f) for the rows of the narrowest subset, 0 for the others."""
        n, _ = check_rows(self, updates)
        check_subsets(self, n, self.f, self.max_subsets, "El Mhamdi et al. 2020")
        squares = checked_distances(self, updates)[0].cpu()
        first, second = torch.triu_indices(n, n, 1)
        length = squares[first, second]
        order = length.argsort(descending=True, stable=True)
        pairs = list(zip(first[order].tolist(), second[order].tolist(), strict=True))
        lengths = length[order].tolist()
        diameter = _least_diameter(pairs, [*lengths, 0.0], self.f)
        if not math.isfinite(diameter):
            raise ValueError(f"MDA found more than f={self.f} rows whose squared length overflows")
        apart = [set((squares[i] > diameter).nonzero().flatten().tolist()) for i in range(n)]
        selected = torch.tensor(_first_subset(apart, self.f), device=updates.device)
        self.last_info.update(diameter=math.sqrt(diameter), selected=selected)
        return equal_weights(updates, selected)


def _least_diameter(pairs: list[tuple[int, int]], lengths: list[float], f: int) -> float:
    """Return the least longest length that remains after leaving out f rows; ``pairs`` are ordered, longest first."""
    best = math.inf
    stack: list[tuple[int, frozenset[int]]] = [(0, frozenset())]
    while stack:
        place, out = stack.pop()
        while place < len(pairs) and not out.isdisjoint(pairs[place]):
            place += 1
        if len(out) == f or place == len(pairs):
            best = min(best, lengths[place])
        else:
            stack += [(place + 1, out | {end}) for end in pairs[place]]
    return best


def _first_subset(apart: list[set[int]], f: int) -> list[int]:
    """Return the first n - f rows, lexicographically, of which no two are ``apart``; there are such rows."""
    n = len(apart)
    kept: list[int] = []
    out: set[int] = set()
    for i in range(n):
        if i not in out and len(kept) < n - f and _coverable(apart, out | apart[i], f):
            kept.append(i)
            out |= apart[i]
    return kept


def _coverable(apart: list[set[int]], out: set[int], f: int) -> bool:
    """Return whether leaving out ``out`` and more, at most f rows, leaves no two rows apart."""
    if len(out) > f:
        return False
    for i, others in enumerate(apart):
        if i not in out and (rest := others - out):
            return _coverable(apart, out | {i}, f) or _coverable(apart, out | rest, f)
    return True
