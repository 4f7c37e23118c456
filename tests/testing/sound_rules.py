"""Small rules that keep every promise; the broken ones are made from them."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedagg import Rule
from fedagg.contracts import private_generator

ROTATABLE = frozenset({"permutation", "translation", "scale", "orthogonal"})
BY_COLUMN = frozenset({"permutation", "translation", "scale"})


def accepted(rule: Rule, updates: Tensor, least: int = 1) -> Tensor:
    """The rows, if they are finite and there are enough of them."""
    f = getattr(rule, "f", 0)
    if f < 0 or len(updates) < least:
        raise ValueError(f"{type(rule).__name__} needs f >= 0 and n >= {least}; got n={len(updates)}, f={f}")
    bad = (~updates.isfinite()).any(dim=1).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"rows {bad} are not finite")
    return updates


@dataclass(frozen=True)
class Middle(Rule):
    """The median, which keeps every promise."""

    coordinatewise = True
    invariances = BY_COLUMN

    def __call__(self, updates, weights=None):
        return self.of(accepted(self, updates))

    def of(self, updates):
        return updates.double().quantile(0.5, dim=0).to(updates.dtype)


@dataclass(frozen=True)
class Average(Rule):
    """The weighted sum, which keeps every promise."""

    coordinatewise = associative = uses_weights = True
    invariances = ROTATABLE

    def __call__(self, updates, weights=None):
        n = len(accepted(self, updates))
        weights = torch.full((n,), 1 / n, dtype=torch.float64) if weights is None else weights
        return (weights.to(updates.device).double() @ updates.double()).to(updates.dtype)


@dataclass(frozen=True)
class Inner(Rule):
    """The mean of all but the f smallest and the f largest values, which keeps every promise."""

    coordinatewise = True
    invariances = BY_COLUMN

    f: int = 1

    def __call__(self, updates, weights=None):
        n = len(accepted(self, updates, 2 * self.f + 1))
        return updates.double().sort(dim=0).values[self.f : n - self.f].mean(dim=0).to(updates.dtype)


@dataclass(frozen=True)
class Nearest(Rule):
    """The row next to the mean, which keeps every promise."""

    invariances = ROTATABLE

    def client_weights(self, updates):
        rows = accepted(self, updates, 3).double()  # of two, both are equally far
        return torch.eye(len(rows), dtype=updates.dtype, device=updates.device)[self.pick(rows, updates)]

    def pick(self, rows, updates):
        return int((rows - rows.mean(dim=0)).norm(dim=1).argmin())


@dataclass
class Running(Rule):
    """The mean over the rounds of the median of each, which keeps every promise."""

    coordinatewise = True
    invariances = BY_COLUMN

    def __post_init__(self):
        self.reset()

    def __call__(self, updates, weights=None):
        middle = accepted(self, updates).double().quantile(0.5, dim=0)
        self.total = middle if self.total is None else self.total + middle
        self.rounds += 1
        return (self.total / self.rounds).to(updates.dtype)

    def state_dict(self):
        return {"total": None if self.total is None else self.total.clone(), "rounds": self.rounds}

    def load_state_dict(self, state):
        self.total = None if state["total"] is None else state["total"].clone()
        self.rounds = state["rounds"]

    def reset(self):
        self.total, self.rounds = None, 0


@dataclass(frozen=True)
class Noisy(Rule):
    """The median plus noise, which keeps the promises that noise lets it keep."""

    random = True
    invariances = frozenset({"permutation", "translation"})

    generator: torch.Generator | None = field(default=None, repr=False, compare=False)

    def __call__(self, updates, weights=None):
        noise = torch.randn(updates.shape[1], generator=self.source(), dtype=torch.float64)
        middle = accepted(self, updates).double().quantile(0.5, dim=0)
        return (middle + 1e-3 * noise.to(updates.device)).to(updates.dtype)

    def source(self):
        return private_generator(self.generator)
