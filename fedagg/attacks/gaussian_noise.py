"""Gaussian noise: send randomness instead of an update, or on top of one.

As in Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017 (experiments).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedagg.attacks._rows import own_rows
from fedagg.contracts import Attack, check_attack_input, private_generator


@dataclass(frozen=True)
class GaussianNoise(Attack):
    """Send rows whose entries are drawn independently:

        N(mean, std^2)              add=False
        own_i + N(mean, std^2)      add=True

    Args:
        std: size of the noise. Far above the honest updates it is easy to see; near their own spread it only slows training.
        mean: shift of every entry, the same for all.
        add: hide the noise in the client's own update, which then must be given as ``own``.
        generator: source of the noise. None: the engine lends one from the seed tree, and a direct call uses seed 0 each time.

    Shapes: honest [h, d] -> [f, d]. The rows differ from each other.
    Bound: std >= 0; h >= 1; any f >= 0.
    Cost: O(f d). Noise is drawn in float64 and cast, so float32 and float64 updates see the same noise.
    Differs from the source: it uses mean 0 and std 200, for gradients; the default here fits updates.

    Example:
        >>> honest = torch.zeros(4, 1000)
        >>> rows = GaussianNoise(std=3.0)(honest, f=2)
        >>> rows.shape, bool(2.8 < rows.std() < 3.2)
        (torch.Size([2, 1000]), True)
        >>> torch.equal(rows, GaussianNoise(std=3.0)(honest, f=2))
        True
    """

    knowledge = "own"
    random = True

    std: float = 1.0
    mean: float = 0.0
    add: bool = False
    generator: torch.Generator | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.std < math.inf or not math.isfinite(self.mean):
            raise ValueError(f"GaussianNoise needs a finite std >= 0 and a finite mean; got std={self.std}, mean={self.mean}")

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
        """Return the noisy rows [f, d]."""
        check_attack_input(honest, f)
        base = own_rows(self, own, f, honest) if self.add else honest.new_zeros(f, honest.shape[1])
        source = private_generator(self.generator)
        noise = torch.randn(base.shape, generator=source, dtype=torch.float64, device=source.device).mul_(self.std)
        return base.add_(noise.add_(self.mean).to(base.device, base.dtype))
