"""What Min-Max and Min-Sum share: the direction in which the mean is shifted, and the search of the published code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from fedagg.attacks._rows import mean_and_std, row_mean

Direction = Literal["std", "unit", "sign"]
Search = Literal["exact", "official"]


def check_shift(attack: object, dev: str, ddof: int, search: str) -> None:
    """Raise ``ValueError`` unless direction, divisor and search are known ones."""
    name = type(attack).__name__
    if dev not in ("std", "unit", "sign"):
        raise ValueError(f"{name} needs dev in ['std', 'unit', 'sign']; got {dev!r}")
    if ddof < 0:
        raise ValueError(f"{name} needs ddof >= 0; got ddof={ddof}")
    if search not in ("exact", "official"):
        raise ValueError(f"{name} needs search in ['exact', 'official']; got {search!r}")


def mean_and_direction(attack: object, honest: Tensor, dev: Direction, ddof: int) -> tuple[Tensor, Tensor]:
    """Return the mean [d] of ``honest`` [h, d] and the direction [d] of the shift, in float64.

    The direction is the standard deviation ("std"), the mean made one long ("unit") or its signs ("sign").
    """
    if dev == "std":
        if len(honest) - ddof < 1:
            raise ValueError(
                f"{type(attack).__name__} needs h - ddof >= 1 honest updates for a standard deviation; "
                f"got h={len(honest)}, ddof={ddof}"
            )
        return mean_and_std(honest, ddof)
    mean = row_mean(honest)
    length = float(mean.norm())
    return mean, mean.sign() if dev == "sign" or length == 0 else mean / length


def official_gamma(feasible: Callable[[float], bool]) -> float:
    """Return the largest feasible shift that the published notebooks find: from 10, in steps of 5, 2.5, ...; below 20."""
    found, gamma, step = 0.0, 10.0, 5.0
    while abs(found - gamma) > 1e-5:
        if feasible(gamma):
            found = gamma
            gamma += step
        else:
            gamma -= step
        step /= 2
    return found
