"""A little is enough: shift every coordinate by less than the honest clients differ.

Baruch, Baruch, Goldberg, "A Little Is Enough: Circumventing Defenses For Distributed Learning", NeurIPS 2019.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from torch import Tensor

from fedagg.attacks._rows import mean_and_std, same_rows
from fedagg.contracts import Attack, check_attack_input


@dataclass(frozen=True)
class ALIE(Attack):
    """Send f times

        mu + sign * z * sigma,

    with mu and sigma the mean and the standard deviation of every coordinate over the honest rows. z is such that, of the n
    clients of the cohort, about s = floor(n/2) + 1 - f honest ones lie further out than the attackers: supporters, who make
    the attackers part of a majority.

        z = max(0, Phi^-1((n - f - s) / (n - f)))     formula="paper"
        z = max(0, Phi^-1((n - s) / n))               formula="n"

    where Phi^-1 is the inverse of the standard normal distribution function.

    Args:
        z: the shift in standard deviations; None computes it, from the n of the call where ``honest`` is not the whole honest
            cohort: the paper's attackers see the corrupted clients alone, and know how many there are in all.
        sign: 1 or -1, the side on which to lie. sigma has no direction, so neither is the natural one.
        formula: which of the two z; "n" gives the larger one.
        ddof: the variance divides by h - ddof.

    Shapes: honest [h, d] -> [f, d], equal rows.
    Bound: h > ddof; where z is computed, f <= n/2, else no supporter is needed and z is infinite.
    Cost: time O(h d), memory one block of columns in float64.
    Differs from the source: a negative z, possible for small f, becomes 0; the source has no sign, formula or ddof to choose.

    Example:
        >>> import torch
        >>> honest = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.5, 1.5], [2.0, 2.0]])
        >>> ALIE(z=1.5)(honest, f=1)
        tensor([[2.3431, 2.3431]])
        >>> ALIE(z=1.5, sign=-1)(honest, f=1)
        tensor([[0.9069, 0.9069]])
    """

    knowledge = "honest"

    z: float | None = None
    sign: int = 1
    formula: Literal["paper", "n"] = "paper"
    ddof: int = 1

    def __post_init__(self) -> None:
        if self.z is not None and not math.isfinite(self.z):
            raise ValueError(f"ALIE needs a finite z, or None to compute it; got z={self.z}")
        if self.sign not in (1, -1):
            raise ValueError(f"ALIE needs sign 1 or -1; got sign={self.sign}")
        if self.formula not in ("paper", "n"):
            raise ValueError(f"ALIE needs formula in ['paper', 'n']; got {self.formula!r}")
        if self.ddof < 0:
            raise ValueError(f"ALIE needs ddof >= 0; got ddof={self.ddof}")

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
        """Return the shifted mean, f times [f, d]."""
        check_attack_input(honest, f)
        h = honest.shape[0]
        if h - self.ddof < 1:
            raise ValueError(f"ALIE needs h - ddof >= 1 honest updates for a standard deviation; got h={h}, ddof={self.ddof}")
        if f == 0:
            return honest.new_empty(0, honest.shape[1])
        mean, std = mean_and_std(honest, self.ddof)
        return same_rows(mean + self.sign * self.shift(h + f if n is None else n, f) * std, f, honest)

    def shift(self, n: int, f: int) -> float:
        """Return the number of standard deviations that ``f`` of ``n`` clients shift by."""
        if self.z is not None:
            return self.z
        supporters = n // 2 + 1 - f
        if supporters < 1:
            raise ValueError(f"ALIE needs f <= n/2 to compute z (Baruch et al. 2019), or z given; got n={n}, f={f}")
        out_of = n - f if self.formula == "paper" else n
        share = (out_of - supporters) / out_of
        return max(0.0, NormalDist().inv_cdf(share)) if share > 0 else 0.0
