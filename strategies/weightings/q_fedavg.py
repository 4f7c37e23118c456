"""q-FedAvg: clients on whom the model does badly count for more, and the step shrinks as their losses disagree.

Li et al., "Fair Resource Allocation in Federated Learning", ICLR 2020, Algorithm 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedagg import Cohort, Weighting
from fedagg.linalg import row_norms
from strategies.weightings._losses import capped_shares, check_caps, claimed_losses

LEAST = 1e-10  # a lower loss counts as this one: F^(q - 1) has no value at 0


@dataclass(frozen=True)
class QFedAvg(Weighting):
    """Take a step on the sum of F_i^(q + 1) / (q + 1), with F_i client i's loss of the model that it received:

        w_i = L F_i^q / sum_j h_j,    h_j = q F_j^(q - 1) ||L u_j||^2 + L F_j^q,    L = 1 / lr.

    These are coefficients of the updates u_i: they sum to less than 1, the less the longer the updates. q = 0 is ``Uniform``;
    a large q looks at the worst-off client alone.

    Args:
        q: how much fairness, >= 0.
        lr: the learning rate of the *clients*, whose inverse L stands for how curved their losses are.
        loss_cap: a larger loss counts as this one; None caps nothing.
        weight_cap: the largest share of the sum of the weights that one client may have; the rest goes to the others. None
            caps nothing.

    Shapes: cohort -> w [n], float64, non-negative, of sum <= 1.
    Bound: every client reports ``loss_before`` >= 0; weight_cap >= 1/n.
    Cost: O(n d) for the lengths of the updates; with a weight cap also a sort of n numbers.
    Differs from the source: it has no caps. ``weight_cap`` lowers a client's F_i^q, in the weight and in h_i.
    Claims: losses are. Without a cap, one client that claims a loss of 1e6 owns the model: the opposite of robustness.

    Example:
        >>> cohort = Cohort(round=1, client_ids=[3, 7], updates=torch.tensor([[1.0, 0.0], [0.0, 2.0]]), params=torch.zeros(2),
        ...                 num_examples=torch.tensor([10, 10]), metrics={"loss_before": torch.tensor([1.0, 3.0])})
        >>> QFedAvg(q=1, lr=0.1)(cohort) @ cohort.updates.double()
        tensor([0.0185, 0.1111], dtype=torch.float64)
    """

    needs: ClassVar[frozenset[str]] = frozenset({"loss_before"})

    q: float
    lr: float
    loss_cap: float | None = None
    weight_cap: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.q < math.inf:
            raise ValueError(f"QFedAvg needs a finite q >= 0; got q={self.q}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"QFedAvg needs the clients' learning rate, lr > 0; got lr={self.lr}")
        check_caps(self)

    def __call__(self, cohort: Cohort) -> Tensor:
        """Return the coefficient of every row of ``cohort.updates``."""
        losses = claimed_losses(self, cohort).clamp(min=LEAST)
        shares = capped_shares(self, self.q * losses.log())  # of the F_i^q, which themselves may overflow
        squares = row_norms(cohort.updates).square()
        return shares / (1 + self.q / self.lr * torch.dot(shares, squares / losses))
