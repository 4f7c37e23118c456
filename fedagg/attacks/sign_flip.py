"""Sign flip: send the honest update backwards.

As in Allen-Zhu et al., "Byzantine-Resilient Non-Convex Stochastic Gradient Descent", ICLR 2021 (experiments).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from fedagg.attacks._rows import own_rows, row_mean, same_rows
from fedagg.contracts import Attack, check_attack_input


@dataclass(frozen=True)
class SignFlip(Attack):
    """Send the negative of an honest update:

        -scale * mu             of="mean", mu the mean of the honest rows; all f rows are equal
        -scale * own_i          of="own", each Byzantine client's own update

    Args:
        scale: length of the row in units of what is flipped. 1 stays inconspicuous by its norm; more drags the mean further.
        of: "mean" knows all honest updates; "own" knows nothing but the attacker's own, needs ``own``, and the instance's
            ``knowledge`` then reads "own".

    Shapes: honest [h, d] -> [f, d].
    Bound: h >= 1; any f >= 0.
    Cost: time O(h d), memory one block of columns in float64.
    Differs from the source: it flips gradients; updates already point downhill, so their negative points uphill.

    Example:
        >>> import torch
        >>> honest = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> SignFlip()(honest, f=1)
        tensor([[-2., -3.]])
        >>> SignFlip(scale=2.0, of="own")(honest, f=1, own=torch.tensor([[1.0, 1.0]]))
        tensor([[-2., -2.]])
    """

    knowledge = "honest"

    scale: float = 1.0
    of: Literal["mean", "own"] = "mean"

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise ValueError(f"SignFlip needs a finite scale; got scale={self.scale}")
        if self.of not in ("mean", "own"):
            raise ValueError(f"SignFlip needs of in ['mean', 'own']; got {self.of!r}")
        if self.of == "own":
            object.__setattr__(self, "knowledge", "own")  # on this instance; the class still says what the default uses

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
        """Return the flipped rows [f, d]."""
        check_attack_input(honest, f)
        if self.of == "own":
            return own_rows(self, own, f, honest).mul_(-self.scale)
        return same_rows(-self.scale * row_mean(honest), f, honest)
