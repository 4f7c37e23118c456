"""FedDisco: clients whose labels are distributed like the target count for more.

Ye et al., "FedDisco: Federated Learning with Discrepancy-Aware Collaboration", ICML 2023.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from fedagg import Cohort, Weighting
from fedagg.console import suggest
from strategies.weightings.by_examples import ByExamples

logger = logging.getLogger(__name__)
Metric = Literal["kl", "l1", "l2", "cosine"]
ROUNDING = 1e-14  # a discrepancy below is that of equal distributions; normalised, it would become as large as any


@dataclass(frozen=True)
class FedDisco(Weighting):
    """Weigh clients by their share n_i of the round's examples, less the discrepancy d_i of their labels:

        w_i = v_i / sum_j v_j,    v_i = max(n_i - a d_i + b, 0).

    With D_i the label distribution of client i and T the target, d_i is

        "kl"        sum_c D_ic ln(D_ic / T_c), where 0 ln 0 = 0
        "l1", "l2"  the norm of D_i - T
        "cosine"    1 - cos(D_i, T)

    A round in which every v_i is 0 falls back to n_i, as the log says.

    Args:
        a: strength of the discrepancy, >= 0. 0 with b = 0 gives ``ByExamples``.
        b: offset; more evens the weights out.
        metric: "kl", "l1", "l2" or "cosine". They differ in scale, so ``a`` and ``b`` of one do not suit another.
        target: [C] label distribution that clients should have, scaled to sum 1; None is uniform.
        normalize: whether to divide the d_i by their sum over the round; None does for "kl" alone.

    Shapes: cohort -> w [n], float64, non-negative, of sum 1.
    Bound: clients tell their label counts, none of them all zero; with "kl" no client has a class that the target lacks.
    Cost: O(n C).
    Differs from the source: it has no fallback where every v_i is 0.
    Claims: counts are. A client that claims the target's distribution gets d_i = 0; with "kl" one that claims an extreme one
    takes the others' discrepancy away.

    Example:
        >>> counts = torch.tensor([[10, 10, 10], [50, 0, 0], [10, 20, 30], [4, 3, 3]])
        >>> cohort = Cohort(round=1, client_ids=[0, 1, 2, 3], updates=torch.zeros(4, 5), params=torch.zeros(5),
        ...                 num_examples=counts.sum(dim=1), label_counts=counts)
        >>> FedDisco()(cohort)
        tensor([0.3239, 0.0000, 0.5005, 0.1756], dtype=torch.float64)
    """

    needs: ClassVar[frozenset[str]] = frozenset({"label_counts"})

    a: float = 0.5
    b: float = 0.1
    metric: Metric = "kl"
    target: Sequence[float] | None = None
    normalize: bool | None = None
    _fell_back: bool = field(default=False, init=False, repr=False, compare=False)  # a warning the first time, then on record

    def __post_init__(self) -> None:
        if not 0 <= self.a < math.inf or not math.isfinite(self.b):
            raise ValueError(f"FedDisco needs a finite a >= 0 and a finite b; got a={self.a}, b={self.b}")
        if self.metric not in get_args(Metric):
            known = get_args(Metric)
            raise ValueError(f"FedDisco knows the metrics {', '.join(known)}; got {self.metric}{suggest(self.metric, known)}")
        if self.target is not None:
            target = tuple(float(share) for share in self.target)
            if not all(0 <= share < math.inf for share in target) or not any(target):
                raise ValueError(f"FedDisco needs a target of finite shares >= 0, not all 0; got {target}")
            object.__setattr__(self, "target", target)

    def __call__(self, cohort: Cohort) -> Tensor:
        """Return the share of the round that each row of ``cohort.updates`` gets."""
        sizes = ByExamples()(cohort)
        labels = self._distributions(cohort).to(sizes.device)
        distances = self._distances(cohort, labels, self._target(labels))
        distances[distances < ROUNDING] = 0
        normalize = self.metric == "kl" if self.normalize is None else self.normalize
        if normalize and distances.any():
            distances /= distances.sum()
        values = (sizes - self.a * distances + self.b).clamp(min=0)
        if not values.any():
            level = logging.INFO if self._fell_back else logging.WARNING
            object.__setattr__(self, "_fell_back", True)
            logger.log(level, "round %d: %r gives every client the weight 0; it uses their sizes instead", cohort.round, self)
            return sizes
        return values / values.sum()

    def _distributions(self, cohort: Cohort) -> Tensor:
        """Return [n, C] float64: how the labels of each client are distributed."""
        if cohort.label_counts is None:
            raise ValueError("FedDisco needs cohort.label_counts [n, C], which clients report when they are asked to")
        counts = cohort.label_counts.double()
        totals = counts.sum(dim=1)
        wrong = ~((counts >= 0).all(dim=1) & (totals > 0) & totals.isfinite())
        if wrong.any():
            i = int(wrong.nonzero()[0])
            raise ValueError(
                f"FedDisco needs label counts >= 0, not all 0; client {cohort.client_ids[i]} reports {counts[i].tolist()}"
            )
        return counts / totals[:, None]

    def _target(self, labels: Tensor) -> Tensor:
        """Return T [C]."""
        classes = labels.shape[1]
        if self.target is None:
            return torch.full_like(labels[0], 1 / classes)
        if len(self.target) != classes:
            raise ValueError(f"FedDisco needs a target of C={classes} shares, one a class; got {len(self.target)}")
        target = labels.new_tensor(self.target)
        return target / target.sum()

    def _distances(self, cohort: Cohort, labels: Tensor, target: Tensor) -> Tensor:
        """Return [n]: how far the distributions ``labels`` [n, C] are from ``target`` [C]."""
        if self.metric == "cosine":
            return 1 - torch.cosine_similarity(labels, target[None], dim=1)
        if self.metric == "l1":
            return (labels - target).abs().sum(dim=1)
        if self.metric == "l2":
            return (labels - target).square().sum(dim=1).sqrt()
        lacking = (labels > 0) & (target == 0)
        if lacking.any():
            i, c = lacking.nonzero()[0].tolist()
            raise ValueError(
                f"FedDisco with metric='kl' needs a target > 0 wherever a client has examples; client "
                f"{cohort.client_ids[i]} has some of class {c}, whose target is 0"
            )
        return (labels * torch.where(labels > 0, labels / target, 1).log()).sum(dim=1)
