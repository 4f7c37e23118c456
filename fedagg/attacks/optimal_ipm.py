"""Optimal IPM: point against the honest mean, by as much as hurts the rule most.

Xie, Koyejo, Gupta, "Fall of Empires: Breaking Byzantine-Tolerant SGD by Inner Product Manipulation", UAI 2019; with the size
chosen against the rule as in the byzfl library, after Allouah et al.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from fedagg.attacks._rows import row_mean, same_rows
from fedagg.attacks._strongest import Aggregator, Search, check_search, strength_of, strongest
from fedagg.contracts import Attack, check_attack_input


@dataclass(frozen=True)
class OptimalIPM(Attack):
    """Send f times

        -t * mu,    with the t >= 0 found to make    ||A([honest; f copies]) - mu||    largest,

    where mu is the mean of the honest rows and A the rule.

    Args:
        aggregator: A, [n, d] -> [d], without state. None: the engine lends what the server does to rows, and a direct call
            takes the mean.
        search: "grid" tries t = 0, 0.05, 0.1, 0.2, ..., 51.2 and narrows down the best by golden section; "byzfl" climbs from
            0 in steps that start with 10, as that library does, and can miss a small t.

    Shapes: honest [h, d] -> [f, d], equal rows.
    Bound: h >= 1; any f >= 0 that the rule stands.
    Cost: 24 calls of the rule (20 for "byzfl") and as many passes over the rows; memory one copy of the rows, [h + f, d].
    Ties: of equal strengths the smallest t that was tried. A rule that trims may not care about t, and then t is 0.
    Differs from the source: the default search is ours; it is never weaker than a point of its grid.
    Diagnostics: ``last_info`` holds ``t`` and ``strength``.

    Example:
        >>> import torch
        >>> honest = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.5, 1.5], [2.0, 2.0]])
        >>> OptimalIPM()(honest, f=1)
        tensor([[-83.2000, -83.2000]])
    """

    knowledge = "aggregator"

    aggregator: Aggregator | None = field(default=None, repr=False, compare=False)
    search: Search = "grid"

    def __post_init__(self) -> None:
        check_search(self, self.aggregator, self.search)

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
        """Return the strongest multiple of the negative mean, f times [f, d]."""
        check_attack_input(honest, f)
        if f == 0:
            return honest.new_empty(0, honest.shape[1])
        mean = row_mean(honest)
        strength = strength_of(self.aggregator, honest, f, mean)
        t, most = strongest(lambda t: strength(-t * mean), self.search)
        self.last_info.update(t=t, strength=most)
        return same_rows(-t * mean, f, honest)
