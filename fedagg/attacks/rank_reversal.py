"""Rank reversal: vote for the opposite of what the attackers have found out together.

Mozaffari, Shejwalkar, Houmansadr, "Every Vote Counts: Ranking-Based Training of Federated Learning to Resist Poisoning
Attacks", USENIX Security 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedagg.attacks._rows import same_rows
from fedagg.contracts import Attack, check_attack_input
from fedagg.rankings import check_rankings, positions


@dataclass(frozen=True)
class RankReversal(Attack):
    """Add up the positions of each edge over honest rankings of the attackers, and list the edges by that sum, largest first.

    What they find most important is then ranked least important; ties go to the smaller edge id.

    Args:
        pool: use so many rankings, the first ones, and let as many attackers train in a round in which one of them takes part,
            whether the server asked them or not; the authors' number is 25. None takes the attackers of the round.

    Shapes: honest [h, m] int64, each row a permutation of 0 .. m - 1 -> [f, m], all rows equal.
    Bound: h >= 1; any f >= 0.
    Cost: time O(h m + m log m), memory two rows; with a pool, the training of those who were not asked.
    Differs from the source: ties, which are arbitrary there; rounds with an attacking majority are not drawn again.

    Example:
        >>> honest = torch.tensor([[2, 0, 1, 3], [0, 2, 1, 3]])
        >>> RankReversal()(honest, f=1)
        tensor([[3, 1, 0, 2]])
    """

    knowledge = "corrupted"
    payloads = frozenset({"rankings"})

    pool: int | None = None

    def __post_init__(self) -> None:
        if self.pool is not None and (not isinstance(self.pool, int) or isinstance(self.pool, bool) or self.pool < 1):
            raise ValueError(f"RankReversal needs an integer pool >= 1, or None for all; got pool={self.pool}")
        object.__setattr__(self, "recruits", self.pool or 0)

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
        """Return the reversed ranking, ``f`` times, [f, m]."""
        check_attack_input(honest, f)
        used = honest[: self.pool]
        check_rankings(used, self)
        total = torch.zeros_like(used[0])
        for ranking in used:  # one at a time: memory for a few rows, whatever h is
            total += positions(ranking)
        return same_rows(total.argsort(descending=True, stable=True), f, honest)
