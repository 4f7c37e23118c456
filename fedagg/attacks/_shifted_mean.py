"""What Min-Max and Min-Sum share: the mean, shifted in some direction, and the search of the published code."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor

from fedagg.attacks._rows import mean_and_std, row_mean, same_rows
from fedagg.contracts import Attack, check_attack_input

Direction = Literal["std", "unit", "sign"]
Search = Literal["exact", "official"]


class ShiftedMean(Attack):
    """Sends f times mu - gamma * dev; a subclass says how large gamma may be."""

    knowledge = "honest"

    dev: Direction
    ddof: int
    search: Search

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.dev not in ("std", "unit", "sign"):
            raise ValueError(f"{name} needs dev in ['std', 'unit', 'sign']; got {self.dev!r}")
        if self.ddof < 0:
            raise ValueError(f"{name} needs ddof >= 0; got ddof={self.ddof}")
        if self.search not in ("exact", "official"):
            raise ValueError(f"{name} needs search in ['exact', 'official']; got {self.search!r}")

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
        """Return the shifted mean, f times [f, d]."""
        check_attack_input(honest, f)
        if f == 0:
            return honest.new_empty(0, honest.shape[1])
        mean, dev = self._mean_and_direction(honest)
        gamma = self._gamma(honest, mean, dev)
        self.last_info["gamma"] = gamma
        return same_rows(mean - gamma * dev, f, honest)

    @abstractmethod
    def _gamma(self, honest: Tensor, mean: Tensor, dev: Tensor) -> float:
        """Return the largest gamma that the attack allows itself; 0 where ``dev`` is zero."""

    def _mean_and_direction(self, honest: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean [d] of ``honest`` [h, d] and the direction [d] of the shift, in float64.

        The direction is the standard deviation ("std"), the mean made one long ("unit") or its signs ("sign").
        """
        if self.dev == "std":
            if len(honest) - self.ddof < 1:
                raise ValueError(
                    f"{type(self).__name__} needs h - ddof >= 1 honest updates for a standard deviation; "
                    f"got h={len(honest)}, ddof={self.ddof}"
                )
            return mean_and_std(honest, self.ddof)
        mean = row_mean(honest)
        length = float(mean.norm())
        return mean, mean.sign() if self.dev == "sign" or length == 0 else mean / length


def official_gamma(feasible: Callable[[float], bool]) -> float:
    """Return the largest feasible shift that the published notebooks find: from 10, in steps of 5, 2.5, ...; below 20."""
    found, gamma, step = 0.0, 10.0, 5.0
    while abs(found - gamma) > 1e-5:
        if feasible(gamma):
            found = gamma
            gamma += step
        else:
            gamma -= step
        step /= 2
    return found
