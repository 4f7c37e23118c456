"""Every rule against a slow one written from the paper's equation: random shapes, ties, f = 0 and the least possible n."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from strategies import Krum, Mean, Median, MultiKrum, TrimmedMean
from strategies.rules import _sorted_columns

from . import reference

often = settings(max_examples=150, deadline=None, derandomize=True)
awkward = st.one_of(st.integers(-2, 2).map(float), st.floats(-100, 100), st.sampled_from([1e-30, 1e30, -1e30, -0.0]))
small_integers = st.integers(-2, 2).map(float)  # their distances are exact in float64, and many are equal


@st.composite
def tables(draw, least_n=1, spare=4, values=awkward):
    """f, and a list of n >= least_n(f) rows; n is the least possible one about as often as any other."""
    f = draw(st.integers(0, 3))
    n = (least_n if isinstance(least_n, int) else least_n(f)) + draw(st.integers(0, spare))
    d = draw(st.integers(1, 4))
    return f, draw(st.lists(st.lists(values, min_size=d, max_size=d), min_size=n, max_size=n))


def normal_rows(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).tolist()


def same(got, wanted, scale=None):
    wanted = torch.tensor(wanted, dtype=torch.float64)
    slack = 1e-12 * (1.0 if scale is None else scale)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=slack)


@often
@given(tables(), st.integers(0, 100))
def test_mean(table, seed):
    _, rows = table
    weights = torch.rand(len(rows), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    largest = max(abs(x) for row in rows for x in row)  # sums of huge values of both signs cancel
    same(Mean()(torch.tensor(rows, dtype=torch.float64)), reference.mean(rows), 1 + largest)
    same(Mean()(torch.tensor(rows, dtype=torch.float64), weights), reference.mean(rows, weights.tolist()), 1 + largest)


@pytest.mark.parametrize("even", ["midpoint", "lower"])
@often
@given(table=tables())
@example(table=(0, [[3.0]]))
def test_median(even, table):
    _, rows = table
    got, wanted = Median(even=even)(torch.tensor(rows, dtype=torch.float64)), reference.median(rows, even)
    if even == "lower" or len(rows) % 2:
        assert got.tolist() == wanted
    else:  # half of the least number above zero is not a number of float64, so the order of adding and halving shows there
        torch.testing.assert_close(got, torch.tensor(wanted, dtype=torch.float64), rtol=1e-15, atol=1e-300)


@often
@given(tables(least_n=lambda f: 2 * f + 1))
def test_trimmed_mean(table):
    f, rows = table
    largest = max(abs(x) for row in rows for x in row)
    same(TrimmedMean(f=f)(torch.tensor(rows, dtype=torch.float64)), reference.trimmed_mean(rows, f), 1 + largest)


@often
@given(tables(least_n=lambda f: 2 * f + 1, values=st.floats(-100, 100, width=32)))
def test_coordinatewise_rules_in_float32(table):
    f, rows = table
    updates = torch.tensor(rows, dtype=torch.float32)
    largest = max(abs(x) for row in rows for x in row)
    for rule, wanted, lost in (
        (TrimmedMean(f=f), reference.trimmed_mean(rows, f), 0.0),
        (Median(), reference.median(rows), 0.0),
        (Mean(), reference.mean(rows), 33 * 2**-24 * largest),  # 32 rows at a time are added in float32
    ):
        torch.testing.assert_close(rule(updates), torch.tensor(wanted, dtype=torch.float32), rtol=2e-7, atol=1e-12 + lost)


@pytest.mark.parametrize("neighbours", ["paper", "byzfl"])
@pytest.mark.parametrize("power", [2, 4])
@often
@given(table=tables(least_n=lambda f: 2 * f + 3, values=small_integers))
@example(table=(0, [[0.0], [5.0], [6.0]]))  # the closest pair has equal scores: the lower index wins
@example(table=(0, [[9.0], [9.0], [9.0]]))
def test_krum_on_ties(neighbours, power, table):
    f, rows = table
    updates = torch.tensor(rows, dtype=torch.float64)
    scores = reference.krum_scores(rows, f, neighbours, power)
    for m in (1, len(rows) - f, len(rows)):
        rule = MultiKrum(f=f, m=m, neighbours=neighbours, power=power)
        rule.client_weights(updates)
        assert rule.last_info["selected"].tolist() == reference.least(scores, m)
        assert rule.last_info["scores"].tolist() == scores
        same(rule(updates), reference.multi_krum(rows, f, m, neighbours, power))
    krum = Krum(f=f, neighbours=neighbours, power=power)
    assert krum(updates).tolist() == reference.krum(rows, f, neighbours, power)


@pytest.mark.parametrize("neighbours", ["paper", "byzfl"])
@pytest.mark.parametrize("power", [1, 2, 4])
@often
@given(f=st.integers(0, 3), spare=st.integers(0, 5), d=st.integers(2, 6), seed=st.integers(0, 10_000))
def test_krum_on_random_rows(neighbours, power, f, spare, d, seed):
    rows = normal_rows(2 * f + 3 + spare, d, seed)
    updates = torch.tensor(rows, dtype=torch.float64)
    krum = Krum(f=f, neighbours=neighbours, power=power)
    multi = MultiKrum(f=f, neighbours=neighbours, power=power)
    wanted = reference.krum_scores(rows, f, neighbours, power)
    if len(rows) == 3 and neighbours == "paper":  # the nearest pair ties, whatever the values: either of the two scores least
        best = sorted(range(3), key=lambda i: wanted[i])[:2]
        assert int(krum.client_weights(updates).argmax()) == min(best)
    else:
        same(krum(updates), reference.krum(rows, f, neighbours, power))
    torch.testing.assert_close(krum.last_info["scores"], torch.tensor(wanted, dtype=torch.float64), rtol=1e-9, atol=1e-12)
    same(multi(updates), reference.multi_krum(rows, f, None, neighbours, power))


def test_many_columns_are_sorted_block_by_block():
    d = 2 * _sorted_columns.CPU_COLUMNS + 5
    rows = normal_rows(6, d, seed=3)
    updates = torch.tensor(rows, dtype=torch.float64)
    assert Median()(updates).tolist() == reference.median(rows)
    same(TrimmedMean(f=2)(updates), reference.trimmed_mean(rows, 2))


def test_no_column_at_all():
    for rule in (Mean(), Median(), TrimmedMean(f=1), Krum(f=1), MultiKrum(f=1)):
        assert rule(torch.zeros(5, 0)).shape == (0,)
