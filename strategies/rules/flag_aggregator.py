"""Flag aggregator: find the subspace that the directions of most rows share, and keep what lies in it.

Almasi, Mishra, Vamanan, Ravi, "Flag Aggregator: Scalable Distributed Training under Failures and Augmented Losses using
Convex Optimization", ICLR 2024.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from fedagg import Rule
from fedagg.contracts import check_rows, private_generator
from fedagg.linalg import COLUMNS, gram, weighted_sum
from strategies.rules._norms import finite_norms, resolution

SHORTEST = 1e-12  # rows shorter than this are not brought to length 1
SOFT = 1e-7  # keeps the weight of a row that lies in the subspace finite


@dataclass(frozen=True)
class FlagAggregator(Rule):
    """With x_i the rows at length 1, look for an orthonormal Y [d, r] that makes

        sum_i sqrt(1 - ||Y^T x_i||^2) + lam / (n (n - 1)) sum_{i != j} sqrt(|1 - ||Y^T (x_i - x_j)||^2|)

    small, by passes in which Y becomes the top r left singular vectors of the columns above, each divided by the square root
    of its root. A pass that does not lower the first sum is undone and is the last. Return Y Y^T sum_i x_i / r.

    The result has a length of about n / r whatever the rows' own, so the scale is the server optimizer's learning rate. A row
    and its reverse lie in one subspace: against rows that are turned around only the sum helps.

    Args:
        r: dimensions to keep, from 1 to min(n, d); None is min(ceil((n + 1) / 2), d). Fewer suits clients that agree.
        lam: weight of the differences between rows.
        iters: passes at most.
        start: first Y. "svd": the top r left singular vectors of the x_i. "axes": the first r unit axes. "random":
            orthonormalised draws from a uniform distribution, as the source does.
        generator: source of a random start. None: the engine lends one from the seed tree, and a direct call uses seed 0 each
            time.

    Shapes: updates [n, d] -> delta [d]. Weights are the clients' own claims, so they are not used.
    Bound: n >= 1 and 1 <= r <= min(n, d).
    Cost: time O(n^2 d), memory one block of columns in float64; a random start also Y [d, r]. Y is kept as combinations of
        rows, so a pass takes O(n^3), whatever lam.
    Differs from the source: it starts at random and makes one pass. Directions in which the rows hold nothing but rounding
        are left out of Y.
    Diagnostics: ``last_info`` holds ``objective``, the first sum at the start and after each pass.

    Example:
        >>> updates = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.5, 1.5], [2.0, 2.0], [10.0, -10.0]])
        >>> FlagAggregator(r=1)(updates)
        tensor([2.7559, 2.7559])
    """

    random = True
    invariances = frozenset({"permutation", "orthogonal"})  # with start="svd"
    exempt = MappingProxyType(
        {
            "draws": "only a random start draws",
            "equal_rows": "rows are brought to length 1",
            "orthogonal": "a start other than svd does not turn with the rows",
        }
    )

    r: int | None = None
    lam: float = 0.0
    iters: int = 5
    start: Literal["svd", "axes", "random"] = "svd"
    generator: torch.Generator | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start not in ("svd", "axes", "random"):
            raise ValueError(f"FlagAggregator needs start in ['svd', 'axes', 'random']; got {self.start!r}")
        if not 0 <= self.lam < math.inf or self.iters < 0:
            raise ValueError(f"FlagAggregator needs a finite lam >= 0 and iters >= 0; got lam={self.lam}, iters={self.iters}")

    def __call__(self, updates: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the part [d] of the sum of directions that lies in the subspace, divided by r."""
        n, d = check_rows(self, updates)
        r = min((n + 2) // 2, d) if self.r is None else self.r
        if not 1 <= r <= n:
            raise ValueError(f"FlagAggregator needs 1 <= r <= n (Almasi et al. 2024); got n={n}, r={r}")
        if r > d:
            raise ValueError(f"FlagAggregator needs r <= d (Almasi et al. 2024); got d={d}, r={r}")
        lengths = finite_norms(self, updates).clamp(min=SHORTEST)
        products = gram(updates) / (lengths[:, None] * lengths[None, :])
        floor = 0.01 * resolution(updates)
        if self.start == "svd":
            combination, inside = _subspace(products, torch.eye(n, dtype=torch.float64, device=updates.device), r, floor)
        else:
            combination, basis = None, self._first(d, r).to(updates.device)  # this Y is not made of rows
            inside = _project(updates, basis) / lengths
        objective = [_outside(inside)]
        while len(objective) <= self.iters:
            candidate, projections = _subspace(products, self._factor(inside), r, floor)
            objective.append(_outside(projections))
            if not objective[-1] < objective[-2]:
                break
            combination, inside = candidate, projections
        self.last_info["objective"] = objective
        total = inside.sum(dim=1) / r
        if combination is None:
            return (basis @ total).to(updates.dtype)
        return weighted_sum(updates, combination @ total / lengths)

    def _first(self, d: int, r: int) -> Tensor:
        """Return the Y [d, r] to start with that does not depend on the rows."""
        if self.start == "axes":
            return torch.eye(d, r, dtype=torch.float64)
        source = private_generator(self.generator)
        draws = torch.rand(d, r, generator=source, dtype=torch.float64, device=source.device)
        basis: Tensor = torch.linalg.qr(draws - 0.5).Q
        return basis

    def _factor(self, inside: Tensor) -> Tensor:
        """Return F [n, n] such that X^T F has the left singular vectors of the weighted columns; ``inside`` [r, n] is Y^T X^T.

        With weights a_i for the rows and b_ij for their differences, F F^T is a diagonal matrix plus a graph's Laplacian.
        """
        n = inside.shape[1]
        squares = torch.diag((1 - inside.square().sum(dim=0)).abs().add(SOFT).rsqrt())
        if self.lam > 0 and n > 1:
            apart = torch.cdist(inside.T, inside.T, compute_mode="donot_use_mm_for_euclid_dist").square()
            pairs = (1 - apart).abs().add(SOFT).rsqrt().fill_diagonal_(0.0) * (self.lam / (n * (n - 1))) ** 2
            squares += 2 * (torch.diag(pairs.sum(dim=1)) - pairs)
        factor: Tensor = torch.linalg.cholesky(squares)
        return factor


def _subspace(products: Tensor, factor: Tensor, r: int, floor: float) -> tuple[Tensor, Tensor]:
    """Return the top r left singular vectors Y = X^T C of X^T ``factor``, as C [n, r], and Y^T X^T [r, n].

    Args:
        products: X X^T [n, n].
        factor: [n, n].
        r: vectors.
        floor: of the largest squared singular value; vectors of lower ones are nothing but rounding, and become zero.
    """
    values, vectors = torch.linalg.eigh(factor.T @ products @ factor)
    values, vectors = values[-r:], vectors[:, -r:]
    inverse = torch.where(values > floor * values[-1], values.clamp(min=0).rsqrt(), 0.0)
    combination = factor @ (vectors * inverse)
    return combination, combination.T @ products


def _outside(inside: Tensor) -> float:
    """Return the sum over the rows of their distance from the subspace, in which they are ``inside`` [r, n]."""
    return float((1 - inside.square().sum(dim=0)).clamp(min=0).sqrt().sum())


def _project(updates: Tensor, basis: Tensor) -> Tensor:
    """Return ``basis`` [d, r] transposed times the rows of ``updates`` [n, d], as [r, n] in float64."""
    result = torch.zeros(basis.shape[1], len(updates), dtype=torch.float64, device=updates.device)
    for start in range(0, len(basis), COLUMNS):
        block = slice(start, start + COLUMNS)
        result += basis[block].T @ updates[:, block].double().T
    return result
