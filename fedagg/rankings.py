"""Rankings of a layer's edges: how scores become one, what many of them elect, and which edges count.

Mozaffari, Shejwalkar, Houmansadr, "Every Vote Counts: Ranking-Based Training of Federated Learning to Resist Poisoning
Attacks", USENIX Security 2023. A ranking lists edge ids from the least to the most important; the position of an edge is its
place in that list. All ties go to the smaller id first.
"""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Real
from operator import index
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedagg.console import suggest
from fedagg.errors import ConfigError

ORDERS = ("signed", "abs")
NOT_RANKED = -1  # in place of every id, where scores are not finite and have no order


def frl_rank(scores: Tensor, rank_by: str = "signed") -> Tensor:
    """Return the ids of the flattened scores from the least to the most important, int64 [m].

    Args:
        scores: of any shape, m values in all; NaN, which has no order, comes last.
        rank_by: "signed" takes a score as it is, "abs" its magnitude.

    Raises:
        ConfigError: another ``rank_by``.
    """
    return importance(scores.flatten(), "rank_by", rank_by).argsort(stable=True)


def frl_vote(rankings: Tensor, initial_scores: Tensor) -> Tensor:
    """Return the scores [m] that the clients elect: one client, one vote.

    The positions of an edge are added up over the clients; along the ascending order of these sums the initial scores are
    handed out again, the smallest first. So which values there are never changes, only who holds them.

    Args:
        rankings: [n, m] integers, each row a permutation of 0 .. m - 1; n >= 1.
        initial_scores: [m], in any order.

    Raises:
        ValueError: naming the first row that is no permutation, or shapes that do not fit.
    """
    m = len(initial_scores)
    if initial_scores.ndim != 1 or rankings.ndim != 2 or rankings.shape[1] != m or not len(rankings):
        raise ValueError(
            f"a vote needs rankings [n >= 1, m] and initial scores [m]; got {list(rankings.shape)} and "
            f"{list(initial_scores.shape)}"
        )
    places = torch.arange(m, device=rankings.device)
    total = torch.zeros(m, dtype=torch.int64, device=rankings.device)
    for row, ranking in enumerate(rankings):  # one at a time: memory for a few rows, whatever n is
        if not is_permutation(ranking):
            raise ValueError(f"row {row} of the rankings is no permutation of 0 .. {m - 1}")
        total.index_add_(0, ranking.long(), places)
    elected = torch.empty_like(initial_scores)
    elected[total.argsort(stable=True).to(elected.device)] = initial_scores.sort().values
    return elected


def frl_mask(scores: Tensor, sparsity: float, mask_by: str = "abs") -> Tensor:
    """Return which edges count: all but the int((1 - sparsity) m) least important, bool, of the shape of ``scores``.

    Args:
        scores: of any shape, m >= 1 values in all.
        sparsity: the fraction that is *kept*, in (0, 1], as the authors' flag of that name.
        mask_by: "abs" takes the magnitude of a score for its importance, "signed" the score.

    Raises:
        ConfigError: ``sparsity`` outside (0, 1], or another ``mask_by``.
        ValueError: NaN among the scores of which some are left out.
    """
    sparsity = checked_sparsity(sparsity)
    rated = importance(scores.detach().flatten(), "mask_by", mask_by)
    left_out = int((1 - sparsity) * rated.numel())
    if not left_out:
        return torch.ones_like(scores, dtype=torch.bool)
    if rated.max().isnan():  # one pass, unlike isnan().any()
        raise ValueError(f"a mask needs scores that have an order; {int(rated.isnan().sum())} of {rated.numel()} are NaN")
    last = _smallest(rated, left_out)
    kept = rated > last
    if int(kept.sum()) < rated.numel() - left_out:  # ties: the smaller ids go
        tied = rated == last
        kept |= tied & (tied.cumsum(0) > left_out - (rated < last).sum())
    return kept.view(scores.shape)


def _smallest(values: Tensor, k: int) -> float:
    """Return the k-th smallest of ``values`` [m]. Looking for it is much quicker than a sort, and NumPy quicker than torch."""
    if values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64):
        return float(np.partition(values.numpy(), k - 1)[k - 1])
    return float(values.kthvalue(k).values)


def ranking_bits(layer_sizes: Iterable[int]) -> int:
    """Return the bits of one ranking of every layer: an id among n edges takes ceil(log2 n).

    Args:
        layer_sizes: edges of each layer, >= 1.
    """
    return sum(size * (size - 1).bit_length() for size in map(index, layer_sizes))


def positions(ranking: Tensor) -> Tensor:
    """Return the position of every edge, int64 [..., m], of rankings [..., m]: the inverse permutations."""
    places = torch.arange(ranking.shape[-1], device=ranking.device).expand(ranking.shape)
    return torch.empty_like(places, memory_format=torch.contiguous_format).scatter_(-1, ranking.long(), places)


def is_permutation(ranking: Tensor) -> bool:
    """Return whether ``ranking`` [m] holds each of the integers 0 .. m - 1 once."""
    m = len(ranking)
    if not m or ranking.is_floating_point() or ranking.is_complex() or ranking.dtype == torch.bool:
        return False
    low, high = torch.aminmax(ranking)
    if int(low) != 0 or int(high) != m - 1:
        return False
    seen = torch.zeros(m, dtype=torch.bool, device=ranking.device)
    seen[ranking.long()] = True
    return bool(seen.all())


def check_rankings(rankings: Tensor, who: object) -> None:
    """Raise ``ValueError``, saying that ``who`` needs them, unless every row of ``rankings`` [n, m] is a permutation."""
    wrong = [row for row, ranking in enumerate(rankings) if not is_permutation(ranking)]
    if wrong:
        raise ValueError(
            f"{who} needs rankings, each row a permutation of 0 .. {rankings.shape[-1] - 1}, as strategy=frl has them; "
            f"rows {wrong[:10]} are none"
        )


def importance(scores: Tensor, name: str, by: str) -> Tensor:
    """Return what edges with these scores are rated by; ``ConfigError`` where the setting ``name`` says something else."""
    if by not in ORDERS:
        raise ConfigError(f"{name} must be {' or '.join(ORDERS)}; got {by!r}{suggest(str(by), ORDERS)}")
    return scores.abs() if by == "abs" else scores


def checked_sparsity(sparsity: Any) -> float:
    """Return ``sparsity`` as Python's float; ``ConfigError`` where it is no number in (0, 1]."""
    if isinstance(sparsity, bool) or not (isinstance(sparsity, Real) and 0 < float(sparsity) <= 1):
        raise ConfigError(f"sparsity, the fraction of edges that is kept, must lie in (0, 1]; got {sparsity!r}")
    return float(sparsity)
