"""Federated Rank Learning, the server's half: clients rank the edges of a network that nobody trains, and the server counts.

Mozaffari, Shejwalkar, Houmansadr, "Every Vote Counts: Ranking-Based Training of Federated Learning to Resist Poisoning
Attacks", USENIX Security 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedagg import Cohort, EdgePopup, Strategy
from fedagg.contracts import Payload
from fedagg.errors import ConfigError
from fedagg.rankings import checked_sparsity, frl_mask, frl_rank, frl_vote, importance, ranking_bits
from fedagg.server_optimizers import ServerOptimizer, Step
from strategies.protocols._frl_traffic import Traffic, traffic

__all__ = ["FRL", "EdgePopup", "Traffic", "frl_mask", "frl_rank", "frl_vote", "ranking_bits", "traffic"]


class FRL(Strategy):
    """Every client ranks the edges of each layer; the positions of an edge are added up, and that order is the new ranking.

    The scores s_(1) <= ... <= s_(m) with which a layer began stay on the server for good. In every round they are handed out
    anew along the order in which clients see the edges together,

        S_e = sum_i position of e in the ranking of i,    score of the edge with the j-th smallest S := s_(j),

    so what one client can move is bounded: a place is a place. One client has one vote, whatever it claims to have trained on.
    Up and down go rankings alone. The clients' half is ``EdgePopup``, with the same three settings.

    Args:
        sparsity: the fraction of each layer's edges that is *kept*, in (0, 1].
        rank_by: clients rank by scores as they are ("signed") or by magnitude ("abs"). The latter learns little: the vote
            hands out signed scores, so what is rated least by magnitude gets the most negative one.
        mask_by: the edges that count are those of largest magnitude ("abs") or of largest score ("signed"). The defaults are
            those of the authors' code: after a vote the top *and* the bottom quarter of a ranking then count.
        engine: what ``Strategy`` takes, but for ``rule``, ``weighting``, ``pre_aggregators`` and ``server_optimizer``: a vote
            leaves them nothing to do.

    Shapes: extras["rankings"] [n, d] -> scores [d]; each of ``layers`` is a permutation (all d are, where no layer is known).
    Bound: n >= 1; at most (n - 1) / 2 attackers are meant to be borne. A reply that is no permutation is dropped and counted.
    Cost: time O(n d + d log d), memory two vectors [d] beside the rankings.
    Differs from the source: ties go to the smaller id.

    Example:
        >>> scores = torch.tensor([0.31, -0.25, 0.05, -0.4, 0.12, 0.38])
        >>> rankings = torch.tensor([[5, 3, 1, 4, 2, 0], [4, 3, 1, 5, 2, 0], [5, 1, 2, 3, 4, 0]])
        >>> cohort = Cohort(round=1, client_ids=[2, 5, 7], updates=torch.zeros(3, 6), params=scores,
        ...                 num_examples=torch.ones(3), extras={"rankings": rankings})
        >>> FRL().aggregate(cohort)
        tensor([ 0.3800, -0.2500,  0.3100,  0.0500,  0.1200, -0.4000])
    """

    payload: ClassVar[Payload] = "rankings"
    client_half: ClassVar[str] = "EdgePopup"
    shared: ClassVar[tuple[str, ...]] = ("sparsity", "rank_by", "mask_by")

    def __init__(self, sparsity: float = 0.5, rank_by: str = "signed", mask_by: str = "abs", **engine: Any) -> None:
        checked_sparsity(sparsity)
        importance(torch.empty(0), "rank_by", rank_by)
        importance(torch.empty(0), "mask_by", mask_by)
        nothing: dict[str, Any] = {"rule": None, "weighting": None, "pre_aggregators": (), "server_optimizer": Step()}
        for part, none in nothing.items():
            given = engine.pop(part, None) or none
            if given != none:
                raise ConfigError(f"FRL counts votes, one a client, so {part}={given} would have no effect; leave it out")
        super().__init__(**engine, server_optimizer=_AsElected())
        self.sparsity, self.rank_by, self.mask_by = sparsity, rank_by, mask_by
        self._initial: Tensor | None = None  # [d], the scores of each layer at the start of the run, ascending

    def __repr__(self) -> str:
        return (
            f"FRL(sparsity={self.sparsity}, rank_by={self.rank_by!r}, mask_by={self.mask_by!r}, cohort={self.cohort}, "
            f"evaluate_every={self.evaluate_every}, seed={self.seed})"
        )

    def aggregate(self, cohort: Cohort) -> Tensor:
        """Return the elected scores [d], which the server takes as they are.

        ``round_metrics`` holds, as ``mask_changed``, the share of all edges that count since this round.
        """
        rankings, before = cohort.extras.get("rankings"), cohort.params
        if rankings is None:
            raise ValueError("FRL needs the clients' rankings in extras['rankings']; clients train with EdgePopup")
        layers = self.layers or [slice(0, len(before))]
        if self._initial is None:
            self._initial = torch.cat([before[layer].sort().values for layer in layers])
        initial = self._initial.to(before)
        elected = torch.cat([frl_vote(rankings[:, layer], initial[layer]) for layer in layers])
        changed = sum(int((self._mask(elected[layer]) & ~self._mask(before[layer])).sum()) for layer in layers)
        self.round_metrics["mask_changed"] = changed / len(elected)
        return elected

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the parts and the initial scores."""
        return {**super().state_dict(), "initial": self._initial}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``."""
        super().load_state_dict(state)
        self._initial = state["initial"]

    def _mask(self, scores: Tensor) -> Tensor:
        return frl_mask(scores, self.sparsity, self.mask_by)


@dataclass(frozen=True)
class _AsElected(ServerOptimizer):
    """The vote is the model: nothing is added to anything, so that no score is ever rounded."""

    def __call__(self, params: Tensor, delta: Tensor) -> Tensor:
        return delta.to(params)
