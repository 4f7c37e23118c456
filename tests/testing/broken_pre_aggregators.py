"""Pre-aggregators that break one promise each."""

from dataclasses import dataclass
from typing import Any

import torch

from fedagg import PreAggregator

from .sound_rules import accepted


@dataclass(frozen=True)
class Halfway(PreAggregator):
    """Every row, moved halfway to the median: keeps every promise."""

    def __call__(self, updates):
        rows = accepted(self, updates).double()
        return self.of(((rows + rows.quantile(0.5, dim=0)) / 2).to(updates.dtype), updates)

    def of(self, mixed, updates):
        return mixed


class RefusesAll(Halfway):
    def of(self, mixed, updates):
        raise ValueError("not today")


class AddsARow(Halfway):
    def of(self, mixed, updates):
        return torch.cat([mixed, mixed[:1]])


class AlwaysDouble(Halfway):
    def of(self, mixed, updates):
        return mixed.double()


class RoughInHalf(Halfway):
    def of(self, mixed, updates):
        return mixed * (1.5 if mixed.dtype == torch.bfloat16 else 1.0)


@dataclass(frozen=True)
class DoesNotSayHowMany(Halfway):
    f: int = 1

    def __call__(self, updates):
        if not 0 <= 2 * self.f < len(updates):
            raise ValueError("too few rows")
        return super().__call__(updates)


class PassesNaNOn(Halfway):
    def __call__(self, updates):
        return super().__call__(updates.nan_to_num()) + (updates - updates).to(updates.dtype)


class Shrinks(Halfway):
    def of(self, mixed, updates):
        return mixed / 2


class ReturnsItsInput(Halfway):
    def of(self, mixed, updates):
        return updates


SOUND: list[Any] = [Halfway()]
BROKEN = [
    (RefusesAll, {"answers"}),
    (AddsARow, {"mixed_shape"}),
    (AlwaysDouble, {"mixed_shape"}),
    (RoughInHalf, {"mixed_precision"}),
    (DoesNotSayHowMany, {"bounds"}),
    (PassesNaNOn, {"non_finite"}),
    (Shrinks, {"equal_rows_stay"}),
    (ReturnsItsInput, {"inputs_untouched"}),
]
