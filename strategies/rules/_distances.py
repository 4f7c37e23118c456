"""Distances between rows, with the rows that no rule may use set apart."""

from __future__ import annotations

from torch import Tensor

from fedagg.linalg import row_norms, squared_distances
from strategies.rules._finite import refuse_non_finite


def checked_distances(rule: object, updates: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared distances, and which rows are short enough for them.

    Args:
        rule: who asks; its name is in the errors.
        updates: [n, d], finite.

    Returns:
        [n, n] float64, infinite to and from a row whose squared length overflows; and [n] bool, False for such a row.
    """
    distances = squared_distances(updates)
    finite = distances.isfinite()
    if len(updates) > 1 and finite.all():  # a row alone has no distance that could tell
        return distances, finite.diagonal()
    refuse_non_finite(rule, updates)
    usable = row_norms(updates).square().isfinite()
    if not usable.any():
        raise ValueError(f"{type(rule).__name__} found no row whose squared length is finite")
    return distances, usable
