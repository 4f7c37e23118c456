"""Free rider: train nothing, and send something that might pass for an update.

As in Lin, Du, Liu, "Free-riders in Federated Learning: Attacks and Defenses", 2019.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from fedagg.attacks._rows import same_rows
from fedagg.contracts import Attack, check_attack_input, private_generator


@dataclass(frozen=True)
class FreeRider(Attack):
    """Send rows of

        N(0, std^2)                               mode="zero"
        the last global update + N(0, std^2)      mode="last"; in the first round there is none, and it counts as 0

    with every entry drawn independently.

    Args:
        mode: "zero" returns the model as it came, for which no history is needed, so the instance's ``knowledge`` then reads
            "own"; "last" repeats what the server did last.
        std: size of the noise, a disguise. With 0 all rows are equal.
        generator: source of the noise. None: the engine lends one from the seed tree, and a direct call uses seed 0 each time.

    Shapes: honest [h, d] -> [f, d].
    Bound: std >= 0; h >= 1; any f >= 0.
    Cost: O(f d). Noise is drawn in float64 and cast.
    Differs from the source: its noise may shrink over the rounds; here it does not.

    Example:
        >>> FreeRider(mode="last")(torch.zeros(3, 2), f=1, last_delta=torch.tensor([0.5, -1.0]))
        tensor([[ 0.5000, -1.0000]])
    """

    knowledge = "history"
    random = True
    exempt = MappingProxyType({"draws": "with std = 0 it adds no noise"})

    mode: Literal["zero", "last"] = "zero"
    std: float = 0.0
    generator: torch.Generator | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.mode not in ("zero", "last"):
            raise ValueError(f"FreeRider needs mode in ['zero', 'last']; got {self.mode!r}")
        if not 0 <= self.std < math.inf:
            raise ValueError(f"FreeRider needs a finite std >= 0; got std={self.std}")
        if self.mode == "zero":
            object.__setattr__(self, "knowledge", "own")  # on this instance; the class still says what the most needs

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
        base = honest.new_zeros(honest.shape[1]) if self.mode == "zero" or last_delta is None else last_delta
        rows = same_rows(base, f, honest)
        if self.std > 0:
            source = private_generator(self.generator)
            for row in rows:
                noise = torch.randn(len(row), generator=source, dtype=torch.float64, device=source.device)
                row += noise.mul_(self.std).to(row.device, row.dtype)
        return rows
