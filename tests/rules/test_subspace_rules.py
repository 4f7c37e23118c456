"""Rules that look for a subspace, or bend rows until none conflict: values, references, limits."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import FlagAggregator, UPGrad

from . import properties
from . import reference_subspace as subspace
from .checks import double, holds_anyhow, refuses_what_is_no_update, same, seeded
from .test_against_reference import normal_rows
from .test_golden import X5, X7, close, matrix
from .test_properties import matrices

often = settings(max_examples=60, deadline=None, derandomize=True)
quickly = settings(max_examples=15, deadline=None, derandomize=True)


def loosely(invariance):
    """The same check; where roots of rounding enter, agreement to 1e-6 is what float64 allows."""

    def holds(rule, updates):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(properties, "close", lambda a, b: torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6))
            invariance(rule, updates)

    return holds


INVARIANCES_LOOSELY = {name: loosely(invariance) for name, invariance in properties.INVARIANCES.items()}


# Flag aggregator


def test_flag_values():
    rule = FlagAggregator(r=1, iters=1, start="axes")
    close(rule(matrix(X7)), [1.83525, -0.549858, 2.530901])
    assert rule.last_info["objective"] == pytest.approx([5.84601, 2.50026], abs=1e-5)
    close(FlagAggregator(r=1, iters=5, start="axes")(matrix(X5)), [2.755854, 2.755854])


@often
@given(
    n=st.integers(1, 7),
    d=st.integers(1, 7),
    r=st.integers(1, 4),
    lam=st.sampled_from([0.0, 0.5, 20.0]),
    start=st.sampled_from(["svd", "axes", "random"]),
    seed=st.integers(0, 10_000),
)
def test_flag(n, d, r, lam, start, seed):
    rows = normal_rows(n, d, seed)
    r = min(r, n, d)
    first = {
        "svd": lambda: "svd",
        "axes": lambda: np.eye(d, r),
        "random": lambda: np.linalg.qr(torch.rand(d, r, generator=seeded(seed), dtype=torch.float64).numpy() - 0.5)[0],
    }[start]()
    objectives, wanted = subspace.flag(rows, r, lam, 4, first)
    rule = FlagAggregator(r=r, lam=lam, iters=4, start=start, generator=seeded(seed))
    result = rule(double(rows))
    if r == min(n, d) and start == "svd":  # everything lies inside, and only rounding is left to compare
        same(result, (double(rows) / double(rows).norm(dim=1, keepdim=True)).sum(dim=0).div(r).tolist(), 1e-6)
    else:
        same(result, wanted.tolist(), 1e-6)
        found = rule.last_info["objective"]  # whether a pass that changes nothing counts as better is left to rounding
        assert min(found) == pytest.approx(min(objectives), abs=1e-6)
        both = min(len(found), len(objectives))
        assert found[:both] == pytest.approx(objectives[:both], abs=1e-6)


def test_flag_takes_half_of_the_dimensions_by_default():
    updates = matrix(normal_rows(6, 9, 0))
    assert torch.equal(FlagAggregator()(updates), FlagAggregator(r=4)(updates))
    assert torch.equal(FlagAggregator()(updates[:5]), FlagAggregator(r=3)(updates[:5]))
    assert torch.equal(FlagAggregator()(updates[:, :2]), FlagAggregator(r=2)(updates[:, :2]))


def test_flag_on_rows_of_fewer_dimensions_than_asked_for():
    row = torch.tensor([3.0, 4.0, 0.0])
    torch.testing.assert_close(FlagAggregator(r=3)(row.repeat(4, 1)), 4 / 3 * row / 5)
    assert FlagAggregator()(torch.zeros(4, 3)).tolist() == [0, 0, 0]


def test_a_rejected_first_pass_leaves_the_given_axes():
    """The rows lie in the axes: nothing can be better, and the sum of directions is the result."""
    updates = torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    rule = FlagAggregator(r=2, start="axes")
    torch.testing.assert_close(rule(updates), torch.tensor([0.5, 0.5, 0.0]))
    assert rule.last_info["objective"][0] == 0


def test_flag_cannot_see_a_row_that_is_turned_around():
    """A limit that the class states: the subspace stays, only the sum of directions gets shorter."""
    updates = torch.tensor([[1.0, 2.0, 0.5]]).repeat(5, 1)
    turned = torch.cat([updates[:3], -1e6 * updates[3:]])
    torch.testing.assert_close(FlagAggregator(r=1)(turned), FlagAggregator(r=1)(updates) / 5)


@quickly
@given(updates=matrices())
def test_flag_properties(updates):
    rule = FlagAggregator(r=2, lam=0.3)
    assert rule.invariances == {"permutation", "orthogonal"}
    for invariance in rule.invariances:
        INVARIANCES_LOOSELY[invariance](rule, updates)
    torch.testing.assert_close(rule(1e-3 * updates), rule(updates), rtol=1e-6, atol=1e-6)
    assert rule(updates).norm() <= len(updates) / 2 * (1 + 1e-9)
    holds_anyhow(rule, updates, 1e-3)
    properties.repr_pastes_back(rule)


# UPGrad

CONFLICT = [[-4, 1, 1], [6, 1, 1]]


def test_upgrad_values():
    rule = UPGrad()
    close(rule(matrix(CONFLICT)), [0.292902, 1.900352, 1.900352])
    close(rule.last_info["client_weights"], [1.110921, 0.789431])
    close(rule(matrix(X5)), [3.798217, -0.003533])
    close(rule.last_info["client_weights"], [0.598228, 0.2, 0.2, 0.2, 0.209999])
    assert subspace.upgrad_weights(CONFLICT).tolist() == pytest.approx([1.110921, 0.789431], abs=1e-6)


@often
@given(n=st.integers(1, 5), d=st.integers(1, 6), seed=st.integers(0, 10_000), reg=st.sampled_from([1e-4, 1e-2, 1.0]))
def test_upgrad(n, d, seed, reg):
    rows = normal_rows(n, d, seed)
    pref = [abs(x) for x in normal_rows(1, n, seed + 1)[0]]
    same(UPGrad(reg_eps=reg).client_weights(double(rows)), subspace.upgrad_weights(rows, reg_eps=reg).tolist(), 1e-7)
    got = UPGrad(pref=pref, reg_eps=reg).client_weights(double(rows))
    same(got, subspace.upgrad_weights(rows, pref, reg_eps=reg).tolist(), 1e-7)
    same(UPGrad(norm_eps=1e9).client_weights(double(rows)), [1 / n] * n)


def test_upgrad_is_exact_in_every_order_of_its_rows():
    rows = double([[1, 0], [0, 1], [-1, -1], [0, 0], [1, 1]])
    wanted = subspace.upgrad_weights(rows.tolist())
    for order in map(list, itertools.permutations(range(5))):
        same(UPGrad().client_weights(rows[order]), wanted[order].tolist(), 1e-12)


@quickly
@given(updates=matrices())
def test_upgrad_conflicts_with_nobody(updates):
    result = UPGrad(reg_eps=1e-9)(updates)
    assert (updates @ result >= -1e-6 * updates.square().sum()).all()


def test_upgrad_is_not_robust():
    """A limit that the class states: two of seven turn the first coordinate around."""
    assert UPGrad()(matrix(X7[:5]))[0] > 0.9
    assert UPGrad()(matrix(X7))[0] < 0


def test_upgrad_without_regularisation_and_without_updates():
    assert UPGrad(reg_eps=0.0)(torch.eye(3)).tolist() == pytest.approx([1 / 3] * 3)
    assert UPGrad(reg_eps=0.0)(torch.ones(3, 2)).tolist() == pytest.approx([1, 1])
    assert UPGrad()(torch.zeros(3, 2)).tolist() == [0, 0]


@quickly
@given(updates=matrices())
def test_upgrad_properties(updates):
    rule = UPGrad()
    assert rule.invariances == {"permutation", "scale", "orthogonal"}
    for invariance in rule.invariances:
        INVARIANCES_LOOSELY[invariance](rule, updates)
    properties.client_weights_agree(rule, updates)
    holds_anyhow(rule, updates, 1e-3)
    properties.repr_pastes_back(rule)


# Settings


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FlagAggregator(r=4)(torch.ones(3, 9)), "1 <= r <= n (Almasi et al. 2024); got n=3, r=4"),
        (lambda: FlagAggregator(r=0)(torch.ones(3, 9)), "got n=3, r=0"),
        (lambda: FlagAggregator(r=3)(torch.ones(3, 2)), "r <= d (Almasi et al. 2024); got d=2, r=3"),
        (lambda: FlagAggregator()(torch.ones(0, 9)), "got n=0"),
        (lambda: FlagAggregator(start="zero"), "start in ['svd', 'axes', 'random']; got 'zero'"),
        (lambda: FlagAggregator(lam=-1.0), "lam >= 0 and iters >= 0; got lam=-1.0, iters=5"),
        (lambda: UPGrad()(torch.ones(0, 9)), "n >= 1 rows and a preference for each; got n=0, pref=None"),
        (lambda: UPGrad(pref=[1, 2])(torch.ones(3, 9)), "a preference for each; got n=3, pref=(1.0, 2.0)"),
        (lambda: UPGrad(pref=[1, -2]), "finite preferences >= 0; got pref=(1.0, -2.0)"),
        (lambda: UPGrad(reg_eps=-1.0), "reg_eps >= 0; got norm_eps=0.0, reg_eps=-1.0"),
    ],
)
def test_bounds(make, message):
    with pytest.raises(ValueError) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize("rule", [FlagAggregator(), UPGrad()], ids=str)
def test_rows_that_are_no_updates_are_refused_by_number(rule):
    refuses_what_is_no_update(rule)


def test_tags():
    assert str(FlagAggregator(r=3)) == "FlagAggregator-r=3"
    assert str(UPGrad(norm_eps=1e-4)) == "UPGrad-norm_eps=0.0001"
