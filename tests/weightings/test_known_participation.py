"""The yardsticks of FedAU: AverageAll and KnownParticipation."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch

import strategies
from fedagg import Cohort, Weighting
from strategies import AverageAll, KnownParticipation, Mean

ROWS = torch.tensor([[1.0, 0.0], [2.0, 2.0], [0.0, 4.0]], dtype=torch.float64)
P = [0.5, 0.2, 1.0]


def seen(clients: list[int], population: int | None = 3, **more: Any) -> Cohort:
    return Cohort(1, clients, ROWS[: len(clients)], torch.zeros(2), torch.ones(len(clients)), population=population, **more)


GIVEN: dict[str, KnownParticipation] = {
    "mapping": KnownParticipation({2: 0.5, 7: 0.1}),
    "list": KnownParticipation([0.9, 0.9, 0.5, 0.9, 0.9, 0.9, 0.9, 0.1]),
    "tensor": KnownParticipation(torch.tensor([0.9, 0.9, 0.5, 0.9, 0.9, 0.9, 0.9, 0.1], dtype=torch.float64)),
}


@pytest.mark.parametrize("weighting", GIVEN.values(), ids=GIVEN)
def test_known_participation(weighting: KnownParticipation) -> None:
    weights = weighting(seen([2, 7], population=8))
    assert weights.dtype == torch.float64
    assert weights.tolist() == pytest.approx([1 / (8 * 0.5), 1 / (8 * 0.1)])
    assert weighting.needs == frozenset()
    assert str(weighting) == "KnownParticipation"


def test_by_default_the_simulation_tells() -> None:
    weighting = KnownParticipation()
    assert weighting.needs == {"reachability"}
    known = seen([2, 7], population=8, reachability=torch.tensor([0.5, 0.1]))
    assert weighting(known).tolist() == pytest.approx([0.25, 1.25])
    with pytest.raises(ValueError, match=r"nobody knows how often clients take part here \(cohort\.reachability is None\)"):
        weighting(seen([2, 7]))


def test_average_all() -> None:
    assert AverageAll()(seen([2, 7], population=8)).tolist() == [0.125, 0.125]
    assert AverageAll().needs == frozenset()


@pytest.mark.parametrize(
    ("weighting", "wanted"),
    [
        (KnownParticipation(P), ROWS.mean(dim=0)),
        (AverageAll(), (torch.tensor(P, dtype=torch.float64)[:, None] * ROWS).sum(dim=0) / 3),
    ],
    ids=str,
)
def test_the_step_on_average(weighting: Weighting, wanted: torch.Tensor) -> None:
    """Over all sets of participants, by their probability: the first is the mean of all clients, the second is drawn to those
    who come often."""
    expected = torch.zeros(2, dtype=torch.float64)
    for present in product([False, True], repeat=3):
        chance = 1.0
        for p, there in zip(P, present, strict=True):
            chance *= p if there else 1 - p
        clients = [client for client, there in enumerate(present) if there]
        if clients:
            cohort = replace(seen([0, 1, 2]), client_ids=clients, updates=ROWS[clients], num_examples=torch.ones(len(clients)))
            expected += chance * Mean()(cohort.updates, weighting(cohort))
    assert expected.tolist() == pytest.approx(wanted.tolist())


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({2: 0.5}, "has probabilities of 1 clients, none for client 7"),
        ([0.5] * 7, "has probabilities of 7 clients, none for client 7"),
        ({2: 0.5, 7: 0.0}, r"in \(0, 1\]; client 7 has 0\.0"),
        ({2: 1.5, 7: 0.5}, r"in \(0, 1\]; client 2 has 1\.5"),
        ({2: float("nan"), 7: 0.5}, r"in \(0, 1\]; client 2 has nan"),
    ],
)
def test_impossible_probabilities(given: Any, found: str) -> None:
    with pytest.raises(ValueError, match=f"KnownParticipation .*{found}"):
        KnownParticipation(given)(seen([2, 7]))


@pytest.mark.parametrize("weighting", [AverageAll(), KnownParticipation({2: 0.5})], ids=str)
def test_the_population_must_be_known(weighting: Weighting) -> None:
    with pytest.raises(ValueError, match=r"needs to know how many clients there are in all; cohort\.population is None"):
        weighting(seen([2], population=None))


@pytest.mark.parametrize("weighting", [AverageAll(), KnownParticipation(), GIVEN["mapping"], GIVEN["list"]], ids=repr)
def test_repr_pastes_back(weighting: Weighting) -> None:
    assert eval(repr(weighting), vars(strategies)) == weighting
