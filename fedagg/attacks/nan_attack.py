"""Not a number: send what arithmetic cannot digest, and see who checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fedagg.contracts import Attack, check_attack_input


@dataclass(frozen=True)
class NaNAttack(Attack):
    """Send rows filled with one value that breaks sums or distances:

        NaN                     kind="nan"
        +infinity               kind="inf"
        a quarter of the largest float of the dtype     kind="huge"

    Args:
        kind: "nan" and "inf" test whether somebody looks; "huge" passes a test for finite entries, but its squared norm
            overflows in its own dtype.

    Shapes: honest [h, d] -> [f, d], equal rows.
    Bound: h >= 1; any f >= 0.
    Cost: O(f d).
    Source: ours; a crashed or diverged client sends the same without meaning to.

    Example:
        >>> NaNAttack()(torch.zeros(3, 2), f=1)
        tensor([[nan, nan]])
        >>> row = NaNAttack(kind="huge")(torch.zeros(3, 2), f=1)
        >>> row.isfinite().all(), row.square().sum()
        (tensor(True), tensor(inf))
    """

    knowledge = "own"

    kind: Literal["nan", "inf", "huge"] = "nan"

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", str(self.kind))  # a command line reads nan and inf as numbers
        if self.kind not in ("nan", "inf", "huge"):
            raise ValueError(f"NaNAttack needs kind in ['nan', 'inf', 'huge']; got {self.kind!r}")

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
        value = torch.finfo(honest.dtype).max / 4 if self.kind == "huge" else float(self.kind)
        return honest.new_full((f, honest.shape[1]), value)
