"""What the optimal attacks share: the search for the row that moves a rule most."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from fedagg.attacks._rows import row_mean

Aggregator = Callable[[Tensor], Tensor]
Search = Literal["grid", "byzfl"]
GRID = [0.0, *(0.05 * 2.0**k for k in range(11))]
REFINEMENTS = 12
EVALUATIONS = 20  # of byzfl's search, the one at 0 included
GOLDEN = (math.sqrt(5) - 1) / 2


def check_search(attack: object, aggregator: Aggregator | None, search: str) -> None:
    """Raise ``ValueError`` unless the rule can be called and the search is a known one."""
    if aggregator is not None and not callable(aggregator):
        raise ValueError(f"{type(attack).__name__} needs an aggregator [n, d] -> [d], or None; got {aggregator!r}")
    if search not in ("grid", "byzfl"):
        raise ValueError(f"{type(attack).__name__} needs search in ['grid', 'byzfl']; got {search!r}")


def strength_of(aggregator: Aggregator | None, honest: Tensor, f: int, mean: Tensor) -> Callable[[Tensor], float]:
    """Return a function that says how far f copies of a row [d] move the aggregate away from ``mean`` [d].

    What is not finite counts as -infinity: a row that the dtype cannot hold would be found out.
    """
    rows = torch.cat([honest, honest.new_empty(f, honest.shape[1])])

    def strength(row: Tensor) -> float:
        rows[len(honest) :] = row
        if not rows[-1].isfinite().all():
            return -math.inf
        aggregate = row_mean(rows) if aggregator is None else aggregator(rows)
        moved = float((aggregate.double() - mean).norm())
        return moved if math.isfinite(moved) else -math.inf

    return strength


def strongest(strength: Callable[[float], float], search: Search) -> tuple[float, float]:
    """Return the t >= 0 with the largest strength that the search meets, the smallest of several; and that strength."""
    return _climb(strength) if search == "byzfl" else _grid_then_golden(strength)


def _grid_then_golden(strength: Callable[[float], float]) -> tuple[float, float]:
    """Evaluate the grid, then narrow the interval around its best point by golden section."""
    found = {t: strength(t) for t in GRID}
    place = GRID.index(_best(found))
    low, high = GRID[max(place - 1, 0)], GRID[min(place + 1, len(GRID) - 1)]
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    found[left], found[right] = strength(left), strength(right)
    for _ in range(REFINEMENTS - 2):
        if found[left] >= found[right]:
            high, right = right, left
            left = high - GOLDEN * (high - low)
            found[left] = strength(left)
        else:
            low, left = left, right
            right = low + GOLDEN * (high - low)
            found[right] = strength(right)
    best = _best(found)
    return best, found[best]


def _best(found: dict[float, float]) -> float:
    """Return the t of the largest strength, the smallest of several."""
    return min(found, key=lambda t: (-found[t], t))


def _climb(strength: Callable[[float], float]) -> tuple[float, float]:
    """Step up from 0 by twice as much each time; after the first step that is no gain, by 0.8 times as much each time."""
    best, most, step, factor = 0.0, strength(0.0), 10.0, 2.0
    for _ in range(EVALUATIONS - 1):
        tried = strength(best + step)
        gain = tried > most
        if gain:
            best, most = best + step, tried
        else:
            factor = 0.8
        step *= factor
    return best, most
