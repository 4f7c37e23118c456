"""Model replacement: send so much of one's own update that the average becomes one's own model.

Bagdasaryan, Veit, Hua, Estrin, Shmatikov, "How To Backdoor Federated Learning", AISTATS 2020.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from fedagg.attacks._carrier import Carrier
from fedagg.attacks._rows import own_rows
from fedagg.contracts import Attack, check_attack_input


@dataclass(frozen=True)
class ModelReplacement(Carrier):
    """Send

        gamma * own_i,

    each Byzantine client's own update, scaled. With gamma = n/f, equal own updates and honest ones that add up to nothing, the
    plain mean is the attackers' update.

    Args:
        gamma: how much. None: n/f, with n the size of the cohort; of ``honest`` only the number of rows is used.
        backdoor: what the clients learn first: an attack with ``poison``, whose ``trigger`` and ``target`` are then this
            attack's as well. None: they train on their data as they are.

    Shapes: honest [h, d] -> [f, d].
    Bound: ``own`` must be there; any f >= 0.
    Cost: O(f d).
    Differs from the source: no term in the local training that hides the update.

    Example:
        >>> import torch
        >>> ModelReplacement()(torch.zeros(3, 2), f=1, own=torch.tensor([[1.0, -2.0]]))
        tensor([[ 4., -8.]])
    """

    knowledge = "own"
    exempt = MappingProxyType({"sends_own": "it scales what its clients learnt"})

    gamma: float | None = None
    backdoor: Attack | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gamma is not None and not math.isfinite(self.gamma):
            raise ValueError(f"ModelReplacement needs a finite gamma, or None for n/f; got gamma={self.gamma}")

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
        """Return gamma times ``own`` [f, d]."""
        check_attack_input(honest, f)
        rows = own_rows(self, own, f, honest)
        clients = len(honest) + f if n is None else n
        gamma = clients / max(f, 1) if self.gamma is None else self.gamma
        return rows.mul_(gamma)
