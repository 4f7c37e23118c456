"""Inner product manipulation: point against the honest mean, just enough.

Xie, Koyejo, Gupta, "Fall of Empires: Breaking Byzantine-Tolerant SGD by Inner Product Manipulation", UAI 2019.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fedagg.attacks._rows import row_mean, same_rows
from fedagg.contracts import Attack, check_attack_input


@dataclass(frozen=True)
class IPM(Attack):
    """Send f times the negative mean of the honest rows, scaled:

        -epsilon * mu.

    Args:
        epsilon: small values lie near the honest rows and pass for one of them; large ones (more than h/f) turn the plain mean
            around.

    Shapes: honest [h, d] -> [f, d], equal rows.
    Bound: h >= 1; any f >= 0.
    Cost: time O(h d), memory one block of columns in float64.
    Differs from the source: it manipulates gradients, here updates; both send the negative of the honest mean.

    Example:
        >>> import torch
        >>> IPM(epsilon=2.0)(torch.tensor([[1.0, 2.0], [2.0, 1.0]]), f=2)
        tensor([[-3., -3.],
                [-3., -3.]])
    """

    knowledge = "honest"

    epsilon: float = 0.1

    def __post_init__(self) -> None:
        if not math.isfinite(self.epsilon):
            raise ValueError(f"IPM needs a finite epsilon; got epsilon={self.epsilon}")

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
        """Return the scaled negative mean, f times [f, d]."""
        check_attack_input(honest, f)
        return same_rows(-self.epsilon * row_mean(honest), f, honest)
