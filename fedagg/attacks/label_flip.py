"""Label flip: train honestly, on wrong labels.

Fang et al., "Local Model Poisoning Attacks to Byzantine-Robust Federated Learning", USENIX Security 2020 (reversed labels);
Tolpegin et al., "Data Poisoning Attacks Against Federated Learning Systems", ESORICS 2020 (one class into another).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fedagg.attacks._rows import own_rows
from fedagg.contracts import Attack, check_attack_input


@dataclass(frozen=True)
class LabelFlip(Attack):
    """Replace the labels y of a Byzantine client, of C classes, before it trains:

        C - 1 - y               mapping="reverse"
        (y + 1) mod C           mapping="next"
        b where y = a, else y   mapping=(a, b)

    Args:
        num_classes: C. A label outside 0 .. C-1 raises.
        mapping: "reverse" and "next" hurt every class (for odd C, "reverse" spares the middle one); (a, b) hurts one class.

    Shapes: ``poison`` maps x [B, ...] and integer y to new tensors of the same shapes and dtypes. The call, [h, d] -> [f, d],
        gives back ``own``, which must be there: what the clients learnt from the poisoned data.
    Bound: C >= 2; a and b are two different classes.
    Cost: one look-up per label and a copy of x.
    Differs from the sources: nothing.

    Example:
        >>> _, y = LabelFlip(num_classes=3).poison(torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 2, 2]))
        >>> y
        tensor([2, 1, 0, 0])
    """

    knowledge = "own"
    payloads = frozenset({"updates", "rankings"})

    num_classes: int = 10
    mapping: Literal["reverse", "next"] | tuple[int, int] = "reverse"

    def __post_init__(self) -> None:
        classes = range(self.num_classes)
        if len(classes) < 2:
            raise ValueError(f"LabelFlip needs num_classes >= 2; got num_classes={self.num_classes}")
        if isinstance(self.mapping, str):
            known = self.mapping in ("reverse", "next")
        else:
            object.__setattr__(self, "mapping", tuple(self.mapping))  # a config gives a list
            known = len(self.mapping) == len(set(self.mapping)) == 2 and all(label in classes for label in self.mapping)
        if not known:
            raise ValueError(
                "LabelFlip needs mapping 'reverse', 'next' or (a, b), two different classes of "
                f"0 .. {self.num_classes - 1}; got {self.mapping!r}"
            )

    def poison(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return copies of the examples ``x`` and of their labels ``y``, the labels flipped."""
        if y.is_floating_point() or y.is_complex():
            raise ValueError(f"LabelFlip needs integer labels; got {y.dtype}")
        if y.numel() and not 0 <= int(y.min()) <= int(y.max()) < self.num_classes:
            raise ValueError(
                f"LabelFlip needs labels in 0 .. {self.num_classes - 1}; got labels from {int(y.min())} to {int(y.max())}"
            )
        flipped = torch.arange(self.num_classes, device=y.device)  # the new label of every class
        if self.mapping == "reverse":
            flipped = flipped.flip(0)
        elif self.mapping == "next":
            flipped = flipped.roll(-1)
        else:
            flipped[int(self.mapping[0])] = int(self.mapping[1])
        return x.clone(), flipped[y.long()].to(y.dtype)

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
        """Return ``own`` [f, d]: the harm is in the data."""
        check_attack_input(honest, f)
        return own_rows(self, own, f, honest)
