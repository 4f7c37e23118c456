"""Centered clipping: move from the last aggregate towards the clients, none of whom may pull further than tau.

Karimireddy, He, Jaggi, "Learning from History for Byzantine Robust Optimization", ICML 2021.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from fedagg import Rule
from fedagg.contracts import check_rows
from fedagg.linalg import row_norms, weighted_sums
from strategies.rules._norms import clip_factors, finite_norms


@dataclass
class CenteredClip(Rule):
    """Start from the center v, which is zero at first and then the previous result, and L times set

        v <- v + (1/n) sum_i (u_i - v) min(1, tau / ||u_i - v||).

    Args:
        tau: how far from v a row may be before it is clipped, in the units of updates. Large gives the mean, which is not
            robust; small follows slowly, because v moves by tau at most in each pass.
        L: passes per call. More come closer to where the clipped pulls cancel.

    Shapes: updates [n, d] -> delta [d]. Weights are the clients' own claims, so they are not used.
    Bound: tau > 0, L >= 1 and n >= 1. f Byzantine rows move the result by at most L tau f / n.
    Cost: time O(L n d), memory one block of columns in float64.
    State: ``center`` [d], dtype and device of the updates; None before the first call.
    Differs from the source: it clips momentum; here whatever rows there are. Rows whose squared norm is not finite are
        refused, because one would stay in v for ever.
    Diagnostics: ``last_info`` holds ``distances`` [n] of the rows to the center before the last pass, and ``clipped`` [n],
        whether that pass shortened their pull.

    Example:
        >>> updates = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.5, 1.5], [2.0, 2.0], [10.0, -10.0]])
        >>> rule = CenteredClip(tau=2.0)
        >>> rule(updates)
        tensor([1.3852, 0.8195])
        >>> rule(updates).allclose(CenteredClip(tau=2.0, L=2)(updates))
        True
    """

    invariances = frozenset({"permutation", "orthogonal"})  # while the center is zero
    exempt = MappingProxyType({"equal_rows": "it moves by at most tau a pass"})

    tau: float = 100.0
    L: int = 1
    _center: Tensor | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.tau < math.inf or self.L < 1:
            raise ValueError(f"CenteredClip needs a finite tau > 0 and L >= 1; got tau={self.tau}, L={self.L}")

    def __call__(self, updates: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the new center [d]."""
        n, d = check_rows(self, updates)
        if n == 0:
            raise ValueError("CenteredClip needs n >= 1; got n=0")
        if self._center is not None and self._center.shape != (d,):
            raise ValueError(f"CenteredClip has a center of {len(self._center)} coordinates, the updates have {d}; reset() it")
        center = torch.zeros(d, dtype=torch.float64, device=updates.device)
        if self._center is not None:
            center += self._center.to(updates.device)
        finite_norms(self, updates)
        for _ in range(self.L):
            distances = row_norms(updates, center)
            factors = clip_factors(distances, self.tau)
            center = (1 - factors.mean()) * center + weighted_sums(updates, factors[None] / n)[0]
        self.last_info.update(distances=distances, clipped=factors < 1)
        result = center.to(updates.dtype)
        self._center = result.clone()
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return the center, copied."""
        return {"center": None if self._center is None else self._center.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a copy of the center in ``state``."""
        center = state["center"]
        self._center = None if center is None else center.clone()

    def reset(self) -> None:
        """Start from zero again."""
        self._center = None
