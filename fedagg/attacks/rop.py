"""ROP: sit where the global updates point, and push at a right angle to them.

As in the CRYPTO-KU FL-Byzantine-Library, whose code this follows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedagg.attacks._rows import row_mean, same_rows
from fedagg.attacks.alie import ALIE
from fedagg.contracts import Attack, check_attack_input


@dataclass(frozen=True)
class ROP(Attack):
    """Send f times

        pi * M + (1 - pi) * mu + z * p,

    with mu the mean of the honest rows and M the last global update (0 in the first round). p is one long: from the all-ones
    vector 1 and

        u = lam * M + (1 - lam) * mu   (mu in the first round)

    take q, the part of 1 orthogonal to u, make q and u one long, and turn: p = sin(angle) q + cos(angle) u.

    Args:
        z: length of the push, in the units of the updates. None: the z of ``ALIE()`` for this n and f, which may be 0; the
            attack is then void.
        lam: share of the last global update in u.
        pi: share of the last global update in where to sit.
        angle: between the push and u, in degrees. 270 is a right angle, 180 goes straight back.

    Shapes: honest [h, d] -> [f, d], equal rows.
    Bound: h >= 1; where z is computed, f <= n/2.
    Cost: time O(h d), memory a few vectors [d] in float64.
    Differs from the source: where u is 0 or all its entries are equal there is no q, and the row is sent without a push.
    Diagnostics: ``last_info`` holds ``z``, and ``void`` = True where there is no push.

    Example:
        >>> honest = torch.tensor([[2.0, 0.0], [4.0, 0.0]])
        >>> ROP(z=0.5)(honest, f=1).round(decimals=4)
        tensor([[-0.0000, -0.5000]])
        >>> ROP(z=0.5)(honest, f=1, last_delta=torch.tensor([2.0, 0.0]))
        tensor([[ 2.0000, -0.5000]])
    """

    knowledge = "history"

    z: float | None = None
    lam: float = 0.9
    pi: float = 1.0
    angle: float = 270.0

    def __post_init__(self) -> None:
        if self.z is not None and not math.isfinite(self.z):
            raise ValueError(f"ROP needs a finite z, or None to compute it; got z={self.z}")
        if not (0 <= self.lam <= 1 and 0 <= self.pi <= 1):
            raise ValueError(f"ROP needs lam and pi in [0, 1]; got lam={self.lam}, pi={self.pi}")
        if not math.isfinite(self.angle):
            raise ValueError(f"ROP needs a finite angle; got angle={self.angle}")

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
        """Return the pushed location, f times [f, d]."""
        check_attack_input(honest, f)
        h, d = honest.shape
        if f == 0:
            return honest.new_empty(0, d)
        z = ALIE().shift(h + f if n is None else n, f) if self.z is None else self.z
        mean = row_mean(honest)
        if last_delta is None:
            location, reference = (1 - self.pi) * mean, mean
        else:
            last = last_delta.to(mean)
            location, reference = torch.lerp(mean, last, self.pi), torch.lerp(mean, last, self.lam)
        push = self._push(reference)
        self.last_info.clear()
        self.last_info.update({"z": z, "void": True} if push is None or z == 0 else {"z": z})
        return same_rows(location if push is None else location + z * push, f, honest)

    def _push(self, reference: Tensor) -> Tensor | None:
        """Return the direction p [d] of length 1, None where ``reference`` [d] does not decide it."""
        length = float(reference.norm())
        if length == 0:
            return None
        along = reference / length
        across = 1.0 - along.sum() * along
        length = float(across.norm())
        if length <= 1e-12 * math.sqrt(len(along)):  # of an all-ones vector nothing but rounding is left
            return None
        angle = math.radians(self.angle)
        turned: Tensor = math.sin(angle) / length * across + math.cos(angle) * along
        turned /= turned.norm()
        return turned
