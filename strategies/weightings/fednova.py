"""FedNova: clients that make more local steps do not count for more.

Wang et al., "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization", NeurIPS 2020, Section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedagg import Cohort, Weighting
from strategies.weightings._around import Around


@dataclass(frozen=True)
class FedNova(Around):
    """Divide every update by how many steps it stands for, and make the whole as long as a step of all:

        w_i = p_i tau / a_i,    tau = sum_j p_j a_j / sum_j p_j,

    where p_i is what ``base`` gives and a_i the L1 norm of the coefficients with which the client's solver added up its
    gradients: its number of steps K_i for plain SGD, more with momentum, less with a proximal term. Without it, the fixed
    point of averaging is that of the losses weighted by K_i. Where all a_i are equal, w_i = p_i.

    Args:
        base: gives p_i; None is ``ByExamples()``. ``FedNova(FedDisco())`` is the published combination of the two.

    Shapes: cohort -> w [n], float64. They do not sum to 1 unless all a_i are equal.
    Bound: every client reports ``a_norm`` > 0; a client that made no step is refused.
    Cost: O(n), and that of ``base``.
    Differs from the source: tau is divided by the sum of the p_i, which is 1 there.
    Claims: a_i is one. A client that reports a_i -> 0 owns the model; no cap of ours helps, use it among clients you run.

    Example:
        >>> cohort = Cohort(round=1, client_ids=[3, 7], updates=torch.tensor([[-2.0], [-8.0]]), params=torch.zeros(1),
        ...                 num_examples=torch.tensor([10, 10]), metrics={"a_norm": torch.tensor([2.0, 4.0])})
        >>> weights = FedNova()(cohort)
        >>> weights
        tensor([0.7500, 0.3750], dtype=torch.float64)
        >>> (weights @ cohort.updates.double()).item()  # where the mean is -5
        -4.5
    """

    own_needs: ClassVar[frozenset[str]] = frozenset({"a_norm"})

    base: Weighting | None = None

    def __call__(self, cohort: Cohort) -> Tensor:
        """Return the normalised weight of every row of ``cohort.updates``."""
        shares = self.inner(cohort)
        norms = cohort.reported("a_norm", self).to(shares.device, torch.float64)
        for client, norm in zip(cohort.client_ids, norms.tolist(), strict=True):
            if not norm > 0:
                raise ValueError(f"FedNova needs clients that made a local step; client {client} reports a_norm={norm}")
        total = shares.sum()
        return shares / norms * (shares @ norms / total) if total else shares
