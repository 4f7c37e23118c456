"""Rules that look at some coordinates at a time: values, references, draws, limits."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import GAS, CenteredClip, DnC, FLTrust, Krum, Mean, Median, MultiKrum, TrimmedMean
from strategies.rules import gas as gas_module

from . import properties, reference
from . import reference_reputation as slow
from . import reference_subspace as subspace
from .checks import double, holds_anyhow, refuses_what_is_no_update, same, seeded
from .test_against_reference import normal_rows
from .test_golden import X5, X7, close, matrix
from .test_properties import matrices

often = settings(max_examples=60, deadline=None, derandomize=True)
quickly = settings(max_examples=15, deadline=None, derandomize=True)


def permutation(d, seed):
    return torch.randperm(d, generator=seeded(seed)).tolist()


# DnC


def test_dnc_scores():
    rule = DnC(f=1)
    close(rule(matrix(X5)), [1.625, 1.625])
    torch.testing.assert_close(rule.last_info["scores"], matrix([12.498, 4.576, 8.050, 8.704, 131.38]), rtol=0, atol=1e-3)
    assert rule.last_info["selected"].tolist() == [0, 1, 2, 3]


@often
@given(
    f=st.integers(0, 3),
    spare=st.integers(0, 4),
    d=st.integers(2, 12),
    b=st.integers(1, 14),
    c=st.sampled_from([0.5, 1.0, 1.5]),
    draws=st.integers(1, 4),
    seed=st.integers(0, 10_000),
)
def test_dnc(f, spare, d, b, c, draws, seed):
    rows = normal_rows(2 * f + 1 + spare, d, seed)
    rule = DnC(f=f, c=c, T=draws, b=b, generator=seeded(seed))
    source = seeded(seed)
    columns = [torch.randperm(d, generator=source)[:b].tolist() for _ in range(draws)] if b < d else [list(range(d))]
    rejections, wanted = slow.dnc(rows, f, c, columns)
    same(rule(double(rows)), wanted)
    assert rule.last_info["rejections"].tolist() == rejections
    assert ("fallback" in rule.last_info) == all(rejections)


def test_where_every_row_was_left_out_once_the_least_often_are_kept():
    """One coordinate per draw, and in each of the three another row stands out."""
    updates = 9 * torch.eye(3, dtype=torch.float64)
    for seed in range(50):
        rule = DnC(f=1, T=4, b=1, generator=seeded(seed))
        result = rule(updates)
        rejections = rule.last_info["rejections"].tolist()
        if all(rejections):
            assert sorted(rejections) == [1, 1, 2]
            assert "left out" in rule.last_info["fallback"]
            assert rule.last_info["client_weights"][rejections.index(2)] == 0
            assert sorted(result.tolist()) == [0, 4.5, 4.5]
            assert rule.last_info["client_weights"].sum() == 1
            rule.client_weights(torch.cat([updates, torch.zeros(4, 3, dtype=torch.float64)]))
            assert "fallback" not in rule.last_info
            break
    else:
        pytest.fail("no seed of fifty drew all three coordinates")


def test_dnc_leaves_out_a_whole_number_of_rows():
    updates = torch.randn(220, 3, generator=seeded(0))
    weights = DnC(f=100, c=0.29).client_weights(updates)  # in floating point 0.29 * 100 is less than 29
    assert int((weights > 0).sum()) == 191


def test_dnc_where_only_some_coordinates_are_drawn_differs_between_draws_and_not_between_calls():
    updates = torch.randn(9, 40, generator=seeded(3))
    first = DnC(f=2, b=2, T=1).client_weights(updates)
    assert torch.equal(DnC(f=2, b=2, T=1).client_weights(updates), first)
    others = [DnC(f=2, b=2, T=1, generator=seeded(seed)).client_weights(updates) for seed in range(1, 6)]
    assert any(not torch.equal(other, first) for other in others)


# GAS


def test_gas_scores():
    rule = GAS(f=2, rule=Median())
    close(rule(matrix(X7)), [1, 0.05, 2])
    close(rule.last_info["scores"], [0.3, 0.4, 0.6, 0.4, 0.35, 14.7, 15.2])


INNER = {
    "median": (lambda f: Median(), lambda f: reference.median, lambda f: 2 * f + 1),
    "trimmed mean": (lambda f: TrimmedMean(f=f), lambda f: lambda rows: reference.trimmed_mean(rows, f), lambda f: 2 * f + 1),
    "multi-Krum": (lambda f: MultiKrum(f=f), lambda f: lambda rows: reference.multi_krum(rows, f), lambda f: 2 * f + 3),
}


@pytest.mark.parametrize("inner", INNER)
@often
@given(f=st.integers(0, 3), spare=st.integers(0, 3), d=st.integers(2, 20), p=st.integers(1, 22), seed=st.integers(0, 10_000))
def test_gas(inner, f, spare, d, p, seed):
    make, slowly, least_n = INNER[inner]
    rows = normal_rows(least_n(f) + spare, d, seed)
    size = -(-d // p)
    order = permutation(d, seed)
    groups = [order[start : start + size] for start in range(0, d, size)]
    if inner == "multi-Krum" and len(rows) == 2 * f + 3:
        groups = [order]  # few coordinates and one neighbour: the nearest pair ties
        p = 1
    scores, wanted = subspace.gas(rows, f, slowly(f), groups)
    rule = GAS(f=f, rule=make(f), p=p, generator=seeded(seed))
    if inner == "multi-Krum" and len(rows) == 3:
        return
    same(rule(double(rows)), wanted)
    same(rule.last_info["scores"], scores)


@pytest.mark.parametrize("rule", [Median(), MultiKrum(f=1)], ids=str)
def test_gas_goes_through_many_columns_in_blocks_of_whole_groups(rule, monkeypatch):
    updates = torch.randn(6, 1003, generator=seeded(0), dtype=torch.float64)
    whole = GAS(f=1, rule=rule, p=60)
    wanted = whole(updates), whole.last_info["scores"]
    monkeypatch.setattr(gas_module, "COLUMNS", 50)
    blocks = GAS(f=1, rule=rule, p=60)
    torch.testing.assert_close((blocks(updates), blocks.last_info["scores"]), wanted)


def test_gas_splits_afresh_with_every_generator():
    updates = torch.randn(9, 40, generator=seeded(0))
    scores = []
    for seed in (0, 0, 1):
        rule = GAS(f=2, rule=MultiKrum(f=2), p=8, generator=seeded(seed))
        rule.client_weights(updates)
        scores.append(rule.last_info["scores"])
    assert torch.equal(scores[0], scores[1])
    assert not torch.allclose(scores[0], scores[2])


def test_a_random_inner_rule_draws_from_the_generator_of_gas():
    source, seen = seeded(3), []

    @dataclass(frozen=True)
    class Watched(Median):
        random = True
        coordinatewise = False
        generator: torch.Generator | None = None

        def __call__(self, updates, weights=None):
            seen.append(self.generator)
            return super().__call__(updates)

    updates = torch.randn(9, 40, generator=seeded(0))
    inner, own = Watched(), Watched(generator=seeded(5))
    GAS(f=2, rule=inner, p=4, generator=source).client_weights(updates)
    assert seen == [source] * 4
    assert inner.generator is None
    GAS(f=2, rule=own, p=4, generator=source).client_weights(updates)
    assert seen[4:] == [own.generator] * 4
    scores = []
    for _ in range(2):
        rule = GAS(f=2, rule=DnC(f=2, T=1, b=3), p=2)
        rule.client_weights(updates)
        scores.append(rule.last_info["scores"])
    assert torch.equal(*scores)


@quickly
@given(updates=matrices())
def test_gas_has_the_invariances_of_its_rule(updates):
    for rule, holds in (
        (GAS(f=2, rule=Median()), ("permutation", "translation", "scale")),
        (GAS(f=2, rule=MultiKrum(f=2), p=1), ("permutation", "translation", "scale", "orthogonal")),
    ):
        for invariance in holds:
            properties.INVARIANCES[invariance](rule, updates)
        properties.equal_rows_give_that_row(rule, updates)
        properties.bounded_under_attack(rule, updates[:5], 2)


# What is the same for all


@quickly
@given(updates=matrices())
def test_gas_and_dnc_shared_properties(updates):
    for rule in (GAS(f=2, rule=Median()), GAS(f=2, rule=Krum(f=2), p=2), DnC(f=2, b=1)):
        holds_anyhow(rule, updates)
        properties.client_weights_agree(rule, updates)
        properties.repr_pastes_back(rule)
        properties.permutation_invariant(rule, updates)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DnC(f=2)(torch.ones(4, 3)), "n >= 2f + 1 and floor(c f) < n (Shejwalkar and Houmansadr 2021); got n=4, f=2"),
        (lambda: DnC(f=1, c=3.0)(torch.ones(3, 3)), "floor(c f) < n (Shejwalkar and Houmansadr 2021); got n=3, f=1, c=3.0"),
        (lambda: DnC(f=-1)(torch.ones(3, 3)), "f >= 0"),
        (lambda: DnC(f=0)(torch.ones(0, 3)), "got n=0, f=0"),
        (lambda: DnC(f=1, T=0), "T >= 1 and b >= 1; got c=1.0, T=0, b=10000"),
        (lambda: GAS(f=2, rule=Median())(torch.ones(4, 3)), "n >= 2f + 1 (Liu et al. 2023); got n=4, f=2"),
        (lambda: GAS(f=1, rule=Krum(f=1))(torch.ones(4, 3)), "Krum needs n >= 2f + 3 (Blanchard et al. 2017); got n=4, f=1"),
        (lambda: GAS(f=1, rule=Median(), p=0), "GAS needs p >= 1; got p=0"),
        (lambda: GAS(f=1, rule="Median"), "GAS needs a rule to split for; got rule='Median'"),
        (lambda: GAS(f=1, rule=CenteredClip()), "a rule without state that needs nothing but the rows; got rule=CenteredClip"),
        (lambda: GAS(f=1, rule=FLTrust()), "a rule without state that needs nothing but the rows; got rule=FLTrust"),
    ],
)
def test_bounds(make, message):
    with pytest.raises(ValueError) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize("rule", [DnC(f=2), GAS(f=2, rule=Mean())], ids=str)
def test_rows_that_are_no_updates_are_refused_by_number(rule):
    refuses_what_is_no_update(rule)


def test_tags():
    rules = (DnC(f=2), GAS(f=2, rule=TrimmedMean(f=2)))
    assert [str(rule) for rule in rules] == ["DnC-2", "GAS-2-TrimmedMean-2"]
    assert repr(rules[1]) == "GAS(f=2, rule=TrimmedMean(f=2), p=1000)"
