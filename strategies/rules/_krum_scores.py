"""Krum's scores, and the rows that have the least: what Krum and Multi-Krum share."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from fedagg.contracts import check_rows
from fedagg.linalg import squared_distances
from strategies.rules._finite import refuse_non_finite

Neighbours = Literal["paper", "byzfl"]
LEFT_OUT = {"paper": 2, "byzfl": 1}  # a score counts n - f - this many of the other rows
POWERS = (1, 2, 4)


def check_variant(rule: object, neighbours: str, power: int) -> None:
    """Raise ``ValueError`` unless the score is one of the known variants."""
    if neighbours not in LEFT_OUT:
        raise ValueError(f"{type(rule).__name__} needs neighbours in {list(LEFT_OUT)}; got {neighbours!r}")
    if power not in POWERS:
        raise ValueError(f"{type(rule).__name__} needs power in {list(POWERS)}; got {power!r}")


def krum_scores(rule: object, updates: Tensor, f: int, neighbours: Neighbours, power: int) -> Tensor:
    """Return each row's score: the sum of ``||u_i - u_j||^power`` over the nearest other rows j.

    Args:
        rule: who asks; its name is in the errors.
        updates: [n, d], finite.
        f: Byzantine clients tolerated; n >= 2f + 3.
        neighbours: how many other rows count: n - f - 2 ("paper") or n - f - 1 ("byzfl").
        power: of the Euclidean distance.

    Returns:
        [n] float64; not finite for a row whose distances overflow.
    """
    n, _ = check_rows(rule, updates)
    if f < 0 or n < 2 * f + 3:
        needs = "f >= 0 and n >= 2f + 3" if f < 0 else "n >= 2f + 3"
        raise ValueError(f"{type(rule).__name__} needs {needs} (Blanchard et al. 2017); got n={n}, f={f}")
    distances = squared_distances(updates)
    if not distances.isfinite().all():
        refuse_non_finite(rule, updates)  # what remains are rows so long that their squares overflow; they sort last
    distances.fill_diagonal_(math.inf)  # a row is no neighbour of itself; its twin is
    nearest = distances.sort(dim=1).values[:, : n - f - LEFT_OUT[neighbours]]
    return nearest.pow(power / 2).sum(dim=1)


def least_rows(rule: object, scores: Tensor, m: int) -> Tensor:
    """Return the indices of the m least scores, best first; of equal scores the lower index comes first."""
    ranked = scores.sort(stable=True)
    if not ranked.values[:m].isfinite().all():
        raise ValueError(f"{type(rule).__name__} found fewer than {m} rows at finite distances of their neighbours")
    return ranked.indices[:m]


def equal_weights(updates: Tensor, selected: Tensor) -> Tensor:
    """Return [n]: 1/m for each of the m selected rows, 0 for the others; dtype and device of ``updates``."""
    weights = torch.zeros(updates.shape[0], dtype=updates.dtype, device=updates.device)
    weights[selected] = 1.0 / len(selected)
    return weights
