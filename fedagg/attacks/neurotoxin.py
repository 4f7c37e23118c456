"""Neurotoxin: change only what the others leave alone, so that they do not unlearn it.

Zhang et al., "Neurotoxin: Durable Backdoors in Federated Learning", ICML 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from fedagg.attacks._carrier import Carrier
from fedagg.attacks._rows import own_rows, whole_share
from fedagg.contracts import Attack, check_attack_input


@dataclass(frozen=True)
class Neurotoxin(Carrier):
    """Send

        own_i * mask(g)

    where g is the last global update and the mask is 1 for the floor(ratio * d) coordinates with the least |g|, else 0. In the
    first round there is no g, and ``own`` is sent as it is.

    Args:
        ratio: share of the coordinates that are kept. Less lasts longer and is harder to learn.
        backdoor: what the clients learn: an attack with ``poison``, whose ``trigger`` and ``target`` are then this attack's as
            well. None: they train on their data as they are.

    Shapes: honest [h, d] -> [f, d].
    Bound: 0 <= ratio <= 1; ``own`` must be there; any f >= 0.
    Cost: O((f + 1) d).
    Ties: of equal |g| the lowest coordinate is kept.
    Differs from the source: it masks the gradient at every step of the local training, here the update is masked once.

    Example:
        >>> own, last = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([0.1, -9.0, 5.0, -0.2])
        >>> Neurotoxin(ratio=0.5)(torch.zeros(3, 4), f=1, own=own, last_delta=last)
        tensor([[1., 0., 0., 4.]])
    """

    knowledge = "history"
    exempt = MappingProxyType({"sends_own": "it masks what its clients learnt"})

    ratio: float = 0.5
    backdoor: Attack | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.ratio <= 1:
            raise ValueError(f"Neurotoxin needs ratio in [0, 1]; got ratio={self.ratio}")

    def mask(self, reference: Tensor) -> Tensor:
        """Return [d] bool: True for the floor(ratio * d) coordinates of ``reference`` [d] that are least in magnitude."""
        size, kept = reference.abs(), whole_share(self.ratio, len(reference))
        if kept == 0:
            return torch.zeros_like(size, dtype=torch.bool)
        largest = size.kthvalue(kept).values
        mask = size < largest
        ties = (size == largest).nonzero().flatten()
        mask[ties[: kept - int(mask.sum())]] = True
        return mask

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
        """Return the masked ``own`` [f, d]."""
        check_attack_input(honest, f)
        rows = own_rows(self, own, f, honest)
        return rows if last_delta is None else rows.masked_fill_(~self.mask(last_delta.to(rows.device)), 0.0)
