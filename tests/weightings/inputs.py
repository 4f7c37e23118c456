"""Cohorts by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fedagg import Cohort, Weighting


def cohort(
    counts: Sequence[float], *, rows: Any = None, labels: Any = None, ids: Sequence[int] | None = None, **metrics: Any
) -> Cohort:
    """A round of clients that claim ``counts`` examples, report ``metrics`` and sent ``rows``."""
    n = len(counts)
    updates = (
        torch.arange(2.0 * n, dtype=torch.float64).view(n, 2) if rows is None else torch.tensor(rows, dtype=torch.float64)
    )
    return Cohort(
        round=3,
        client_ids=ids or list(range(n)),
        updates=updates,
        params=torch.zeros(updates.shape[1], dtype=torch.float64),
        num_examples=torch.tensor(counts, dtype=torch.float64),
        metrics={name: torch.tensor(values, dtype=torch.float64) for name, values in metrics.items()},
        label_counts=None if labels is None else torch.tensor(labels),
    )


def reordered(seen: Cohort, order: list[int]) -> Cohort:
    """What the clients sent and said, by other clients."""
    return replace(
        seen,
        updates=seen.updates[order],
        num_examples=seen.num_examples[order],
        metrics={name: values[order] for name, values in seen.metrics.items()},
        label_counts=None if seen.label_counts is None else seen.label_counts[order],
    )


@dataclass
class Rounds(Weighting):
    """A weighting with state: the weight of every client is how often it was asked, 1 at first."""

    needs = frozenset({"loss_before"})

    def __post_init__(self) -> None:
        self.asked = 0

    def __call__(self, cohort: Cohort) -> Tensor:
        self.asked += 1
        return torch.full((cohort.n,), float(self.asked), dtype=torch.float64)

    def state_dict(self) -> dict[str, int]:
        return {"asked": self.asked}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.asked = state["asked"]

    def reset(self) -> None:
        self.asked = 0
