"""Rules that break a promise which only rules make."""

from dataclasses import dataclass

import torch

from fedagg import Rule

from .sound_rules import ROTATABLE, Average, Inner, Middle, Nearest, Running, accepted


class Misspells(Middle):
    invariances = frozenset({"permuation", "translation", "scale"})


class NeedsAnUnknown(Middle):
    needs = frozenset({"client_id"})


class FlagsWithAWord(Middle):
    uses_weights = None


class AlwaysDouble(Middle):
    def of(self, updates):
        return super().of(updates).double()


class WantsRowsInARow(Nearest):
    def client_weights(self, updates):
        return super().client_weights(updates.view(-1).view(updates.shape))


class RoughInHalf(Middle):
    def of(self, updates):
        return super().of(updates) * (1.5 if updates.dtype == torch.float16 else 1.0)


class SubtractsLater(Nearest):
    """Distances as ||x||^2 - 2 x.m + ||m||^2, in the rows' own dtype."""

    def pick(self, rows, updates):
        if updates.dtype != torch.float32:
            return super().pick(rows, updates)
        mean = updates.mean(dim=0)
        return int((updates.square().sum(dim=1) - 2 * updates @ mean + mean.square().sum()).argmin())


class TakesNobody(Middle):
    def __call__(self, updates, weights=None):
        return self.of(accepted(self, updates, 0)) if len(updates) else updates.new_zeros(updates.shape[1])


class DoesNotSayHowMany(Inner):
    def __call__(self, updates, weights=None):
        if not 0 <= 2 * self.f < len(updates):
            raise ValueError("too few rows")
        return super().__call__(updates)


class TakesANegativeF(Inner):
    def __call__(self, updates, weights=None):
        return Inner(max(0, self.f))(updates) if self.f < 0 else super().__call__(updates)


class PassesNaNOn(Average):
    def __call__(self, updates, weights=None):
        n = len(accepted(self, updates.nan_to_num()))
        weights = torch.full((n,), 1 / n, dtype=torch.float64) if weights is None else weights
        return (weights.double() @ updates.double()).to(updates.dtype)


class NamesTheWrongRow(Middle):
    def __call__(self, updates, weights=None):
        if not updates.isfinite().all():
            raise ValueError("row 77 is not finite")
        return super().__call__(updates)


@dataclass(frozen=True)
class Signs(Middle):
    invariances = frozenset({"permutation"})

    def of(self, updates):
        return updates.sign().sum(dim=0).sign()


@dataclass(frozen=True)
class FirstRow(Rule):
    coordinatewise = True
    invariances = ROTATABLE

    def __call__(self, updates, weights=None):
        return accepted(self, updates)[0].clone()


class Shortest(Nearest):
    def pick(self, rows, updates):
        return int(rows.norm(dim=1).argmin())


@dataclass(frozen=True)
class Clipped(Rule):
    invariances = frozenset({"permutation", "scale", "orthogonal"})

    def __call__(self, updates, weights=None):
        rows = accepted(self, updates).double()
        return (rows * (1e3 / rows.norm(dim=1, keepdim=True)).clamp(max=1.0)).mean(dim=0).to(updates.dtype)


class Turns(Middle):
    invariances = ROTATABLE


class TooModest(Middle):
    coordinatewise = False
    invariances = frozenset({"permutation", "translation"})


@dataclass(frozen=True)
class Believes(Nearest):
    """The longest row, whatever f is."""

    invariances = frozenset({"permutation", "scale", "orthogonal"})

    f: int = 1

    def client_weights(self, updates):
        accepted(self, updates, 2 * self.f + 1)
        return super().client_weights(updates)

    def pick(self, rows, updates):
        return int(rows.norm(dim=1).argmax())


class Overflows(Believes):
    """The shortest row, with squares that overflow taken for zero."""

    def pick(self, rows, updates):
        return int(rows.square().sum(dim=1).nan_to_num(posinf=0.0).argmin())


class LeavesTheHull(Inner):
    def __call__(self, updates, weights=None):
        result, near = super().__call__(updates), updates.abs() < 1e20
        return torch.where(near.all(dim=0), result, 1.01 * (near * updates).amax(dim=0))


class CutsWhatBelongsTogether(Shortest):
    coordinatewise = True
    invariances = frozenset({"permutation", "scale", "orthogonal"})


class AddsUpMedians(Middle):
    associative = True


class IgnoresWeights(Middle):
    uses_weights = True


class DoublesWithWeights(Average):
    def __call__(self, updates, weights=None):
        return super().__call__(updates, weights) * (1.0 + (weights is not None))


class BelievesClaims(Average):
    uses_weights = associative = False


class WeighsOtherwise(Nearest):
    def __call__(self, updates, weights=None):
        return 2 * self.combine(updates, self.client_weights(updates))

    def client_weights(self, updates):
        return super().client_weights(updates) / 2


class NotesNothing(Nearest):
    def __call__(self, updates, weights=None):
        return (self.client_weights(updates).double() @ updates.double()).to(updates.dtype)


@dataclass
class AdvancesWhenAsked(Rule):
    """The row nearest to the mean of all that it was asked about."""

    invariances = ROTATABLE

    def client_weights(self, updates):
        mean = accepted(self, updates, 3).double().mean(dim=0)
        self.known.append(mean)
        nearest = (updates.double() - torch.stack(self.known).mean(dim=0)).norm(dim=1).argmin()
        return torch.eye(len(updates), dtype=updates.dtype)[nearest]

    def __post_init__(self):
        self.reset()

    def state_dict(self):
        return {"known": [mean.clone() for mean in self.known]}

    def load_state_dict(self, state):
        self.known = [mean.clone() for mean in state["known"]]

    def reset(self):
        self.known = []


@dataclass(frozen=True)
class CannotDoWithout(Middle):
    needs = frozenset({"client_ids"})

    def __call__(self, updates, weights=None, *, client_ids):
        return super().__call__(updates)


SOUND = [Average(), Inner(), Nearest(), Running()]
BROKEN = [
    (Misspells, {"declarations", "modest"}),
    (NeedsAnUnknown, {"declarations"}),
    (FlagsWithAWord, {"declarations"}),
    (AlwaysDouble, {"shape"}),
    (WantsRowsInARow, {"shape"}),
    (RoughInHalf, {"precision"}),
    (SubtractsLater, {"common_part"}),
    (TakesNobody, {"bounds"}),
    (DoesNotSayHowMany, {"bounds"}),
    (TakesANegativeF, {"bounds"}),
    (PassesNaNOn, {"non_finite"}),
    (NamesTheWrongRow, {"non_finite"}),
    (Signs, {"equal_rows"}),
    (FirstRow, {"permutation"}),
    (Shortest, {"translation"}),
    (Clipped, {"scale"}),
    (Turns, {"orthogonal"}),
    (TooModest, {"modest"}),
    (Believes, {"bounded"}),
    (Overflows, {"bounded"}),
    (LeavesTheHull, {"hull"}),
    (CutsWhatBelongsTogether, {"columns"}),
    (AddsUpMedians, {"parts"}),
    (IgnoresWeights, {"weights_count"}),
    (DoublesWithWeights, {"weights_count"}),
    (BelievesClaims, {"weights_ignored"}),
    (WeighsOtherwise, {"client_weights"}),
    (NotesNothing, {"client_weights"}),
    (AdvancesWhenAsked, {"client_weights"}),
    (CannotDoWithout, {"needs"}),
]
