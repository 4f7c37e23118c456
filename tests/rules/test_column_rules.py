"""MeaMed and Phocas: golden values, a slow reference, ties, blocks and bounds."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from strategies import Bucketing, MeaMed, Mean, Phocas, TrimmedMean
from strategies.rules import _sorted_columns
from strategies.rules._sorted_columns import mean_of_nearest, sorted_columns

from . import reference, reference_distance
from .test_against_reference import normal_rows, same, tables
from .test_golden import X5, X7, close, matrix

often = settings(max_examples=60, deadline=None, derandomize=True)
eighths = st.integers(-24, 24).map(lambda k: k / 8)  # sums and halves of few of them are exact, so ties are ties


@pytest.mark.parametrize(
    ("rule", "rows", "value"),
    [
        (Phocas(f=1), X5, [1.625, 1.625]),
        (MeaMed(f=1), X5, [1.625, 1.625]),
        (Phocas(f=2), X7, [1, 0.05, 2]),
        (MeaMed(f=2), X7, [1, 0.05, 2]),
        (MeaMed(f=1), [[0], [1], [3]], [0.5]),  # the median is 1: 0 is nearer than 3
        (MeaMed(f=1), [[-1], [0], [1]], [-0.5]),  # equally near: the smaller value counts
        (Phocas(f=1), [[0], [4], [5], [12]], [3]),  # around 4.5 lie 4, 5 and 0
        (MeaMed(f=2), [[0], [10], [11], [12], [13]], [11]),  # f values are left out in all, here one per side
        (MeaMed(f=2), [[0], [1], [11], [12], [13]], [12]),  # and here two on the same side
    ],
    ids=str,
)
def test_value(rule, rows, value):
    close(rule(matrix(rows)), value)


@pytest.mark.parametrize("rule", [MeaMed, Phocas], ids=lambda rule: rule.__name__)
@often
@given(table=tables(least_n=lambda f: 2 * f + 1, values=eighths))
@example(table=(1, [[1.0], [2.0], [3.0]]))
@example(table=(3, [[5.0]] * 7))
def test_ties(rule, table):
    f, rows = table
    wanted = {MeaMed: reference_distance.mea_med, Phocas: reference_distance.phocas}[rule](rows, f)
    same(rule(f=f)(torch.tensor(rows, dtype=torch.float64)), wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", [MeaMed, Phocas], ids=lambda rule: rule.__name__)
@often
@given(f=st.integers(0, 4), spare=st.integers(0, 6), d=st.integers(1, 5), seed=st.integers(0, 10_000), far=st.booleans())
def test_random_rows(rule, dtype, f, spare, d, seed, far):
    updates = torch.tensor(normal_rows(2 * f + 1 + spare, d, seed)).to(dtype)
    if far and f:
        updates[:f] = 1e30  # such values cost the others no digits
    wanted = {MeaMed: reference_distance.mea_med, Phocas: reference_distance.phocas}[rule](updates.tolist(), f)
    relative = 3e-7 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(rule(f=f)(updates), torch.tensor(wanted, dtype=dtype), rtol=relative, atol=relative)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_a_window_of_any_size_around_any_centre(n):
    values = torch.randn(40, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64).sort(dim=1).values
    for m in range(1, n + 1):
        for at in (-9.0, -0.5, 0.0, 0.7, 9.0):
            wanted = [reference_distance.around([[x] for x in row], n - m, [at])[0] for row in values.tolist()]
            same(mean_of_nearest(values, m, torch.full((40,), at, dtype=torch.float64)), wanted)


def test_only_some_rows_are_sorted():
    updates = torch.tensor([[3.0, 9.0], [1.0, 7.0], [2.0, 8.0]])
    ((block, values),) = sorted_columns(None, updates, torch.tensor([2, 0]))
    assert values.tolist() == [[2.0, 3.0], [8.0, 9.0]]
    assert (block.start, updates.tolist()) == (0, [[3.0, 9.0], [1.0, 7.0], [2.0, 8.0]])


@pytest.mark.parametrize("rule", [MeaMed, Phocas], ids=lambda rule: rule.__name__)
def test_many_columns(rule):
    rows = normal_rows(6, 2 * _sorted_columns.CPU_COLUMNS + 5, seed=3)
    wanted = {MeaMed: reference_distance.mea_med, Phocas: reference_distance.phocas}[rule](rows, 2)
    same(rule(f=2)(torch.tensor(rows, dtype=torch.float64)), wanted)


def test_without_attackers_they_are_the_mean():
    rows = normal_rows(6, 4, seed=1)
    for rule in (MeaMed(f=0), Phocas(f=0), TrimmedMean(f=0)):
        same(rule(torch.tensor(rows, dtype=torch.float64)), reference.mean(rows))


@pytest.mark.parametrize("rule", [MeaMed, Phocas], ids=lambda rule: rule.__name__)
def test_bounds(rule):
    for n, f in ((4, 2), (0, 0)):
        with pytest.raises(ValueError, match=rf"{rule.__name__} needs .*n >= 2f \+ 1 \(Xie et al. 2018\); got n={n}, f={f}"):
            rule(f=f)(torch.zeros(n, 3))
    with pytest.raises(ValueError, match=r"f >= 0 .*got n=4, f=-1"):
        rule(f=-1)(torch.zeros(4, 3))
    assert rule(f=2)(torch.ones(5, 3)).tolist() == [1.0, 1.0, 1.0]
    assert rule(f=1)(torch.zeros(5, 0)).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_mean_of_large_rows_does_not_overflow(dtype):
    """Three rows of 0.9 of the largest number: their sum is 2.7 of it, their mean is one of them."""
    large = 0.9 * torch.finfo(dtype).max
    rows = torch.tensor([[large, -large, 1.0]] * 3, dtype=dtype)
    for result in (Mean()(rows), Mean()(rows, torch.full((3,), 1 / 3)), Bucketing(s=3)(rows)[0]):
        torch.testing.assert_close(result, rows[0], rtol=1e-6 if dtype != torch.float16 else 2e-3, atol=1e-6 * large)
