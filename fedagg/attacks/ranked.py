"""An attack on updates, carried over to rankings: what it would do to the places of edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fedagg.attacks.sign_flip import SignFlip
from fedagg.contracts import Attack, check_attack_input, cohort_size
from fedagg.rankings import check_rankings, frl_rank, positions


@dataclass(frozen=True)
class Ranked(Attack):
    """Let ``attack`` see by how many places each client moved each edge, and rank edges by where its rows would put them.

    With p the positions in the ranking that was received and p_i those of client i, the rows of ``attack`` are p_i - p; of a
    row u it makes, the ranking that is sent is the stable order of p + u. Layers are attacked apart, so lengths and distances
    are those within one. What cannot be ranked, such as NaN, comes last.

    Args:
        attack: makes updates. It has no state, for it meets many layers, and knows honest updates at most: neither rule nor
            earlier rounds are known as places.

    Shapes: honest [h, m] int64, each row a permutation of 0 .. m - 1 -> [f, m].
    Bound: that of ``attack``.
    Cost: that of ``attack`` on float64 rows, and n rankings of m edges.

    Example:
        >>> from fedagg.attacks import SignFlip
        >>> honest = torch.tensor([[2, 0, 1, 3], [0, 2, 1, 3]])
        >>> Ranked(SignFlip(scale=2.0))(honest, f=1, params=torch.tensor([0, 1, 2, 3]))
        tensor([[0, 1, 3, 2]])
    """

    payloads = frozenset({"rankings"})

    attack: Attack = field(default_factory=SignFlip)

    def __post_init__(self) -> None:
        attack: Any = self.attack
        if not isinstance(attack, Attack) or "rankings" in attack.payloads:
            raise ValueError(f"Ranked needs an attack on updates; got {attack!r}")
        if attack.knowledge in ("aggregator", "history"):
            raise ValueError(f"Ranked needs an attack that knows honest updates at most; {attack} knows {attack.knowledge!r}")
        if getattr(attack, "poison", None) is not None:
            raise ValueError(f"Ranked needs an attack on updates alone; {attack} poisons data")
        if hasattr(attack, "state_dict"):
            raise ValueError(f"Ranked needs an attack without state; {attack} has some")
        object.__setattr__(self, "knowledge", attack.knowledge)
        object.__setattr__(self, "random", attack.random)

    @property
    def generator(self) -> torch.Generator | None:
        """Where a random ``attack`` draws from; there is no such attribute where nothing draws."""
        source: torch.Generator | None = self.attack.generator  # type: ignore[attr-defined]
        return source

    @generator.setter
    def generator(self, source: torch.Generator | None) -> None:
        object.__setattr__(self.attack, "generator", source)

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
        n: int | None = None,
    ) -> Tensor:
        """Return the rankings [f, m] of what ``attack`` makes; without ``params`` edges stood in the order of their ids."""
        check_attack_input(honest, f)
        edges = honest.shape[1]
        received = torch.arange(edges, device=honest.device) if params is None else params
        check_rankings(received[None], self)
        before = positions(received).double()

        def moved(rankings: Tensor) -> Tensor:
            check_rankings(rankings, self)
            return positions(rankings).double() - before

        hidden = self.attack.knowledge == "own"  # what it must not see may be anything
        seen = torch.full(honest.shape, torch.nan, dtype=before.dtype, device=honest.device) if hidden else moved(honest)
        mine = None if own is None else moved(own)
        size = {} if n is None else cohort_size(self.attack, n)
        rows = self.attack(seen, f, own=mine, params=before, round=round, client_ids=client_ids, **size)
        rankings = [frl_rank(before + row).to(honest) for row in rows]
        return torch.stack(rankings) if rankings else honest.new_empty(0, edges)
