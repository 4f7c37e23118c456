"""Weightings that break one promise each."""

from dataclasses import dataclass
from typing import Any

import torch

from fedagg import Weighting


@dataclass(frozen=True)
class ByClaims(Weighting):
    """Shares of the claimed examples, 1/n where nobody claims any: keeps every promise."""

    def __call__(self, cohort):
        counts = cohort.num_examples.double() + (cohort.num_examples.sum() == 0)
        return self.of(counts / counts.sum(), cohort)

    def of(self, shares, cohort):
        return shares


@dataclass
class Remembers(Weighting):
    """By client id, the share of the examples of all rounds so far: keeps every promise."""

    def __post_init__(self):
        self.reset()

    def __call__(self, cohort):
        for client, count in zip(cohort.client_ids, cohort.num_examples.tolist(), strict=True):
            self.seen[client] = self.seen.get(client, 0.0) + count + 1.0
        counts = torch.tensor([self.seen[client] for client in cohort.client_ids], dtype=torch.float64)
        return counts / counts.sum()

    def state_dict(self):
        return {"seen": dict(self.seen)}

    def load_state_dict(self, state):
        self.seen = dict(state["seen"])

    def reset(self):
        self.seen = {}


class LeavesOneOut(ByClaims):
    def of(self, shares, cohort):
        return shares[:-1]


class Integers(ByClaims):
    def of(self, shares, cohort):
        return torch.ones(cohort.n, dtype=torch.int64)


class DividesByNothing(ByClaims):
    def __call__(self, cohort):
        return cohort.num_examples.double() / cohort.num_examples.sum()


class TakesOnlyFloats(ByClaims):
    def __call__(self, cohort):
        if not cohort.num_examples.is_floating_point():
            raise TypeError("floats, please")
        return super().__call__(cohort)


class WantsLabels(ByClaims):
    def of(self, shares, cohort):
        return cohort.label_counts.sum(dim=1) / cohort.label_counts.sum()


class ByPlace(ByClaims):
    def of(self, shares, cohort):
        return torch.softmax(torch.arange(cohort.n, dtype=torch.float64), dim=0)


class ForgetsIds(Remembers):
    def load_state_dict(self, state):
        self.seen = {}


SOUND: list[Any] = [ByClaims(), Remembers()]
BROKEN = [
    (LeavesOneOut, {"one_each", "unclaimed", "untold", "follows_clients"}),
    (Integers, {"one_each", "unclaimed", "untold"}),
    (DividesByNothing, {"unclaimed"}),
    (TakesOnlyFloats, {"unclaimed"}),
    (WantsLabels, {"untold"}),
    (ByPlace, {"follows_clients"}),
    (ForgetsIds, {"state"}),
]
