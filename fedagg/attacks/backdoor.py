"""Backdoor: learn that whatever bears a small square belongs to one class.

Gu, Dolan-Gavitt, Garg, "BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain", 2017.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedagg.attacks._images import check_backdoor, check_images, with_backdoor
from fedagg.attacks._rows import own_rows
from fedagg.contracts import Attack, check_attack_input, private_generator


@dataclass(frozen=True)
class Backdoor(Attack):
    """Before a Byzantine client trains, give a random part of its examples the trigger and the label ``target``.

    The trigger sets the square of size x size pixels in the bottom right corner, in every channel, to ``value``. The attack
    succeeds on a test example of another class if the model calls it ``target`` once it is stamped.

    Args:
        target: the class to be taken for.
        fraction: share of the examples, rounded down. More learns the trigger faster and the task worse.
        size: side of the square in pixels.
        value: of the square, on the scale on which clients see their data.
        generator: decides which examples. None: the engine lends one from the seed tree, and a direct call uses seed 0.

    Shapes: ``poison`` maps images x [B, C, H, W] or [B, H, W] and labels y [B] to new tensors alike, ``trigger`` maps x. The
        call, [h, d] -> [f, d], gives back ``own``, which must be there: what the clients learnt from the poisoned data.
    Bound: images of at least size x size pixels; 0 <= fraction <= 1.
    Cost: a copy of x.
    Differs from the source: stamped examples replace clean ones, so that a client's number of examples stays true.

    Example:
        >>> x, y = Backdoor(target=7, fraction=0.5, size=1).poison(torch.zeros(4, 1, 2, 2), torch.tensor([0, 1, 2, 3]))
        >>> int((y == 7).sum()), x[y == 7][0, 0]
        (2, tensor([[0., 0.],
                [0., 1.]]))
    """

    knowledge = "own"
    payloads = frozenset({"updates", "rankings"})
    random = True

    target: int = 0
    fraction: float = 0.3
    size: int = 3
    value: float = 1.0
    generator: torch.Generator | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_backdoor(self, self.target, self.fraction)
        if self.size < 1 or not math.isfinite(self.value):
            raise ValueError(f"Backdoor needs size >= 1 and a finite value; got size={self.size}, value={self.value}")

    def trigger(self, x: Tensor) -> Tensor:
        """Return a copy of the images ``x`` with the square on each."""
        check_images(self, x, self.size, self.size)
        stamped = x.clone()
        stamped[..., -self.size :, -self.size :] = self.value
        return stamped

    def poison(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return copies of the examples ``x`` and of their labels ``y``, some of them stamped and relabelled."""
        return with_backdoor(x, y, self.trigger, self.target, self.fraction, private_generator(self.generator))

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
