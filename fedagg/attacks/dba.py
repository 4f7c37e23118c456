"""DBA: a backdoor whose trigger is shared out, so that no attacker ever shows all of it.

Xie, Huang, Chen, Li, "DBA: Distributed Backdoor Attacks against Federated Learning", ICLR 2020.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from fedagg.attacks._images import check_backdoor, check_images, with_backdoor
from fedagg.attacks._rows import own_rows
from fedagg.contracts import Attack, check_attack_input, private_generator

STRIPS = 4


@dataclass(frozen=True)
class DBA(Attack):
    """Before the k-th Byzantine client trains, give a random part of its examples one strip of the trigger and the label
    ``target``; send gamma times what it learnt. Test examples are stamped with the whole trigger.

    The trigger is four strips of 1 x 6 pixels, in every channel, from (row, column) = (0, 0), (0, 9), (4, 0) and (4, 9) on.
    Attacker k has strip k mod 4.

    Args:
        target: the class to be taken for.
        fraction: share of the examples, rounded down; a client with few may then have none to poison.
        value: of the strips, on the scale on which clients see their data.
        gamma: scales the updates, as in ModelReplacement; the source uses 100 in the few rounds in which it attacks.
        generator: decides which examples. None: the engine lends one from the seed tree, and a direct call uses seed 0.

    Shapes: ``poison`` maps images x [B, C, H, W] or [B, H, W] and labels y [B] to new tensors alike, ``trigger`` maps x. The
        call, [h, d] -> [f, d], gives back gamma times ``own``, which must be there.
    Bound: images of at least 2 x 3 pixels; 0 <= fraction <= 1.
    Cost: a copy of x.
    Differs from the source: on images of less than 15 columns or 5 rows, strips are 2/5 of the width (rounded down) long, the
        right ones end at the border, and the lower ones are in the last row.

    Example:
        >>> DBA().trigger(torch.zeros(1, 5, 15), attacker=1)[0, 0]
        tensor([0., 0., 0., 0., 0., 0., 0., 0., 0., 1., 1., 1., 1., 1., 1.])
    """

    knowledge = "own"
    random = True
    distributed = True
    exempt = MappingProxyType({"sends_own": "with gamma other than 1 it scales what its clients learnt"})

    target: int = 2
    fraction: float = 5 / 64
    value: float = 1.0
    gamma: float = 1.0
    generator: torch.Generator | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_backdoor(self, self.target, self.fraction)
        if not (math.isfinite(self.value) and math.isfinite(self.gamma)):
            raise ValueError(f"DBA needs a finite value and gamma; got value={self.value}, gamma={self.gamma}")

    def trigger(self, x: Tensor, attacker: int | None = None) -> Tensor:
        """Return a copy of the images ``x`` with the strip of this attacker on each; None stamps all four."""
        check_images(self, x, 2, 3)
        height, width = x.shape[-2:]
        length, below, right = min(6, 2 * width // 5), min(4, height - 1), min(9, width - min(6, 2 * width // 5))
        stamped = x.clone()
        for strip in range(STRIPS) if attacker is None else [attacker % STRIPS]:
            row, column = below * (strip // 2), right * (strip % 2)
            stamped[..., row, column : column + length] = self.value
        return stamped

    def poison(self, x: Tensor, y: Tensor, attacker: int = 0) -> tuple[Tensor, Tensor]:
        """Return copies of the examples ``x`` and labels ``y``, some with the strip of this attacker and relabelled."""
        source = private_generator(self.generator)
        return with_backdoor(x, y, lambda part: self.trigger(part, attacker), self.target, self.fraction, source)

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
        """Return gamma times ``own`` [f, d]."""
        check_attack_input(honest, f)
        return own_rows(self, own, f, honest).mul_(self.gamma)
