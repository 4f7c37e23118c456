"""TERM: weights that grow, or shrink, exponentially with a client's loss.

Li, Beirami, Sanjabi, Smith, "Tilted Empirical Risk Minimization", ICLR 2021.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedagg import Cohort, Weighting
from strategies.weightings._around import Around
from strategies.weightings._losses import capped_shares, check_caps, claimed_losses


@dataclass(frozen=True)
class TERM(Around):
    """Tilt the weights p_i of ``base`` by the losses F_i of the model that clients received:

        w_i = p_i exp(t F_i) / sum_j p_j exp(t F_j).

    Args:
        t: > 0 favours the worst-off clients, < 0 discounts those with large losses, 0 gives p_i.
        base: gives p_i; None is ``ByExamples()``.
        loss_cap: a larger loss counts as this one; None caps nothing.
        weight_cap: no weight exceeds it, what is cut off goes to the others; None caps nothing.

    Shapes: cohort -> w [n], float64, non-negative, of sum 1.
    Bound: every client reports ``loss_before`` >= 0; the p_i are non-negative and not all 0; weight_cap >= 1/n.
    Cost: O(n) and that of ``base``; with a weight cap also a sort of n numbers.
    Differs from the source: it has no caps.
    Claims: losses are. With t > 0 and no cap, one client that claims a loss of 1e6 owns the model; with t < 0 one that claims
    0 gains by a factor of exp(-t F) over clients with the loss F.

    Example:
        >>> import torch
        >>> cohort = Cohort(round=1, client_ids=[3, 7, 9], updates=torch.zeros(3, 2), params=torch.zeros(2),
        ...                 num_examples=torch.tensor([5, 5, 5]), metrics={"loss_before": torch.tensor([1.0, 2.0, 3.0])})
        >>> TERM(t=1)(cohort)
        tensor([0.0900, 0.2447, 0.6652], dtype=torch.float64)
        >>> TERM(t=1, weight_cap=0.5)(cohort)
        tensor([0.1345, 0.3655, 0.5000], dtype=torch.float64)
    """

    own_needs: ClassVar[frozenset[str]] = frozenset({"loss_before"})

    t: float
    base: Weighting | None = None
    loss_cap: float | None = None
    weight_cap: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.t):
            raise ValueError(f"TERM needs a finite t; got t={self.t}")
        check_caps(self)

    def __call__(self, cohort: Cohort) -> Tensor:
        """Return the tilted weight of every row of ``cohort.updates``."""
        shares = self.inner(cohort)
        if not ((shares >= 0).all() and shares.any()):
            raise ValueError(f"TERM needs weights >= 0, not all 0, to tilt; {self.inner} gives {shares.tolist()}")
        tilts = (self.t * claimed_losses(self, cohort)).nan_to_num()  # no infinity: two of them have no difference
        return capped_shares(self, shares.double().log() + tilts)
