"""Fang's attack on Krum: go against the honest signs as far as Krum still picks the attackers.

Fang, Cao, Jia, Gong, "Local Model Poisoning Attacks to Byzantine-Robust Federated Learning", USENIX Security 2020.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedagg.attacks._rows import around, row_mean, same_rows
from fedagg.contracts import Attack, check_attack_input
from fedagg.linalg import squared_distances


@dataclass(frozen=True)
class FangKrum(Attack):
    """Send f times

        -lambda * sign(mu),

    with mu the mean of the honest rows x_i. lambda starts at

        min_i (sum of ||x_i - x_j|| over the h - f - 2 other rows j nearest to x_i) / ((h - f - 1) sqrt(d))
            + max_i ||x_i|| / sqrt(d)

    and is halved until Krum with this f, given the honest rows and then the f copies, picks a copy, or lambda <= min_lambda.

    Args:
        min_lambda: where to give up. Honest rows that are close together and far from 0 leave no room: the attack is void.

    Shapes: honest [h, d] -> [f, d], equal rows.
    Bound: h >= f + 3, Krum's n >= 2f + 3; finite distances.
    Cost: time O(h^2 d), memory the distances [h, h] and one block of columns in float64; a step of the search costs O(h^2).
    Ties: of equal scores Krum picks the first row, which is honest.
    Differs from the source: the start is that of the code published with Shejwalkar, Houmansadr, NDSS 2021.
    Diagnostics: ``last_info`` holds ``lambda``, and ``void`` = True where Krum picks no copy.

    Example:
        >>> honest = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, -1.0], [-0.2, 0.3], [0.1, 0.1]])
        >>> FangKrum()(honest, f=2)
        tensor([[-0.4590, -0.4590],
                [-0.4590, -0.4590]])
    """

    knowledge = "aggregator"

    min_lambda: float = 1e-5

    def __post_init__(self) -> None:
        if not 0 < self.min_lambda < math.inf:
            raise ValueError(f"FangKrum needs a finite min_lambda > 0; got min_lambda={self.min_lambda}")

    def __call__(
        self,
        honest: Tensor,
        f: int,
        *,
        own: Tensor | None = None,
        last_delta: Tensor | None = None,
        params: Tensor | None = None,
        round: int = 0,
        client_ids: Sequence[int] | None = None,
    ) -> Tensor:
        """Return the row that Krum picks, f times [f, d]."""
        check_attack_input(honest, f)
        h, d = honest.shape
        if f == 0:
            return honest.new_empty(0, d)
        if h < f + 3:
            raise ValueError(f"FangKrum needs h >= f + 3 honest updates (Krum's n >= 2f + 3); got h={h}, f={f}")
        signs = row_mean(honest).sign()
        distances = squared_distances(honest).fill_diagonal_(math.inf).sort(dim=1).values[:, : h - 1]
        squares, along = around(honest, torch.zeros_like(signs), signs)
        nearest = distances[:, : h - f - 2].sqrt().sum(dim=1).min() / (h - f - 1)
        size = float((nearest + squares.max().sqrt()) / math.sqrt(d))
        if not math.isfinite(size):
            raise ValueError("FangKrum needs honest updates with finite distances")
        length = float(signs.square().sum())

        def picked(size: float) -> bool:
            return _picks_a_copy(distances, (squares + 2 * size * along + size**2 * length).clamp(min=0.0), f)

        while not picked(size) and size > self.min_lambda:
            size /= 2
        self.last_info.clear()
        self.last_info.update({"lambda": size} if picked(size) else {"lambda": size, "void": True})
        return same_rows(-size * signs, f, honest)


def _picks_a_copy(others: Tensor, to_copy: Tensor, f: int) -> bool:
    """Return whether Krum, given h rows and then f copies of one more, picks a copy.

    Args:
        others: [h, h-1], squared distances of every row to the others, ascending.
        to_copy: [h], squared distances to the copied row.
        f: copies, and Byzantine clients that Krum tolerates: n - f - 2 = h - 2 neighbours count.
    """
    h = len(others)
    rows = torch.cat([others, to_copy[:, None].expand(h, f)], dim=1).sort(dim=1).values[:, : h - 2].sum(dim=1)
    copy = to_copy.sort().values[: h - 1 - f].sum()  # the other f - 1 copies are at distance 0
    return bool(copy < rows.min())
