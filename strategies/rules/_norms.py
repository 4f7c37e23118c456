"""Norms of rows that are fit to be used, what clipping to a norm multiplies them by, and cosines between them."""

from __future__ import annotations

import torch
from torch import Tensor

from fedagg.linalg import row_norms
from strategies.rules._finite import refuse_non_finite


def finite_norms(rule: object, updates: Tensor) -> Tensor:
    """Return the Euclidean norms [n] of the rows of ``updates`` [n, d], in float64.

    Raises ``ValueError`` naming rows that hold NaN or infinity, and rows so long that their squared norm overflows.
    """
    norms = row_norms(updates)
    wrong = ~norms.square().isfinite()
    if wrong.any():
        refuse_non_finite(rule, updates)
        rows = wrong.nonzero().flatten().tolist()
        raise ValueError(f"{type(rule).__name__} needs rows with a finite squared norm; rows {rows} have none")
    return norms


def clip_factors(norms: Tensor, limit: Tensor | float) -> Tensor:
    """Return [n]: min(1, limit / norm), which shortens rows of these ``norms`` [n] to ``limit``; 1 for a zero row."""
    return torch.where(norms > limit, limit / norms, 1.0)


def resolution(updates: Tensor) -> float:
    """Return the difference below which two cosines of rows of ``updates`` are the same, as inner products are rounded."""
    return 1e-12 if updates.dtype == torch.float64 else 1e-5


def cosines(products: Tensor) -> Tensor:
    """Return the cosines [n, n] of rows from their inner ``products`` [n, n]; 0 where a row is zero."""
    norms = products.diagonal().sqrt()
    inverse = torch.where(norms > 0, 1 / norms, 0.0)
    return (products * inverse[:, None] * inverse[None, :]).clamp(-1.0, 1.0)
