"""Centered clipping and the rules that look at signs: values, references, bounds, state."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from strategies import CenteredClip, RobustLearningRate, SignMajority

from . import properties, reference
from . import reference_reputation as slow
from .checks import double, refuses_what_is_no_update
from .test_against_reference import awkward, normal_rows, tables
from .test_golden import X5, X7, close, matrix
from .test_properties import DEVICES, matrices

often = settings(max_examples=60, deadline=None, derandomize=True)
quickly = settings(max_examples=15, deadline=None, derandomize=True)


# Centered clipping


def test_centered_clip_values():
    rule = CenteredClip(tau=1.0)
    close(rule(matrix(X5)), [0.692592, 0.40975])
    close(rule.state_dict()["center"], [0.692592, 0.40975])
    close(rule(matrix(X5)), [1.292183, 0.85453])
    close(CenteredClip(tau=1.0, L=3)(matrix(X5)), [1.656161, 1.220647])
    assert slow.centered_clip(X5, 1.0, 3) == pytest.approx([1.656161, 1.220647], abs=1e-5)


@often
@given(
    n=st.integers(1, 7),
    d=st.integers(1, 5),
    passes=st.integers(1, 4),
    tau=st.sampled_from([0.1, 1.0, 3.0, 1e3]),
    seed=st.integers(0, 10_000),
)
def test_centered_clip(n, d, passes, tau, seed):
    rows = normal_rows(n, d, seed)
    rows[-1] = [1e12 * x for x in rows[-1]]
    rule = CenteredClip(tau=tau, L=passes)
    first = slow.centered_clip(rows, tau, passes)
    slack = {"rtol": 1e-9, "atol": 1e-9 * (1 + tau)}
    torch.testing.assert_close(rule(double(rows)), double(first), **slack)
    again = slow.centered_clip(rows, tau, passes, first)
    torch.testing.assert_close(rule(double(rows)), double(again), **slack)


def test_a_far_row_pulls_no_further_than_tau():
    honest = torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for dtype in (torch.float32, torch.float64):
        alone, attacked = CenteredClip(tau=2.0, L=3), CenteredClip(tau=2.0, L=3)
        rows = torch.cat([honest, 1e30 * torch.ones(2, 5, dtype=torch.float64)]).to(dtype)
        still = torch.cat([honest, torch.zeros(2, 5, dtype=torch.float64)]).to(dtype)
        moved = attacked(rows).double() - alone(still).double()
        assert torch.linalg.vector_norm(moved) <= 3 * 2 * 2.0 * 2 / 10
        assert attacked.last_info["clipped"].tolist()[8:] == [True, True]


def test_a_large_tau_is_the_mean_and_rows_at_the_center_pull_nothing():
    close(CenteredClip(tau=1e6)(matrix(X5)), reference.mean(X5))
    rule = CenteredClip(tau=0.5)
    rule.load_state_dict({"center": double([3.0, 4.0])})
    close(rule(double([[3.0, 4.0]] * 3)), [3.0, 4.0])


def test_the_center_is_nobody_elses():
    rule = CenteredClip(tau=1.0)
    assert rule.state_dict() == {"center": None}
    result = rule(matrix(X5))
    kept = result.clone()
    result.fill_(9.0)
    state = rule.state_dict()
    assert torch.equal(state["center"], kept)
    other = CenteredClip(tau=1.0)
    other.load_state_dict(state)
    state["center"].fill_(9.0)
    close(other(matrix(X5)), [1.292183, 0.85453])
    close(rule(matrix(X5)), [1.292183, 0.85453])
    rule.reset()
    close(rule(matrix(X5)), [0.692592, 0.40975])
    rule.load_state_dict({"center": None})
    close(rule(matrix(X5)), [0.692592, 0.40975])


def test_a_refused_round_leaves_the_center_as_it_was():
    rule = CenteredClip(tau=1.0)
    rule(matrix(X5))
    before = rule.state_dict()["center"]
    for value in (float("nan"), float("inf"), 1e200):
        rows = matrix(X5)
        rows[3, 1] = value
        with pytest.raises(ValueError, match=r"CenteredClip needs .* rows \[3\]"):
            rule(rows)
        assert torch.equal(rule.state_dict()["center"], before)


def test_a_center_of_another_model_is_refused():
    rule = CenteredClip(tau=1.0)
    rule(matrix(X5))
    with pytest.raises(ValueError, match="a center of 2 coordinates, the updates have 3"):
        rule(matrix(X7))


def test_clipping_many_columns():
    rows = normal_rows(4, 20_000, seed=1)
    close(CenteredClip(tau=50.0, L=2)(double(rows)), slow.centered_clip(rows, 50.0, 2))


@quickly
@given(updates=matrices())
def test_centered_clip_properties(updates):
    fresh = lambda *given: CenteredClip(tau=1.5, L=2)(*given)  # noqa: E731
    properties.permutation_invariant(fresh, updates)
    properties.orthogonally_equivariant(fresh, updates)
    properties.inputs_untouched(fresh, updates)
    properties.weights_ignored(fresh, updates)
    for device in DEVICES:
        properties.dtype_and_device_kept(fresh, updates, device)
    for other in (properties.translation_equivariant, properties.scale_equivariant):
        with pytest.raises(AssertionError):
            other(fresh, updates)
    assert CenteredClip.invariances == {"permutation", "orthogonal"}


# Signs


def test_sign_values():
    close(SignMajority()(matrix(X7)), [1, 1, 1])
    close(RobustLearningRate(theta=4)(matrix(X5)), [3.3, 0.7])
    assert slow.sign_sums(X7) == [3, 4, 3]
    assert slow.sign_sums(X5) == [5, 3]
    close(SignMajority()(double([[1.0, 0.0, -2.0], [-1e30, 0.0, -1e-30]])), [0, 0, -1])


@often
@given(table=tables(values=awkward), seed=st.integers(0, 100))
def test_sign_rules(table, seed):
    _, rows = table
    votes = slow.sign_sums(rows)
    assert SignMajority()(double(rows)).tolist() == [slow.sign(vote) for vote in votes]
    largest = max(abs(x) for row in rows for x in row)
    weights = normal_rows(1, len(rows), seed)[0]
    for theta in range(len(rows) + 1):
        for shares in (None, weights):
            got = RobustLearningRate(theta=theta)(double(rows), None if shares is None else double(shares))
            wanted = double(slow.robust_learning_rate(rows, theta, shares))
            torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12 * (1 + largest))


def test_no_threshold_turns_nothing():
    updates = torch.randn(9, 30, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(RobustLearningRate(theta=0)(updates), updates.mean(dim=0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_votes_are_counted_exactly_in_half_precision(dtype):
    updates = torch.ones(3001, 2, dtype=dtype)  # neither half knows the number 3001
    updates[:1500, 1] = -1
    result = SignMajority()(updates)
    assert result.dtype == dtype
    assert result.tolist() == [1, 1]
    assert RobustLearningRate(theta=3001)(updates).sign().tolist() == [1, -1]


@quickly
@given(updates=matrices())
def test_sign_majority_properties(updates):
    assume((updates != 0).all())
    rule = SignMajority()
    assert rule.invariances == {"permutation"}
    assert rule.coordinatewise
    properties.permutation_invariant(rule, updates)
    properties.columns_may_be_cut(rule, updates)
    properties.inputs_untouched(rule, updates)
    properties.weights_ignored(rule, updates)
    properties.repr_pastes_back(rule)
    assert torch.equal(rule(7.5 * updates), rule(updates))
    for device in DEVICES:
        properties.dtype_and_device_kept(rule, updates, device)


# Settings


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CenteredClip(tau=0.0), "tau > 0 and L >= 1; got tau=0.0, L=1"),
        (lambda: CenteredClip(tau=float("nan")), "tau > 0"),
        (lambda: CenteredClip(L=0), "L >= 1; got tau=100.0, L=0"),
        (lambda: CenteredClip()(torch.zeros(0, 3)), "CenteredClip needs n >= 1; got n=0"),
        (lambda: SignMajority()(torch.zeros(0, 3)), "SignMajority needs n >= 1; got n=0"),
        (lambda: RobustLearningRate(theta=6)(torch.zeros(5, 3)), "0 <= theta <= n (Ozdayi et al. 2021); got n=5, theta=6"),
        (lambda: RobustLearningRate(theta=-1)(torch.zeros(5, 3)), "0 <= theta <= n (Ozdayi et al. 2021); got n=5, theta=-1"),
        (lambda: RobustLearningRate(theta=0)(torch.zeros(0, 3)), "RobustLearningRate needs n >= 1; got n=0"),
    ],
)
def test_bounds(make, message):
    with pytest.raises(ValueError) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize("rule", [SignMajority(), RobustLearningRate(theta=3)], ids=str)
def test_rows_that_are_no_updates_are_refused_by_number(rule):
    refuses_what_is_no_update(rule)


def test_tags():
    assert [str(rule) for rule in (CenteredClip(), CenteredClip(tau=1.0, L=3), RobustLearningRate(theta=4))] == [
        "CenteredClip",
        "CenteredClip-tau=1.0-L=3",
        "RobustLearningRate-4",
    ]
    assert repr(CenteredClip(tau=1.0)) == "CenteredClip(tau=1.0, L=1)"
