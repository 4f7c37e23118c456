"""Certified elections: golden values, the equations written down again, bad input, and what may not change a result."""

from __future__ import annotations

import random
import tracemalloc
from typing import Any

import numpy as np
import pytest

from fedagg import ConfigError
from strategies.protocols import _certified_votes as votes_module
from strategies.protocols.certified import dpa, finite_aggregation, run_off_election, spread_matrix
from tests.protocols.certified_reference import (
    V,
    ballot,
    dpa_radius,
    fa_radius,
    fa_roe_certificates,
    plurality,
    roe_certificates,
    run_off,
)


def electorate(orders: str) -> np.ndarray:
    """Logits [1, k, C] of models that prefer classes as said: "012 x4, 120"."""
    models = []
    for part in orders.split(", "):
        order, _, times = part.partition(" x")
        models += [ballot(order)] * int(times or 1)
    return np.array([models])


# By hand


@pytest.mark.parametrize(
    ("orders", "by_votes", "by_run_off", "certificates"),
    [
        ("012 x4, 120 x3, 210 x2", (0, 0), (1, 0), (1, 1)),
        ("012 x5, 102 x3, 201 x3", (0, 1), (0, 1), (2, 3)),
        ("210 x5, 120 x1, 012 x3", (2, 0), (2, 1), (2, 2)),
    ],
)
def test_three_electorates(
    orders: str, by_votes: tuple[int, int], by_run_off: tuple[int, int], certificates: tuple[int, int]
) -> None:
    logits = electorate(orders)
    assert [value.tolist() for value in dpa(logits.argmax(axis=2), 3)] == [[by_votes[0]], [by_votes[1]]]
    assert [value.tolist() for value in run_off_election(logits)] == [[by_run_off[0]], [by_run_off[1]]]
    assert roe_certificates([tuple(model) for model in logits[0]]) == certificates


def test_finite_aggregation_of_six_learners() -> None:
    """N = 4 1 1; the buckets take 4 4 3 3 2 2 of a lead that bears 3 over class 1 and 3 over class 2."""
    prediction, radius = finite_aggregation([[0, 0, 0, 0, 1, 2]], 3, spread_matrix(6, [2, 0]))
    assert (prediction.tolist(), radius.tolist()) == ([0], [0])


def test_finite_run_off_election_of_eight_learners() -> None:
    logits, spread = electorate("021, 102, 012, 012, 021, 021, 021, 210"), spread_matrix(8, [7, 6])
    assert [value.tolist() for value in run_off_election(logits, spread)] == [[0], [1]]
    assert [value.tolist() for value in finite_aggregation(logits.argmax(axis=2), 3, spread)] == [[0], [1]]
    assert fa_roe_certificates([tuple(model) for model in logits[0]], spread.tolist()) == (2, 2)


def test_the_reference_pushes_out_as_the_paper_does() -> None:
    assert [V(*gaps) for gaps in [(0, 1), (2, 2), (3, 3), (5, 5), (6, 10)]] == [1, 2, 2, 4, 6]


@pytest.mark.parametrize(("k", "d", "shifts"), [(50, 3, [90, 22, 123]), (1000, 2, [727, 180]), (3, 2, [2, 0])])
def test_the_published_shifts_are_accepted(k: int, d: int, shifts: list[int]) -> None:
    assert random.Random(1000000207).sample(range(k * d), d) == shifts
    spread = spread_matrix(k * d, shifts)
    assert spread.shape == (k * d, d)
    assert spread[1].tolist() == [(1 + shift) % (k * d) for shift in shifts]
    assert np.bincount(spread.ravel()).tolist() == [d] * (k * d)


@pytest.mark.parametrize("k", [1, 2, 5, 6])
@pytest.mark.parametrize("label", [0, 1])
def test_models_that_agree(k: int, label: int) -> None:
    """k of k votes: the lead over the class that comes next is k, and a tie is lost against class 0 only."""
    votes = np.full((1, k), label)
    logits = np.eye(2)[votes]
    assert dpa(votes, 2)[1].tolist() == [(k - label) // 2]
    assert run_off_election(logits)[1].tolist() == [(k - label) // 2]


def test_two_classes_meet_in_every_second_round() -> None:
    """The radius is that of the vote between them, 4 to 2: one may change, and the tie that is left goes to class 0."""
    assert [value.tolist() for value in run_off_election(electorate("01 x4, 10 x2"))] == [[0], [1]]
    assert [value.tolist() for value in run_off_election(electorate("10 x4, 01 x2"))] == [[1], [0]]


def test_a_model_whose_logits_tie_votes_for_the_finalist_behind() -> None:
    """Classes 2 and 1 meet, with three votes and two. The sixth model ties between them and makes it 3 to 3, which class 1
    wins; but what is sure of its votes are two, too few already. Doing nothing changes nothing, so its radius is 0."""
    logits = np.array([[[0, 1, 3]] * 3 + [[0, 3, 1]] * 2 + [[9, 1, 1]]], dtype=float)
    assert [value.tolist() for value in run_off_election(logits)] == [[1], [0]]
    assert run_off([tuple(model) for model in logits[0]]) == 1


def test_labels_mark_what_is_wrong() -> None:
    votes, spread = np.array([[0, 0, 0, 1], [1, 1, 1, 0]]), spread_matrix(4, [0])
    logits = np.eye(2)[votes]
    assert dpa(votes, 2, labels=[0, 0])[1].tolist() == [1, -1]
    assert finite_aggregation(votes, 2, spread, labels=[0, 0])[1].tolist() == [1, -1]
    assert run_off_election(logits, labels=[0, 0])[1].tolist() == [1, -1]


# Against the equations written down again


def drawn(rng: np.random.Generator, classes: int, k: int, kind: str) -> np.ndarray:
    """Logits of some points: without ties, with many, or of models that nearly all like class 1 well and few like it best."""
    shape = (2000 // k**2 + 2, k, classes)
    logits = rng.integers(0, 3, shape).astype(float) if kind == "ties" else rng.normal(size=shape)
    if kind == "compromise":
        logits[:, :, 1] = np.quantile(logits.max(axis=2), 0.3) + 0.1 * logits[:, :, 1]
    else:
        logits[:, :, rng.integers(classes)] += rng.uniform(0, 2)
    return logits


@pytest.mark.parametrize("kind", ["plain", "ties", "compromise"])
@pytest.mark.parametrize(
    ("classes", "k", "d"), [(2, 5, 2), (3, 12, 3), (4, 30, 2), (10, 60, 5), (10, 17, 16), (5, 100, 90), (2, 270, 260)]
)
def test_against_the_equations(classes: int, k: int, d: int, kind: str) -> None:
    rng = np.random.default_rng([classes, k, d])
    logits = drawn(rng, classes, k, kind)
    spread = spread_matrix(k, rng.choice(k, d, replace=False).tolist())
    everyone = [[tuple(model) for model in models] for models in logits.tolist()]
    by_votes, by_run_off = [plurality(models) for models in everyone], [run_off(models) for models in everyone]
    votes = logits.argmax(axis=2)

    def same(found: tuple[np.ndarray, np.ndarray], prediction: list[int], radius: list[Any]) -> None:
        assert found[0].dtype == found[1].dtype == np.int64
        assert found[0].tolist() == prediction
        assert found[1].tolist() == radius

    same(dpa(votes, classes), by_votes, [dpa_radius(models) for models in everyone])
    same(finite_aggregation(votes, classes, spread), by_votes, [fa_radius(models, spread.tolist()) for models in everyone])
    same(run_off_election(logits), by_run_off, [max(1, min(roe_certificates(models))) - 1 for models in everyone])
    finite = [max(1, min(fa_roe_certificates(models, spread.tolist()))) - 1 for models in everyone]
    same(run_off_election(logits, spread), by_run_off, finite)


# What may not change a result, and what it costs


def test_blocks_points_and_models_can_come_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    logits, spread = rng.normal(size=(50, 24, 4)), spread_matrix(24, [0, 5])
    logits[:, :, 2] += 0.5
    whole = run_off_election(logits, spread), run_off_election(logits), dpa(logits.argmax(axis=2), 4)
    monkeypatch.setattr(votes_module, "BLOCK_CELLS", 24 * 4 * 7)
    again = run_off_election(logits, spread), run_off_election(logits), dpa(logits.argmax(axis=2), 4)
    np.testing.assert_array_equal(whole, again)
    order = rng.permutation(50)
    np.testing.assert_array_equal(run_off_election(logits[order], spread), np.array(whole[0])[:, order])
    models = rng.permutation(24)
    np.testing.assert_array_equal(run_off_election(logits[:, models]), whole[1])
    np.testing.assert_array_equal(run_off_election(logits[:, models], np.argsort(models)[spread]), whole[0])


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.int32])
def test_inputs_of_any_type_are_left_as_they_are(kind: type) -> None:
    logits = np.random.default_rng(1).integers(0, 9, (30, 11, 3))
    given = logits.astype(kind)
    given.flags.writeable = False
    np.testing.assert_array_equal(
        run_off_election(given, spread_matrix(11, [0, 1])), run_off_election(logits, spread_matrix(11, [0, 1]))
    )
    votes = logits.argmax(axis=2).astype(np.uint8)
    votes.flags.writeable = False
    np.testing.assert_array_equal(dpa(votes, 3), dpa(votes.astype(np.int64), 3))


def test_memory_is_that_of_a_block() -> None:
    logits = np.random.default_rng(1).normal(size=(2000, 300, 10)).astype(np.float32)
    tracemalloc.start()
    run_off_election(logits, spread_matrix(300, [0, 7]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert logits.nbytes == 24_000_000
    assert peak < 16_000_000


def test_no_points_are_no_predictions() -> None:
    for found in (
        dpa(np.zeros((0, 3), int), 2),
        run_off_election(np.zeros((0, 3, 2))),
        run_off_election(np.zeros((0, 3, 2)), spread_matrix(3, [0])),
    ):
        assert [value.shape for value in found] == [(0,), (0,)]


def test_infinite_logits_are_larger_or_smaller_than_any_other() -> None:
    logits = np.array([[[0.0, -np.inf], [np.inf, np.inf], [-1e300, -np.inf]]])
    assert [value.tolist() for value in run_off_election(logits)] == [[0], [0]]


# Bad input

VOTES, LOGITS, SPREAD = [[0, 1, 1]], [[[1.0, 0.0]] * 3], spread_matrix(3, [0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dpa([0, 1], 2), r"votes must be integers \[B, k >= 1\].*got int64 \[2\]"),
        (lambda: dpa([[0.0, 1.0]], 2), "votes must be integers.*got float64"),
        (lambda: dpa(np.zeros((2, 0), int), 2), r"k >= 1.*\[2, 0\]"),
        (lambda: dpa(VOTES, 1), "num_classes >= 2; got 1"),
        (lambda: dpa([[0, 2]], 2), r"votes must lie in 0 .. 1, the classes; got 0 .. 2"),
        (lambda: dpa([[0, -1]], 2), r"got -1 .. 0"),
        (lambda: dpa(VOTES, 2, labels=[2]), r"labels must lie in 0 .. 1, the classes; got 2 .. 2"),
        (lambda: dpa(VOTES, 2, labels=[-1]), "labels must lie"),
        (lambda: dpa(VOTES, 2, labels=[0, 1]), r"labels must be integers \[B=1\].*\[2\]"),
        (lambda: run_off_election(LOGITS, labels=[5]), "labels must lie in 0 .. 1"),
        (lambda: run_off_election([[1.0, 2.0]]), r"logits must be real numbers \[B, k >= 1, C >= 2\]; got float64 \[1, 2\]"),
        (lambda: run_off_election([[[1.0]]]), "C >= 2"),
        (lambda: run_off_election([[[1j, 2j]]]), "complex128"),
        (lambda: finite_aggregation(VOTES, 2, [0, 1, 2]), r"spread must be integers \[buckets, d >= 1\]"),
        (lambda: finite_aggregation(VOTES, 2, [[0], [1], [3]]), r"spread must lie in 0 .. 2, the models; got 0 .. 3"),
        (lambda: finite_aggregation(VOTES, 2, [[0, 1], [2, 2]]), r"once a bucket; row 1 is \[2, 2\]"),
        (lambda: finite_aggregation(VOTES, 2, [[0], [1], [1]]), "learner 2 of 3 reads none"),
        (lambda: run_off_election(LOGITS, [[0], [2]]), "learner 1 of 3 reads none"),
        (lambda: spread_matrix(6, [1, 7]), r"different modulo 6; got \[1, 7\]"),
        (lambda: spread_matrix(6, []), "a shift; got 6"),
        (lambda: spread_matrix(0, [1]), "num_learners >= 1"),
        (lambda: spread_matrix(6.0, [1]), r"needs integers.*got 6.0 and \[1\]"),
        (lambda: spread_matrix(6, [1.5]), r"needs integers.*got 6 and \[1.5\]"),
    ],
)
def test_what_cannot_be_counted_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()


@pytest.mark.parametrize("spread", [None, SPREAD])
def test_nan_is_named(spread: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(votes_module, "BLOCK_CELLS", 12)
    logits = np.zeros((7, 3, 2))
    logits[5, 2, 1] = np.nan
    with pytest.raises(ConfigError, match="NaN for test point 5, model 2, class 1"):
        run_off_election(logits, spread)
