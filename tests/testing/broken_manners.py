"""Rules that break a promise which plug-ins of every kind make."""

import random
from dataclasses import dataclass, field

import numpy as np
import torch

from fedagg import Rule

from .sound_rules import Middle, Noisy, Running, accepted

NOISE = {"equal_rows"}  # what noise breaks anyway


class RefusesAll(Middle):
    def of(self, updates):
        raise ValueError(f"not today; n={len(updates)}")


class SortsInPlace(Middle):
    def of(self, updates):
        updates.copy_(updates.sort(dim=0).values)
        return super().of(updates)


@dataclass(frozen=True)
class ReturnsAView(Rule):
    coordinatewise = True
    invariances = frozenset({"translation", "scale", "orthogonal"})

    def __call__(self, updates, weights=None):
        return accepted(self, updates)[0]


class GrowsWithEveryCall(Middle):
    def __call__(self, updates, weights=None):
        self.last_info["calls"] = self.last_info.get("calls", 0) + 1
        return super().__call__(updates) * 1.5 ** (self.last_info["calls"] - 1)


class DrawsFromPython(Middle):
    def of(self, updates):
        random.random()
        return super().of(updates)


class DrawsFromNumPy(Middle):
    def of(self, updates):
        np.random.rand()
        return super().of(updates)


class SeedsTorch(Middle):
    def of(self, updates):
        torch.manual_seed(0)
        torch.rand(3)
        return super().of(updates)


class HasNoGenerator(Middle):
    random = True


class StartsAtSeedOne(Noisy):
    def source(self):
        return torch.Generator().manual_seed(1) if self.generator is None else self.generator


@dataclass(frozen=True)
class ShowsItsGenerator(Noisy):
    generator: torch.Generator | None = None


class DrawsTwiceFromTime(Noisy):
    def source(self):
        if self.generator is None:
            return super().source()
        fresh = torch.Generator()
        fresh.seed()
        return fresh


class IgnoresItsGenerator(Noisy):
    def source(self):
        return torch.Generator().manual_seed(0)


@dataclass(frozen=True)
class KeepsAGeneratorForNothing(Middle):
    generator: torch.Generator | None = field(default=None, repr=False, compare=False)


class HasNoReset(Running):
    reset = property()

    def __post_init__(self):
        self.total, self.rounds = None, 0


class ForgetsTheRounds(Running):
    def load_state_dict(self, state):
        super().load_state_dict({**state, "rounds": 1})


class HandsOutItsState(Running):
    def __call__(self, updates, weights=None):
        result = super().__call__(updates)
        self.total = self.total.clone() if self.rounds == 1 else self.total
        return result

    def state_dict(self):
        return {"total": self.total, "rounds": self.rounds}


class TakesInWhatItLoads(Running):
    def load_state_dict(self, state):
        self.total, self.rounds = state["total"], state["rounds"]


class ReturnsItsState(Running):
    def __call__(self, updates, weights=None):
        result = super().__call__(updates)
        if updates.dtype == torch.float64:
            self.total, self.rounds = result, 1
        return result


@dataclass
class KeepsTheRows(Running):
    """Answers with the median of this round and of the last."""

    def __call__(self, updates, weights=None):
        last = accepted(self, updates) if self.total is None else self.total
        self.total = updates
        return torch.cat([last, updates]).double().quantile(0.5, dim=0).to(updates.dtype)


class SavesAnArray(Running):
    def state_dict(self):
        return {"total": None if self.total is None else self.total.numpy().copy(), "rounds": self.rounds}

    def load_state_dict(self, state):
        super().load_state_dict({**state, "total": torch.from_numpy(state["total"])})


class ResetsHalf(Running):
    def reset(self):
        self.total, self.rounds = None, getattr(self, "rounds", 0)


class HasNoRepr(Middle):
    __repr__ = object.__repr__


@dataclass(frozen=True)
class HidesAnArgument(Middle):
    shift: float = field(default=0.0, repr=False)


class SaysTooMuch(Middle):
    def __str__(self):
        return f"{type(self).__name__}, " + "of all the values " * 10


class SaysItsAddress(Middle):
    def __str__(self):
        return f"{type(self).__name__} at 0x7f00"


@dataclass(frozen=True)
class HoldsALambda(Middle):
    def __post_init__(self):
        object.__setattr__(self, "shift", lambda value: value)


SOUND = [Middle(), Running()]
BROKEN = [
    (RefusesAll, {"answers"}),
    (SortsInPlace, {"inputs_untouched"}),
    (ReturnsAView, {"inputs_untouched"}),
    (GrowsWithEveryCall, {"repeatable"}),
    (DrawsFromPython, {"global_generators_untouched"}),
    (DrawsFromNumPy, {"global_generators_untouched"}),
    (SeedsTorch, {"global_generators_untouched"}),
    (HasNoGenerator, {"generator", "draws"}),
    (StartsAtSeedOne, {"generator", *NOISE}),
    (ShowsItsGenerator, {"generator", *NOISE}),
    (DrawsTwiceFromTime, {"generator", *NOISE}),
    (IgnoresItsGenerator, {"draws", *NOISE}),
    (KeepsAGeneratorForNothing, {"no_generator"}),
    (HasNoReset, {"state"}),
    (ForgetsTheRounds, {"state"}),
    (HandsOutItsState, {"state"}),
    (TakesInWhatItLoads, {"state"}),
    (ReturnsItsState, {"state"}),
    (KeepsTheRows, {"state"}),
    (SavesAnArray, {"state"}),
    (ResetsHalf, {"state"}),
    (HasNoRepr, {"pastes_back"}),
    (lambda: HidesAnArgument(shift=1.0), {"pastes_back"}),
    (SaysTooMuch, {"tag"}),
    (SaysItsAddress, {"tag"}),
    (HoldsALambda, {"pickles"}),
]
