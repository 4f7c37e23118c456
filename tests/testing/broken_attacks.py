"""Attacks that break one promise each."""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch

from fedagg import Attack
from fedagg.contracts import check_attack_input, private_generator


class Quiet(Attack):
    """The call that the attacks below share; they say what they send in ``of``."""

    def __call__(self, honest, f, *, own=None, last_delta=None, params=None, round=0, client_ids=None):
        check_attack_input(honest, f)
        return self.of(honest, f, own, last_delta)


@dataclass(frozen=True)
class Opposite(Quiet):
    """Minus the mean: keeps every promise."""

    def of(self, honest, f, own, last_delta):
        return -honest.mean(dim=0).repeat(f, 1)


@dataclass(frozen=True)
class Poisoner(Quiet):
    """Labels one up, in pictures with a white corner: keeps every promise."""

    knowledge = "own"
    target = 1

    def of(self, honest, f, own, last_delta):
        if own is None and f:
            raise ValueError("Poisoner needs own")
        return honest.new_empty(0, honest.shape[1]) if own is None else own.clone()

    def poison(self, x, y):
        return self.trigger(x), (y + 1) % 10

    def trigger(self, x):
        x = x.clone()
        x[..., -2:, -2:] = 1.0
        return x


@dataclass(frozen=True)
class Shared(Poisoner):
    """Each attacker whitens another column: keeps every promise."""

    distributed = True

    def poison(self, x, y, attacker=0):
        x = self.trigger(x)
        x[..., attacker % 4] = 1.0
        return x, y.clone()


@dataclass(frozen=True)
class NoisyPoisoner(Poisoner):
    """Draws in ``poison``, and keeps every promise."""

    random = True

    generator: torch.Generator | None = field(default=None, repr=False, compare=False)

    def poison(self, x, y):
        order = torch.randperm(len(y), generator=private_generator(self.generator))
        return x[order], y[order]


class RefusesAll(Opposite):
    def of(self, honest, f, own, last_delta):
        raise ValueError("not today")


class KnowsAll(Opposite):
    knowledge = "everything"


class OneTooMany(Opposite):
    def of(self, honest, f, own, last_delta):
        return super().of(honest, f + bool(f), own, last_delta)


class AlwaysFloat(Opposite):
    def of(self, honest, f, own, last_delta):
        return super().of(honest, f, own, last_delta).float()


class WantsALastDelta(Opposite):
    knowledge = "history"

    def of(self, honest, f, own, last_delta):
        return -last_delta.repeat(f, 1)


class NeedsSomebody(Opposite):
    def of(self, honest, f, own, last_delta):
        return super().of(honest * (f // f), f, own, last_delta)


class TakesANegativeF(Opposite):
    def __call__(self, honest, f, **context):
        return super().__call__(honest, max(f, 0), **context)


class AttacksNobody(Opposite):
    def __call__(self, honest, f, **context):
        return super().__call__(honest, f, **context) if len(honest) else honest.new_zeros(f, honest.shape[1])


class DoesNotNameOwn(Poisoner):
    def of(self, honest, f, own, last_delta):
        if own is None and f:
            raise ValueError("something is not there")
        return super().of(honest, f, own, last_delta)


class WantsIds(Opposite):
    def __call__(self, honest, f, *, client_ids, **context):
        return super().__call__(honest, f, client_ids=client_ids, **context)


class PeeksAtHonestRows(Opposite):
    knowledge = "own"


class SharesOwnRows(Poisoner):
    """Every attacker sends the mean of what all of them learnt, which none of them knows."""

    poison = trigger = None

    def of(self, honest, f, own, last_delta):
        return super().of(honest, f, own, last_delta).mean(dim=0).repeat(f, 1)


class RemembersParams(Opposite):
    """What was aggregated is the difference of the models of two rounds."""

    def __call__(self, honest, f, *, params=None, **context):
        last = 0.0 if params is None or self.before is None else params - self.before
        object.__setattr__(self, "before", None if params is None else params.clone())
        return super().__call__(honest, f, params=params, **context) - last

    before = None

    def state_dict(self):
        return {"before": copy.deepcopy(self.before)}

    def load_state_dict(self, state):
        object.__setattr__(self, "before", copy.deepcopy(state["before"]))

    def reset(self):
        object.__setattr__(self, "before", None)


class PeeksAtHistory(Opposite):
    def of(self, honest, f, own, last_delta):
        rows = super().of(honest, f, own, last_delta)
        return rows if last_delta is None else rows - last_delta


@dataclass(frozen=True)
class HasAnAggregator(Opposite):
    aggregator: Any = field(default=None, repr=False)


class LabelsOutside(Poisoner):
    def poison(self, x, y):
        return self.trigger(x), y + 1


class LabelsAsFloats(Poisoner):
    def poison(self, x, y):
        return self.trigger(x), y.double()


class PoisonsInPlace(Poisoner):
    def poison(self, x, y):
        y.copy_(y.sort().values)
        return super().poison(x, y)


class ReturnsViews(Poisoner):
    def poison(self, x, y):
        return self.trigger(x), y


class NeedsTwoPictures(Poisoner):
    def poison(self, x, y):
        x = self.trigger(x)
        x[1] = 0.0
        return x, y.clone()


class SharesAmongFour(Shared):
    def poison(self, x, y, attacker=0):
        return super().poison(x, y, attacker=[0, 1, 2, 3][attacker])


class ScalesUp(Poisoner):
    def of(self, honest, f, own, last_delta):
        return 3 * super().of(honest, f, own, last_delta)


class AimsNowhere(Poisoner):
    target = None


class StampsInPlace(Poisoner):
    def poison(self, x, y):
        return super().trigger(x), y.clone()

    def trigger(self, x):
        x[..., -2:, -2:] = 1.0
        return x


class StampsNothing(Poisoner):
    def trigger(self, x):
        return x.clone()


class IgnoresItsGenerator(NoisyPoisoner):
    def poison(self, x, y):
        order = torch.randperm(len(y), generator=private_generator(None))
        return x[order], y[order]


SOUND: list[Any] = [Opposite(), Poisoner(), Shared(), NoisyPoisoner()]
BROKEN = [
    (RefusesAll, {"answers"}),
    (KnowsAll, {"knowledge_declared"}),
    (OneTooMany, {"byzantine_rows"}),
    (AlwaysFloat, {"byzantine_rows"}),
    (WantsALastDelta, {"byzantine_rows"}),
    (NeedsSomebody, {"nobody"}),
    (TakesANegativeF, {"impossible"}),
    (AttacksNobody, {"impossible"}),
    (DoesNotNameOwn, {"missing"}),
    (WantsIds, {"missing"}),
    (PeeksAtHonestRows, {"knowledge"}),
    (SharesOwnRows, {"knowledge"}),
    (RemembersParams, {"knowledge"}),
    (PeeksAtHistory, {"knowledge"}),
    (HasAnAggregator, {"knowledge"}),
    (LabelsOutside, {"poison"}),
    (LabelsAsFloats, {"poison"}),
    (PoisonsInPlace, {"poison", "inputs_untouched"}),
    (ReturnsViews, {"poison", "inputs_untouched"}),
    (NeedsTwoPictures, {"poison"}),
    (SharesAmongFour, {"poison"}),
    (ScalesUp, {"sends_own"}),
    (AimsNowhere, {"trigger"}),
    (StampsInPlace, {"trigger"}),
    (StampsNothing, {"trigger"}),
    (IgnoresItsGenerator, {"draws"}),
]
