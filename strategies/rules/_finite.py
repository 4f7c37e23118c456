"""What a rule says to rows that hold NaN or infinity."""

from __future__ import annotations

from torch import Tensor


def all_finite(values: Tensor) -> bool:
    """Return whether no entry is NaN or infinite. A sum says so at a fortieth of the price, unless it overflows itself."""
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def refuse_non_finite(rule: object, updates: Tensor) -> None:
    """Raise ``ValueError`` naming the rows of ``updates`` [n, d] that hold NaN or infinity, if there are any.

    It reads the whole matrix, so rules call it only after a cheaper look at what they computed went wrong.
    """
    rows = (~updates.isfinite()).any(dim=1).nonzero().flatten().tolist()
    if rows:
        name = type(rule).__name__
        raise ValueError(f"{name} needs finite updates; rows {rows} hold NaN or infinity. fedagg.Strategy drops such rows")
