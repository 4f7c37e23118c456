"""MDA, SMEA and CAF: golden values, slow references that look at every subset or at the covariance itself, ties and bounds."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from strategies import CAF, MDA, SMEA
from strategies.rules import smea

from . import reference, reference_distance
from .test_against_reference import normal_rows, same, small_integers, tables
from .test_golden import X5, X7, close, matrix

often = settings(max_examples=60, deadline=None, derandomize=True)
seldom = settings(max_examples=30, deadline=None, derandomize=True)


@pytest.mark.parametrize(
    ("rule", "rows", "value"),
    [
        (MDA(f=1), X5, [1.625, 1.625]),
        (SMEA(f=2), X7, [1, 0.05, 2]),
        (CAF(f=2), X7, [1.003683, 0.05601, 2.005395]),
        (MDA(f=1), [[0], [4], [5], [9]], [3]),  # 0 4 5 and 4 5 9 are equally wide: the first counts
        (MDA(f=2), [[9], [0], [1], [2], [-9]], [1]),
    ],
    ids=str,
)
def test_value(rule, rows, value):
    close(rule(matrix(rows)), value)


def test_what_they_report():
    rule = MDA(f=1)
    rule(matrix(X5))
    assert rule.last_info["selected"].tolist() == [0, 1, 2, 3]
    assert rule.last_info["diameter"] == pytest.approx(2**0.5)
    rule = SMEA(f=2)
    rule(matrix(X7))
    assert rule.last_info["selected"].tolist() == [0, 1, 2, 3, 4]
    assert rule.last_info["eigenvalue"] == pytest.approx(0.053454, abs=1e-5)
    rule = CAF(f=2)
    rule(matrix(X7))
    assert rule.last_info["eigenvalue"] == pytest.approx(0.045052, abs=1e-5)
    assert rule.last_info["iterations"] == 20
    rule = CAF(f=1)
    rule(matrix(X5))
    assert rule.last_info["iterations"] == 205
    assert "fallback" not in rule.last_info


@often
@given(table=tables(least_n=lambda f: 2 * f + 1, values=small_integers))
@example(table=(2, [[1.0]] * 5))
@example(table=(1, [[0.0], [2.0], [1.0], [3.0]]))
def test_subsets_on_ties(table):
    f, rows = table
    updates = torch.tensor(rows, dtype=torch.float64)
    rule = MDA(f=f)
    weights = rule.client_weights(updates)
    kept = reference_distance.mda(rows, f)
    assert rule.last_info["selected"].tolist() == weights.nonzero().flatten().tolist() == list(kept)
    assert rule.last_info["diameter"] ** 2 == pytest.approx(reference_distance.diameter([rows[i] for i in kept]))
    _, least = reference_distance.smea(rows, f)
    rule = SMEA(f=f)
    rule(updates)
    found = reference_distance.top_eigenvalue([rows[i] for i in rule.last_info["selected"].tolist()])
    assert found == pytest.approx(least, abs=1e-9)


@pytest.mark.parametrize("chunk", [1, 60, 1 << 22])
def test_of_equal_eigenvalues_the_first_subset_counts(chunk, monkeypatch):
    monkeypatch.setattr(smea, "CHUNK_NUMBERS", chunk)
    rule = SMEA(f=2)
    rule(matrix([[0.0], [0.0], [1.0], [1.0], [9.0], [1.0], [0.0]]))  # no row at 9, and one of two groups of three cut to two
    assert rule.last_info["selected"].tolist() == [0, 1, 2, 3, 5]
    rule(matrix([[0.0, 0.1]] * 7))
    assert rule.last_info["selected"].tolist() == [0, 1, 2, 3, 4]


@often
@given(f=st.integers(0, 4), spare=st.integers(0, 3), d=st.integers(1, 5), seed=st.integers(0, 10_000), single=st.booleans())
def test_subsets_of_random_rows(f, spare, d, seed, single):
    dtype, slack = (torch.float32, 1e-5) if single else (torch.float64, 1e-11)
    updates = torch.tensor(normal_rows(2 * f + 1 + spare, d, seed), dtype=torch.float64).to(dtype)
    rows = updates.double().tolist()
    kept = reference_distance.mda(rows, f)
    torch.testing.assert_close(
        MDA(f=f)(updates).double(), torch.tensor(reference.mean([rows[i] for i in kept])).double(), rtol=slack, atol=1e-6
    )
    kept, least = reference_distance.smea(rows, f)
    rule = SMEA(f=f)
    rule(updates)
    assert rule.last_info["selected"].tolist() == list(kept)
    assert rule.last_info["eigenvalue"] == pytest.approx(least, rel=slack * 10, abs=1e-12)


@pytest.mark.parametrize("chunk", [1, 200])
def test_a_subset_is_passed_over_only_if_it_cannot_be_better(chunk, monkeypatch):
    monkeypatch.setattr(smea, "CHUNK_NUMBERS", chunk)
    for seed in range(20):
        rows = normal_rows(7, 3, seed)
        rule = SMEA(f=2)
        rule(torch.tensor(rows, dtype=torch.float64))
        assert tuple(rule.last_info["selected"].tolist()) == reference_distance.smea(rows, 2)[0]


@seldom
@given(f=st.integers(0, 3), spare=st.integers(0, 3), d=st.integers(2, 5), seed=st.integers(0, 10_000))
def test_caf_of_random_rows(f, spare, d, seed):
    rows = normal_rows(2 * f + 1 + spare, d, seed)
    shares, least, passes = reference_distance.caf(rows, f, 300)
    rule = CAF(f=f, max_iters=300)
    weights = rule.client_weights(torch.tensor(rows, dtype=torch.float64))
    same(rule(torch.tensor(rows, dtype=torch.float64)), weights.numpy() @ rows)
    if f == 0:
        assert weights.tolist() == pytest.approx([1 / len(rows)] * len(rows))
        assert rule.last_info["iterations"] == 0
        return
    torch.testing.assert_close(weights, torch.tensor(shares), rtol=1e-6, atol=1e-6)
    assert rule.last_info["eigenvalue"] == pytest.approx(least, rel=1e-8)
    assert abs(rule.last_info["iterations"] - passes) <= 1


def test_caf_stops_after_max_iters_and_where_nothing_varies():
    rule = CAF(f=1, max_iters=3)
    rule(matrix(X5))
    assert rule.last_info["iterations"] == 3
    assert rule.last_info["fallback"] == "stopped after 3 passes, the weights hardly move"
    close(rule(matrix([[1.0, 2.0]] * 5)), [1.0, 2.0])
    assert rule.last_info["eigenvalue"] == 0
    assert "fallback" not in rule.last_info
    close(rule(matrix([[1.0], [1.0], [1.0], [1.0], [7.0]])), [1.0])  # the far row gone, no direction is left


def test_caf_does_not_wait_where_far_rows_hide_all_others():
    """Two rows at 1e9 have weight 0, but still set the scale: nothing else would change in ten thousand passes."""
    updates = torch.tensor(normal_rows(7, 3, seed=2), dtype=torch.float64)
    updates[5], updates[6] = 1e9, -1e9
    rule = CAF(f=2)
    weights = rule.client_weights(updates)
    assert rule.last_info["iterations"] < 10
    assert "hardly move" in rule.last_info["fallback"]
    shares, _, _ = reference_distance.caf(updates.tolist(), 2, 2000)
    torch.testing.assert_close(weights, torch.tensor(shares), rtol=0, atol=1e-6)


@pytest.mark.parametrize("rule", [MDA(f=2), SMEA(f=2), CAF(f=2)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("far", [1e6, 1e12, 1e30])
def test_far_rows_leave_them_near_the_honest_rows(rule, dtype, far):
    honest = torch.tensor(normal_rows(7, 30, seed=1)).to(dtype)
    for attack in ([[1.0] * 30, [1.0] * 30], [[1.0] * 30, [-1.0] * 30], [[1.0] * 30, [0.0] * 29 + [1.0]]):
        got = rule(torch.cat([far * torch.tensor(attack, dtype=dtype), honest]))
        assert (got - honest.mean(dim=0)).norm() < honest.norm(dim=1).max()


@pytest.mark.parametrize("rule", [MDA(f=2), SMEA(f=2), CAF(f=2)], ids=str)
def test_rows_whose_squares_overflow_do_not_take_part(rule):
    updates = torch.tensor(normal_rows(9, 3, seed=0), dtype=torch.float64)
    updates[4], updates[8] = 1e200, -1e200
    weights = rule.client_weights(updates)
    assert weights[[4, 8]].tolist() == [0, 0]
    assert float(weights.sum()) == pytest.approx(1)
    with pytest.raises(ValueError, match=r"finite|overflows"):
        rule(1e200 * torch.ones(9, 3, dtype=torch.float64) * torch.arange(1, 10)[:, None])


@pytest.mark.parametrize(
    ("rule", "n", "message"),
    [
        (MDA(f=2), 4, "MDA needs f >= 0 and n >= 2f + 1 (El Mhamdi et al. 2020); got n=4, f=2"),
        (SMEA(f=-1), 4, "SMEA needs f >= 0 and n >= 2f + 1 (Allouah et al. 2023); got n=4, f=-1"),
        (CAF(f=2), 4, "CAF needs f >= 0 and n >= 2f + 1 (Allouah et al. 2025); got n=4, f=2"),
        (CAF(f=0), 0, "got n=0, f=0"),
        (MDA(f=10), 50, "MDA needs C(n, f) <= max_subsets=200000 subsets; got C(50, 10) = 10272278170"),
        (SMEA(f=2, max_subsets=14), 6, "SMEA needs C(n, f) <= max_subsets=14 subsets; got C(6, 2) = 15"),
    ],
    ids=str,
)
def test_bound(rule, n, message):
    with pytest.raises(ValueError) as caught:
        rule(torch.zeros(n, 3))
    assert message in str(caught.value)


@pytest.mark.parametrize("rule", [MDA(f=2), SMEA(f=2), CAF(f=2), SMEA(f=2, max_subsets=10)], ids=str)
def test_the_bound_itself_is_allowed(rule):
    assert rule(torch.ones(5, 3)).tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert rule(torch.ones(5, 0)).shape == (0,)


def test_mda_is_quick_where_subsets_are_many():
    """40 honest rows and ten liars of every kind: ten thousand million subsets, none of which is listed."""
    updates = torch.tensor(normal_rows(50, 20, seed=3), dtype=torch.float64)
    updates[40:] = 30 * torch.tensor(normal_rows(10, 20, seed=4), dtype=torch.float64)
    rule = MDA(f=10, max_subsets=10**11)
    rule(updates)
    assert rule.last_info["selected"].tolist() == list(range(40))
