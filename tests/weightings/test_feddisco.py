"""FedDisco: its metrics, its goldens, and what it refuses."""

from __future__ import annotations

import logging
import math
from itertools import product

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from strategies import ByExamples, FedDisco

from . import reference
from .inputs import cohort, reordered

FOUR = [[10, 10, 10], [50, 0, 0], [10, 20, 30], [4, 3, 3]]
SIZES = [sum(counts) for counts in FOUR]


@pytest.mark.parametrize(
    ("weighting", "wanted"),
    [
        (FedDisco(), [0.323928, 0.0, 0.500498, 0.175574]),
        (FedDisco(metric="l1"), [0.409091, 0.0, 0.454545, 0.136364]),
    ],
    ids=str,
)
def test_golden_values(weighting: FedDisco, wanted: list[float]) -> None:
    weights = weighting(cohort(SIZES, labels=FOUR))
    assert weights.dtype == torch.float64
    assert weights.tolist() == pytest.approx(wanted, abs=5e-7)


def test_golden_values_of_biased_and_unbiased_clients() -> None:
    """Five clients with two classes of ten each, d = ln 5, and one with all of them: 8/33, and 5/33 for each of the five."""
    biased = [[100 * (c // 2 == client) for c in range(10)] for client in range(5)]
    weights = FedDisco()(cohort([200] * 6, labels=[*biased, [20] * 10]))
    assert weights.tolist() == pytest.approx([5 / 33] * 5 + [8 / 33], abs=1e-12)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(*[st.integers(0, 50)] * 3).filter(any), min_size=1, max_size=6),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.sampled_from(list(product(["kl", "l1", "l2", "cosine"], [True, False]))),
    st.sampled_from([(0.5, 0.1), (0.0, 0.3), (2.0, 0.0), (0.1, -0.05)]),
)
def test_against_the_formula(
    labels: list[tuple[int, ...]], target: tuple[int, ...], how: tuple[str, bool], strength: tuple[float, float]
) -> None:
    (metric, normalize), (a, b), sizes = how, strength, [sum(counts) for counts in labels]
    try:
        wanted = reference.feddisco(sizes, labels, a, b, metric, target, normalize)
    except ZeroDivisionError:  # every weight is 0
        assume(False)
    # where nearly all weights are cut off, or discrepancies are rounding errors, both divide noise
    assume(all(distinct(counts, target) or proportional(counts, target) for counts in labels))
    found = FedDisco(a, b, metric, target, normalize)(cohort(sizes, labels=labels))  # type: ignore[arg-type]
    assert found.tolist() == pytest.approx(wanted, abs=1e-6)


def distinct(counts: tuple[int, ...], target: tuple[int, ...]) -> bool:
    return max(abs(p / sum(counts) - t / sum(target)) for p, t in zip(counts, target, strict=True)) > 1e-3


def proportional(counts: tuple[int, ...], target: tuple[int, ...]) -> bool:
    return all(p * sum(target) == t * sum(counts) for p, t in zip(counts, target, strict=True))


def test_defaults_are_those_of_the_paper() -> None:
    seen = cohort(SIZES, labels=FOUR)
    assert torch.equal(FedDisco()(seen), FedDisco(0.5, 0.1, "kl", (1, 1, 1), True)(seen))
    assert torch.equal(FedDisco(metric="l2")(seen), FedDisco(metric="l2", normalize=False)(seen))


def test_without_discrepancy_it_is_federated_averaging() -> None:
    seen = cohort(SIZES, labels=FOUR)
    torch.testing.assert_close(FedDisco(a=0, b=0)(seen), ByExamples()(seen), rtol=1e-14, atol=0)
    even = FedDisco(a=0, b=1e9)(seen)
    assert even.tolist() == pytest.approx([0.25] * 4, abs=1e-9)


@pytest.mark.parametrize("metric", ["kl", "l1", "l2", "cosine"])
def test_clients_like_the_target_have_no_discrepancy(metric: str) -> None:
    """Rounding leaves some 1e-17, with every metric, and normalising would make that the whole."""
    labels = [[3, 5, 2], [30, 50, 20], [9, 15, 6], [21, 35, 14]]
    seen, target = cohort([10, 100, 30, 70], labels=labels), [0.1 * count for count in labels[0]]
    found = FedDisco(a=5.0, b=0.0, metric=metric, target=target, normalize=True)(seen)  # type: ignore[arg-type]
    torch.testing.assert_close(found, ByExamples()(seen), rtol=1e-14, atol=0)


def test_where_no_weight_is_left_sizes_decide(caplog: pytest.LogCaptureFixture) -> None:
    """A warning in the log the first time, a record of every other time."""
    seen, weighting = cohort([10, 30], labels=[[10, 0], [0, 30]]), FedDisco(a=2.0, b=0.0, metric="l2")
    with caplog.at_level(logging.INFO):
        assert [weighting(seen).tolist() for _ in range(3)] == [[0.25, 0.75]] * 3
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "INFO"]
    said = "round 3: FedDisco(a=2.0, b=0.0, metric='l2', target=None, normalize=None) gives every client the weight 0; it uses"
    assert all(record.getMessage().startswith(said) for record in caplog.records)
    assert weighting == FedDisco(a=2.0, b=0.0, metric="l2")


def test_the_order_of_clients_does_not_matter() -> None:
    order, seen = [2, 0, 3, 1], cohort(SIZES, labels=FOUR)
    torch.testing.assert_close(FedDisco()(reordered(seen, order)), FedDisco()(seen)[order], rtol=1e-14, atol=0)


def test_a_target_may_be_any_sequence_of_numbers() -> None:
    made = [FedDisco(target=target) for target in ((0.5, 0.25, 0.25), [0.5, 0.25, 0.25], torch.tensor([0.5, 0.25, 0.25]))]
    assert made[0] == made[1] == made[2]
    assert eval(repr(made[2])) == made[0]


@pytest.mark.parametrize(
    ("labels", "weighting", "message"),
    [
        (None, FedDisco(), r"needs cohort.label_counts \[n, C\]"),
        ([[1, 2], [0, 0]], FedDisco(), r"not all 0; client 9 reports \[0.0, 0.0\]"),
        ([[1, 2], [3, -1]], FedDisco(), r"label counts >= 0.*; client 9 reports \[3.0, -1.0\]"),
        ([[1, 2], [3, math.nan]], FedDisco(), r"client 9 reports \[3.0, nan\]"),
        ([[1, 2], [3, 1]], FedDisco(target=(1, 1, 1)), "target of C=2 shares, one a class; got 3"),
        ([[0, 2], [3, 1]], FedDisco(target=(0, 1)), "client 9 has some of class 0, whose target is 0"),
    ],
)
def test_cohorts_it_refuses(labels: list[list[float]] | None, weighting: FedDisco, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        weighting(cohort([3, 4], labels=labels, ids=[5, 9]))


def test_a_class_that_the_target_lacks_has_a_distance_but_no_divergence() -> None:
    seen = cohort([2, 2], labels=[[0, 2], [2, 0]])
    for metric, far in (("l1", 2.0), ("l2", math.sqrt(2)), ("cosine", 1.0)):
        found = FedDisco(a=0.1, b=0.0, metric=metric, target=(0, 1))(seen)  # type: ignore[arg-type]
        assert (found[1] / found[0]).item() == pytest.approx((0.5 - 0.1 * far) / 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "l3"}, r"knows the metrics kl, l1, l2, cosine; got l3 \(did you mean l"),
        ({"a": -1}, "finite a >= 0 and a finite b; got a=-1"),
        ({"b": math.inf}, "got a=0.5, b=inf"),
        ({"target": (0.0, 0.0)}, r"not all 0; got \(0.0, 0.0\)"),
        ({"target": (1.0, -0.5)}, r"shares >= 0"),
    ],
)
def test_impossible_settings(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FedDisco(**arguments)  # type: ignore[arg-type]
