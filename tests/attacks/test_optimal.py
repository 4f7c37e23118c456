"""Optimal ALIE and IPM: at least as strong as anything on the grid, whatever the rule."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedagg.attacks import ALIE, IPM, OptimalALIE, OptimalIPM
from fedagg.attacks._strongest import strongest
from strategies import Krum, Mean, Median, TrimmedMean

from . import reference, reference_search
from .inputs import X5H, X7H, close, matrix, normal, scattered_rows

GRID = [0.0, *(0.05 * 2.0**k for k in range(11))]
RULES = [Mean(), Median(), TrimmedMean(2), Krum(2)]


def with_fixed(kind, t):
    return ALIE(z=t) if kind is OptimalALIE else IPM(epsilon=t)


def strength(rule, honest, rows):
    return float((rule(torch.cat([honest, rows])) - honest.mean(dim=0)).norm())


@pytest.mark.parametrize(
    ("attack", "value"),
    [
        (OptimalALIE(TrimmedMean(2), search="byzfl"), [2.581139, 1.852776, 3.581139]),
        (OptimalIPM(TrimmedMean(2), search="byzfl"), [-10, -0.5, -20]),
    ],
    ids=str,
)
def test_golden_value(attack, value):
    close(attack(matrix(X7H), f=2), [value, value], 1e-6)


def test_a_flat_strength_needs_no_attack():
    """On X5h no row outside moves a trimmed mean further than any other, and 0 is outside."""
    attack = OptimalIPM(TrimmedMean(1))
    assert attack(matrix(X5H), f=1).tolist() == [[0.0, 0.0]]
    assert attack.last_info["t"] == 0.0


def test_against_the_mean_more_is_always_worse():
    honest = matrix(X5H)
    for attack in (OptimalALIE(), OptimalIPM()):
        rows = attack(honest, f=1)
        assert attack.last_info["t"] == 51.2
        assert attack.last_info["strength"] == pytest.approx(strength(Mean(), honest, rows))


@pytest.mark.parametrize("kind", [OptimalALIE, OptimalIPM])
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_as_strong_as_every_grid_setting(kind, rule, seed):
    honest = normal(7, 12, seed=seed) * 0.3 + 0.2
    attack = kind(rule)
    rows = attack(honest, f=2)
    reached = strength(rule, honest, rows)
    assert attack.last_info["strength"] == pytest.approx(reached, rel=1e-12)
    for t in GRID:
        assert reached >= strength(rule, honest, with_fixed(kind, t)(honest, f=2)) * (1 - 1e-12)
    close(rows, with_fixed(kind, attack.last_info["t"])(honest, f=2).tolist())


@pytest.mark.parametrize("kind", [OptimalALIE, OptimalIPM])
def test_the_grid_finds_small_shifts_that_the_other_search_jumps_over(kind):
    """Krum excludes what is far away; only small t is picked. byzfl's search tries 10 first."""
    weaker = 0
    for seed in range(8):
        honest = normal(7, 12, seed=seed) * 0.3 + 0.1
        ours, theirs = kind(Krum(2)), kind(Krum(2), search="byzfl")
        ours(honest, f=2)
        theirs(honest, f=2)
        assert ours.last_info["strength"] >= theirs.last_info["strength"] * (1 - 1e-12)
        weaker += theirs.last_info["strength"] < ours.last_info["strength"] * (1 - 1e-6)
    assert weaker > 0


@settings(max_examples=50, deadline=None, derandomize=True)
@given(scattered_rows(least_h=3), st.sampled_from([Median(), TrimmedMean(1), Mean()]), st.sampled_from([1, -1]))
def test_byzfl_search_against_the_reference(rows, rule, sign):
    mu, sigma = reference.mean(rows), reference.std(rows, 1)

    def moved(start, direction):
        def by(t):
            row = [a + t * b for a, b in zip(start, direction, strict=True)]
            return math.dist(rule(matrix([*rows, row])).tolist(), mu)

        return by

    alie, ipm = OptimalALIE(rule, search="byzfl", sign=sign), OptimalIPM(rule, search="byzfl")
    for attack, by in [
        (alie, moved(mu, [sign * s for s in sigma])),
        (ipm, moved([0.0] * len(mu), [-m for m in mu])),
    ]:
        attack(matrix(rows), f=1)
        wanted = by(reference_search.byzfl_search(by))
        assert by(attack.last_info["t"]) == pytest.approx(wanted, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("peak", [0.0, 7.0, 11.0, 24.5, 33.0, 68.0, 1000.0])
def test_byzfl_search_for_a_peak(peak):
    """Rules hardly care where exactly; a peak does: every step of the climb shows."""
    for height in (lambda t: -abs(t - peak), lambda t: math.sin(t) - abs(t - peak) / 50):
        t, most = strongest(height, "byzfl")
        assert t == pytest.approx(reference_search.byzfl_search(height), rel=1e-12)
        assert most == height(t)


def counted(function):
    tried = []

    def by(t):
        tried.append(t)
        return function(t)

    return by, tried


@pytest.mark.parametrize("peak", [0.0, 0.003, 0.07, 1.7, 3.2, 30.0, 51.2])
def test_a_single_peak_is_found(peak):
    """12 steps of golden section leave 0.618^11 of an interval at most 1.5 peaks (or 0.1) wide."""
    by, tried = counted(lambda t: -abs(t - peak))
    t, most = strongest(by, "grid")
    assert len(tried) == 24
    assert set(GRID) <= set(tried)
    assert min(tried) >= 0
    assert max(tried) <= 51.2
    assert (t, most) == (max(tried, key=lambda x: -abs(x - peak)), max(-abs(x - peak) for x in tried))
    assert abs(t - peak) <= 0.618**10 * max(1.5 * peak, 0.1)


@pytest.mark.parametrize("function", [lambda t: 1.0, lambda t: float(t > 0.3), lambda t: math.sin(50 * t)])
def test_the_smallest_of_the_best_that_were_tried(function):
    for search, calls in (("grid", 24), ("byzfl", 20)):
        by, tried = counted(function)
        t, most = strongest(by, search)
        assert len(tried) == calls
        if search == "grid":
            assert most == max(map(function, tried))
            assert t == min(x for x in tried if function(x) == most)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_what_the_dtype_cannot_hold_is_not_sent(dtype):
    """At t = 51.2 the entries would overflow float16, and the rule would be told of infinity."""
    honest = (normal(6, 4) * 1500 + 4000).to(dtype)

    def rule(rows):
        assert rows.isfinite().all()
        return rows.float().mean(dim=0)

    for attack in (OptimalALIE(rule), OptimalIPM(rule)):
        assert attack(honest, f=2).isfinite().all()
        assert (attack.last_info["t"] == 51.2) is (dtype == torch.float32)


def test_the_rule_is_given_honest_rows_first_and_may_be_lent():
    honest, seen = normal(4, 3), []

    def rule(rows):
        seen.append(rows.clone())
        return rows[0]

    attack = OptimalIPM()
    object.__setattr__(attack, "aggregator", rule)
    attack(honest, f=2)
    assert all(torch.equal(rows[:4], honest) and rows.shape == (6, 3) for rows in seen)
    assert torch.equal(seen[1][4], seen[1][5])
    torch.testing.assert_close(seen[1][4], -0.05 * honest.mean(dim=0))


def test_a_rule_that_refuses_is_heard():
    with pytest.raises(ValueError, match=r"Krum needs n >= 2f \+ 3"):
        OptimalALIE(Krum(2))(normal(4, 3), f=2)


def test_one_honest_client():
    with pytest.raises(ValueError, match=r"OptimalALIE needs h - ddof >= 1 honest updates .*; got h=1, ddof=1"):
        OptimalALIE()(matrix([[1.0]]), f=1)
    close(OptimalALIE(ddof=0)(matrix([[1.0]]), f=1), [[1.0]])
