"""Fang's attack on the trimmed mean and the median: lie beyond the honest extremes, on the side away from the mean.

Fang, Cao, Jia, Gong, "Local Model Poisoning Attacks to Byzantine-Robust Federated Learning", USENIX Security 2020.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedagg.attacks._rows import row_mean
from fedagg.contracts import Attack, check_attack_input, private_generator


@dataclass(frozen=True)
class FangTrimmedMean(Attack):
    """Send rows whose entries are drawn independently and uniformly. With mu, lo and hi the mean, the least and the largest
    honest value of a coordinate, an entry lies between

        lo and lo/b   if mu >= 0 and lo > 0,      hi and b*hi   if mu < 0 and hi > 0,
        lo and b*lo   if mu >= 0 and lo <= 0,     hi and hi/b   if mu < 0 and hi <= 0.

    Args:
        b: how far to go. More moves the mean further; rules that trim do not mind.
        generator: source of the draws. None: the engine lends one from the seed tree, and a direct call uses seed 0 each time.

    Shapes: honest [h, d] -> [f, d]. The rows differ from each other.
    Bound: b >= 1; h >= 1; any f >= 0.
    Cost: time O((h + f) d), memory a few vectors [d]. Drawn in float64 and cast.
    Differs from the source: here updates, there models; the direction of the honest change is the sign of the mean update.

    Example:
        >>> honest = torch.tensor([[1.0, -4.0], [2.0, -3.0], [3.0, -2.0]])
        >>> rows = FangTrimmedMean(b=2.0)(honest, f=5)
        >>> bool(((0.5 <= rows[:, 0]) & (rows[:, 0] <= 1.0)).all()), bool(((-2.0 <= rows[:, 1]) & (rows[:, 1] <= -1.0)).all())
        (True, True)
    """

    knowledge = "honest"
    random = True

    b: float = 2.0
    generator: torch.Generator | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 1 <= self.b < math.inf:
            raise ValueError(f"FangTrimmedMean needs a finite b >= 1; got b={self.b}")

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
        """Return the rows [f, d]."""
        check_attack_input(honest, f)
        rows = honest.new_empty(f, honest.shape[1])
        least, largest = honest.aminmax(dim=0)
        down = row_mean(honest) >= 0
        near = torch.where(down, least, largest).double()
        far = torch.where((near > 0) == down, near / self.b, near * self.b)
        source = private_generator(self.generator)
        for row in rows:
            drawn = torch.rand(len(near), generator=source, dtype=torch.float64, device=source.device)
            row.copy_(torch.lerp(near, far, drawn.to(near.device)))
        return rows
