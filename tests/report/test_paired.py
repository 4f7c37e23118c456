"""The paired test and its correction, against scipy's and against values worked out by hand."""

import math

import numpy as np
import pytest
from scipy.stats import false_discovery_control, ttest_rel

from fedagg.report.paired import compare, holm, paired_t


@pytest.mark.parametrize("n", [2, 3, 15, 200])
@pytest.mark.parametrize("shift", [0.0, 0.02, 0.5])
def test_p_is_that_of_scipy(n, shift):
    draw = np.random.default_rng(n)
    ours, best = draw.normal(0.6, 0.1, n), draw.normal(0.6 + shift, 0.1, n)
    assert paired_t(ours - best) == pytest.approx(ttest_rel(ours, best).pvalue, rel=1e-9)


def test_p_by_hand():
    # Differences 1, 2, 3: mean 2, s = 1, t = 2 sqrt 3. With two degrees of freedom the tail has a closed form:
    # P(|T| > t) = 1 - t / sqrt(2 + t^2) = 1 - 2 sqrt 3 / sqrt 14.
    assert paired_t(np.array([1.0, 2.0, 3.0])) == pytest.approx(1 - 2 * math.sqrt(3 / 14), rel=1e-12)
    # With one degree of freedom (Cauchy): differences 1, 3: t = 2 / (sqrt 2 / sqrt 2) = 2, P = 1 - 2 atan(2) / pi.
    assert paired_t(np.array([1.0, 3.0])) == pytest.approx(1 - 2 * math.atan(2) / math.pi, rel=1e-12)


@pytest.mark.parametrize(
    ("differences", "p"),
    [([0.0, 0.0, 0.0], 1.0), ([0.25, 0.25], 0.0), ([-0.25, -0.25], 0.0), ([0.1, -0.1], 1.0)],
)
def test_differences_that_leave_nothing_to_chance(differences, p):
    assert paired_t(np.array(differences)) == p


@pytest.mark.parametrize("differences", [[], [0.3], [0.1, math.nan], [0.1, math.inf, 0.2]])
def test_where_no_test_is_possible(differences):
    assert math.isnan(paired_t(np.array(differences)))


def test_holm_by_hand():
    # In order 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 gives 0.04, 0.06, 0.06, 0.04; none falls below the one before it.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_a_test_that_was_not_made_is_not_counted():
    first, second, third = holm([0.02, math.nan, 0.03])
    assert (first, third) == pytest.approx((0.04, 0.04))  # two tests: 2 * 0.02, then max(0.04, 0.03)
    assert math.isnan(second)


def test_holm_lies_between_no_correction_and_bonferroni():
    p = np.random.default_rng(0).random(12) ** 3
    found = np.array(holm(p.tolist()))
    assert (found >= p).all()
    assert (found >= false_discovery_control(p)).all()  # which controls less
    assert (found <= np.minimum(1, 12 * p)).all()


def test_only_cells_that_both_have_are_pairs():
    best = {("alie", 0): 0.9, ("alie", 1): 0.8, ("ipm", 0): 0.7}
    other = {("alie", 0): 0.8, ("ipm", 0): 0.5, ("ipm", 7): 0.1}
    (found,) = compare(best, [other])
    assert (found.n, found.difference) == (2, pytest.approx(-0.15))
    assert found.p == pytest.approx(ttest_rel([0.8, 0.5], [0.9, 0.7]).pvalue)
    (nothing,) = compare(best, [{("mimic", 0): 0.5}])
    assert nothing.n == 0
    assert math.isnan(nothing.difference)
    assert not nothing.tied
