"""Geometric median: the point with the least sum of distances to all updates.

Pillutla, Kakade and Harchaoui, "Robust Aggregation for Federated Learning", IEEE Transactions on Signal Processing 2022
(RFA, smoothed Weiszfeld).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from fedagg import Rule
from fedagg.contracts import check_rows
from fedagg.linalg import gram, row_norms
from strategies.rules._distances import checked_distances


@dataclass(frozen=True)
class GeometricMedian(Rule):
    """Approach the z with the least ``sum_i a_i ||u_i - z||``. Each pass weighs rows by how near they are:

        w_i = a_i / max(nu, ||u_i - z||),  w <- w / sum w,  z <- sum_i w_i u_i.

    The rows themselves are read twice, and once for the result: in between only their inner products are needed.

    Args:
        nu: rows nearer than this count as if they were this far. Far above the distances between rows the result is the mean.
        T: passes at most. A few passes are not the geometric median: say how many beside a number.
        tol: stop when no distance ||u_i - z|| changes by more than this fraction; 0 goes on until none changes at all.
        start: "mean" starts at the a-weighted mean, "zero" at the origin, which a few passes from there do not forget.

    Shapes: updates [n, d], weights [n] -> delta [d]. The weights are the a_i, of which only ratios matter; None is 1/n each.
    Bound: n >= 1, weights >= 0 and not all 0. While Byzantine rows are fewer than half, in weight, the result stays near the
        honest ones.
    Cost: time O(n^2 d + T n^2), memory the distances [n, n] and one block of columns.
    Differs from the source: it makes T = 4 passes with nu = 1e-5 and tol = 1e-6; the defaults here converge. It compares the
        sums of distances, which are flat near the least one and hide everything that is small beside a far row: one client at
        1e30 would stop it at 1e20. Rows so long that their squares overflow do not take part.
    Diagnostics: ``last_info`` holds ``iterations``, ``residual``, the largest fraction by which a distance changed in the last
        pass, and ``client_weights`` [n].

    Example:
        >>> updates = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.5, 1.5], [2.0, 2.0], [10.0, -10.0]])
        >>> GeometricMedian()(updates)
        tensor([1.6378, 1.4788])
    """

    uses_weights = True
    invariances = frozenset({"permutation", "translation", "orthogonal"})
    exempt = MappingProxyType({"translation": "one that starts at zero and stops soon has not forgotten where it started"})

    nu: float = 1e-6
    T: int = 200
    tol: float = 1e-10
    start: Literal["mean", "zero"] = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 < self.nu < math.inf and self.T >= 1 and self.tol >= 0):
            raise ValueError(f"GeometricMedian needs nu > 0, T >= 1, tol >= 0; got nu={self.nu}, T={self.T}, tol={self.tol}")
        if self.start not in ("mean", "zero"):
            raise ValueError(f"GeometricMedian needs start in ['mean', 'zero']; got {self.start!r}")

    def client_weights(self, updates: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return [n]: the w of the last pass, which sum to 1."""
        n, _ = check_rows(self, updates)
        if n == 0:
            raise ValueError("GeometricMedian needs n >= 1; got n=0")
        importance = torch.ones(n, dtype=torch.float64) if weights is None else weights.detach().cpu().double()
        if importance.shape != (n,):
            raise ValueError(f"weights must have shape [{n}], one for each row; got {list(importance.shape)}")
        distances, usable = checked_distances(self, updates)
        a = importance * usable.cpu()
        if not (0 < float(a.sum()) < math.inf and (a >= 0).all()):
            raise ValueError(f"GeometricMedian needs weights >= 0 that are not all 0; got {importance.tolist()}")
        products = _products_about_a_central_row(updates, distances, usable)
        a /= a.sum()
        w = a
        to_z = row_norms(updates).cpu() if self.start == "zero" else _distances_to(products, w)
        change, passes = math.inf, 0
        while passes < self.T and change > self.tol:
            w = a / to_z.clamp(min=self.nu)
            w = w / w.sum()
            before, to_z = to_z, _distances_to(products, w)
            change = float(((before - to_z).abs() / before.clamp(min=self.nu))[a > 0].max())
            passes += 1
        self.last_info.update(iterations=passes, residual=change)
        return w.to(updates.device, updates.dtype)


def _products_about_a_central_row(updates: Tensor, distances: Tensor, usable: Tensor) -> Tensor:
    """Return the inner products [n, n], on the CPU, of rows minus the one with the least median distance; 0 if not usable.

    About such a row the products of honest rows are small, so a far row, whose weight is as small as it is far, costs them no
    digits. In terms of distances both would be lost in differences of huge numbers.
    """
    middle = distances[usable][:, usable].median(dim=1).values
    center = updates[usable.nonzero().flatten()[int(middle.argmin())]]
    products = gram(updates, center)
    return torch.where(usable[:, None] & usable[None, :], products, 0.0).cpu()


def _distances_to(products: Tensor, w: Tensor) -> Tensor:
    """Return the distances [n] of all rows to their mean under ``w`` [n], which sums to 1."""
    mixed = products @ w
    return (products.diagonal() - 2 * mixed + w @ mixed).clamp(min=0.0).sqrt()
