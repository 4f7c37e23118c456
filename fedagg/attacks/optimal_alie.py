"""Optimal ALIE: a little is enough, by as much as hurts the rule most.

Baruch, Baruch, Goldberg, "A Little Is Enough: Circumventing Defenses For Distributed Learning", NeurIPS 2019; with the shift
chosen against the rule as in the byzfl library, after Allouah et al.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from fedagg.attacks._rows import mean_and_std, same_rows
from fedagg.attacks._strongest import Aggregator, Search, check_search, strength_of, strongest
from fedagg.contracts import Attack, check_attack_input


@dataclass(frozen=True)
class OptimalALIE(Attack):
    """Send f times

        mu + sign * t * sigma,    with the t >= 0 found to make    ||A([honest; f copies]) - mu||    largest,

    where mu and sigma are the mean and the standard deviation of every coordinate over the honest rows, and A is the rule.

    Args:
        aggregator: A, [n, d] -> [d], without state. None: the engine lends what the server does to rows, and a direct call
            takes the mean.
        search: "grid" tries t = 0, 0.05, 0.1, 0.2, ..., 51.2 and narrows down the best by golden section; "byzfl" climbs from
            0 in steps that start with 10, as that library does, and can miss a small t.
        sign: 1 or -1, the side on which to lie.
        ddof: the variance divides by h - ddof.

    Shapes: honest [h, d] -> [f, d], equal rows.
    Bound: h > ddof; any f >= 0 that the rule stands.
    Cost: 24 calls of the rule (20 for "byzfl") and as many passes over the rows; memory one copy of the rows, [h + f, d].
    Ties: of equal strengths the smallest t that was tried.
    Differs from the source: the default search is ours; it is never weaker than a point of its grid.
    Diagnostics: ``last_info`` holds ``t`` and ``strength``.

    Example:
        >>> import torch
        >>> honest = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.5, 1.5], [2.0, 2.0]])
        >>> OptimalALIE(aggregator=lambda rows: rows.median(dim=0).values)(honest, f=1)
        tensor([[2.0010, 2.0010]])
    """

    knowledge = "aggregator"

    aggregator: Aggregator | None = field(default=None, repr=False, compare=False)
    search: Search = "grid"
    sign: int = 1
    ddof: int = 1

    def __post_init__(self) -> None:
        check_search(self, self.aggregator, self.search)
        if self.sign not in (1, -1):
            raise ValueError(f"OptimalALIE needs sign 1 or -1; got sign={self.sign}")
        if self.ddof < 0:
            raise ValueError(f"OptimalALIE needs ddof >= 0; got ddof={self.ddof}")

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
        """Return the strongest shifted mean, f times [f, d]."""
        check_attack_input(honest, f)
        h, d = honest.shape
        if f == 0:
            return honest.new_empty(0, d)
        if h - self.ddof < 1:
            raise ValueError(
                f"OptimalALIE needs h - ddof >= 1 honest updates for a standard deviation; got h={h}, ddof={self.ddof}"
            )
        mean, std = mean_and_std(honest, self.ddof)
        strength = strength_of(self.aggregator, honest, f, mean)
        t, most = strongest(lambda t: strength(mean + self.sign * t * std), self.search)
        self.last_info.update(t=t, strength=most)
        return same_rows(mean + self.sign * t * std, f, honest)
