"""Mimic: send what one honest client sends, so that its data count several times.

Karimireddy, He, Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from fedagg.attacks._rows import around, row_mean, same_rows
from fedagg.contracts import Attack, check_attack_input, private_generator
from fedagg.linalg import COLUMNS, row_norms


@dataclass
class Mimic(Attack):
    """Send f copies of one honest row x_i.

    No rule can tell such rows from honest ones. Where the clients' data differ, they shift the cohort towards one client's;
    where the data are alike, they do nothing.

    With ``warmup`` the victim is the client that stands out along the direction z in which clients differ most. Calls count
    t = 0, 1, ...; while t < warmup

        m <- t/(1+t) m + 1/(1+t) mean_i x_i
        z <- sum_i <x_i - m, z> (x_i - m), made one long; z starts as a random direction
        victim <- the client with the largest <x_i, z>,

    after which the victim stays the same.

    Args:
        index: the row to copy without warm-up, counted among the honest rows.
        warmup: calls during which a victim is looked for. 0 copies ``index``.

    Shapes: honest [h, d] -> [f, d], equal rows.
    Bound: index < h without warm-up, finite updates with it; any f >= 0.
    Cost: O(f d) without warm-up; with it time O(h d), memory m and z [d] and one block of columns in float64.
    State: t, m, z and the victim's client id; its row number where ``client_ids`` are not given.
    Differs from the source: while the victim is absent, the present client with the largest <x_i, z> is copied.
    Diagnostics: ``last_info`` holds ``mimicked``, a client id or row number.

    Example:
        >>> honest = torch.tensor([[1.0, 2.0], [2.0, 1.0], [9.0, 1.5]])
        >>> Mimic(index=1)(honest, f=1)
        tensor([[2., 1.]])
    """

    knowledge = "honest"
    random = True
    exempt = MappingProxyType({"draws": "without a warm-up it draws nothing"})

    index: int = 0
    warmup: int = 0
    generator: torch.Generator | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.index < 0 or self.warmup < 0:
            raise ValueError(f"Mimic needs index >= 0 and warmup >= 0; got index={self.index}, warmup={self.warmup}")
        self.reset()

    def reset(self) -> None:
        """Forget the victim and everything that was learnt about the clients."""
        self._calls = 0
        self._mean: Tensor | None = None
        self._direction: Tensor | None = None
        self._victim: int | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return what was learnt: ``calls``, ``mean`` [d] and ``direction`` [d], and the id of the ``victim``."""
        mean, direction = (None if x is None else x.clone() for x in (self._mean, self._direction))
        return {"calls": self._calls, "mean": mean, "direction": direction, "victim": self._victim}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``."""
        self._calls, self._victim = state["calls"], state["victim"]
        self._mean, self._direction = (None if x is None else x.clone() for x in (state["mean"], state["direction"]))

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
        """Return f copies [f, d] of the victim's row."""
        check_attack_input(honest, f)
        if f == 0:
            return honest.new_empty(0, honest.shape[1])
        ids = range(len(honest)) if client_ids is None else client_ids
        row = self._follow(honest, ids) if self.warmup else self.index
        if row >= len(honest):
            raise ValueError(f"Mimic needs index < h, the number of honest updates; got h={len(honest)}, index={self.index}")
        self.last_info["mimicked"] = ids[row]
        return same_rows(honest[row], f, honest)

    def _follow(self, honest: Tensor, ids: Sequence[int]) -> int:
        """Return the row of the victim, and look for one while the warm-up lasts."""
        learning = self._calls < self.warmup
        if not learning and self._victim in ids:
            return ids.index(self._victim)
        if not row_norms(honest).square().isfinite().all():
            raise ValueError("Mimic needs finite honest updates to find a victim")
        if learning:
            self._learn(honest)
        assert self._mean is not None
        assert self._direction is not None
        row = int(around(honest, self._mean.to(honest.device), self._direction.to(honest.device))[1].argmax())
        if learning:
            self._victim = ids[row]
        return row

    def _learn(self, honest: Tensor) -> None:
        """Update the running mean [d] and the direction [d]."""
        mean, direction, t = row_mean(honest), self._direction, self._calls
        if self._mean is not None:
            mean = t / (1 + t) * self._mean.to(mean.device) + mean / (1 + t)
        if direction is None:
            source = private_generator(self.generator)
            direction = torch.randn(len(mean), generator=source, dtype=torch.float64, device=source.device)
            direction /= direction.norm()
        direction = direction.to(mean.device)
        products = around(honest, mean, direction)[1]
        moved = torch.empty_like(mean)
        for start in range(0, len(mean), COLUMNS):
            block = slice(start, start + COLUMNS)
            moved[block] = products @ (honest[:, block].double() - mean[block])
        length = float(moved.norm())
        self._mean, self._direction, self._calls = mean, moved / length if length > 0 else direction, t + 1
