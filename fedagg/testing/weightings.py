"""What a weighting promises."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fedagg.testing.core import Check, demand, demand_close, refusal
from fedagg.testing.inputs import Facts, cases_of


def one_each(weighting: Any) -> None:
    """A cohort of n clients gives n finite floating-point coefficients."""
    for case in cases_of(weighting):
        with case:
            _demand_one_each(weighting, case)


def unclaimed(weighting: Any) -> None:
    """Where every client claims no examples, or integers, it gives n finite coefficients or raises ``ValueError``."""
    for case in cases_of(weighting):
        counts = case.cohort.num_examples
        for what, claims in {"no examples": torch.zeros_like(counts), "integers": counts.long()}.items():
            with _with(case, f"all claims {what}", num_examples=claims) as other:
                refusal(_demand_one_each, weighting, other)


def untold(weighting: Any) -> None:
    """Where clients tell neither labels nor metrics, nor the population is known, it does without or raises ``ValueError``."""
    for case in cases_of(weighting):
        unknown: dict[str, Any] = {"label_counts": None, "metrics": {}, "population": None, "reachability": None}
        with _with(case, "only what is always known", **unknown) as other:
            refusal(_demand_one_each, weighting, other)


def follows_clients(weighting: Any) -> None:
    """Coefficients belong to what a client sent and claims, not to its place among the rows."""
    for case in cases_of(weighting):
        n, cohort = case.cohort.n, case.cohort
        order = torch.arange(n).roll(1)
        moved = {
            "updates": cohort.updates[order],
            "num_examples": cohort.num_examples[order],
            "metrics": {name: values[order] for name, values in cohort.metrics.items()},
            "label_counts": None if cohort.label_counts is None else cohort.label_counts[order],
            "reachability": None if cohort.reachability is None else cohort.reachability[order],
        }
        with _with(case, f"clients exchanged as {order.tolist()}", **moved) as other:
            weights = case.call(copy.deepcopy(weighting))
            size = float(weights.abs().max())
            demand_close(other.call(copy.deepcopy(weighting)), weights[order], 1e-9 * size, "exchanged clients")


WEIGHTING = (Check(one_each), Check(unclaimed), Check(untold), Check(follows_clients))


def _with(case: Facts, what: str, **changes: Any) -> Facts:
    return Facts(f"{case.made}, {what}", replace(case.cohort, **changes))


def _demand_one_each(weighting: Any, case: Facts) -> None:
    weights: Any = case.call(copy.deepcopy(weighting))
    cohort = case.cohort
    demand(isinstance(weights, Tensor), f"the call returned {type(weights).__name__}, not a tensor")
    demand(weights.shape == (cohort.n,), f"{cohort.n} clients got coefficients of shape {list(weights.shape)}")
    demand(weights.is_floating_point(), f"coefficients are {weights.dtype}")
    demand(bool(weights.isfinite().all()), f"coefficients are not finite: {weights.tolist()}")
    wanted = cohort.params.device
    demand(weights.device == wanted, f"coefficients are on {weights.device} instead of {wanted}")
