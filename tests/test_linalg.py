"""Sums and distances of rows, against sums over single numbers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedagg import linalg
from fedagg.linalg import squared_distances, weighted_sum

often = settings(max_examples=100, deadline=None, derandomize=True)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def direct_sum(updates, weights):
    columns = zip(*updates.double().tolist(), strict=True)
    return torch.tensor(
        [math.fsum(w * x for w, x in zip(weights, column, strict=True)) for column in columns], dtype=torch.float64
    )


def direct_distances(updates):
    rows = updates.double().tolist()
    return torch.tensor(
        [[math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True)) for b in rows] for a in rows], dtype=torch.float64
    )


@pytest.fixture(params=[1, 4, 7, 64])
def columns(request, monkeypatch):
    """Column blocks that divide d, that do not, and that are wider than d."""
    monkeypatch.setattr(linalg, "COLUMNS", request.param)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weighted_sum(columns, dtype):
    updates, weights = normal(5, 14, dtype=dtype), [0.5, -1.0, 0.0, 2.0, 0.25]
    got = weighted_sum(updates, torch.tensor(weights))
    assert got.dtype == dtype
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(got.double(), direct_sum(updates, weights), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(weighted_sum(updates).double(), direct_sum(updates, [0.2] * 5), rtol=tolerance, atol=tolerance)


def test_the_error_of_a_sum_does_not_grow_with_the_rows():
    """The bound for 32 terms in float32 and the rest in float64; adding one by one in float32 breaks it by a factor of 80."""
    n = 40_000
    updates, bound = torch.full((n, 1), 0.1), 33 * 2**-24
    exact = n * float(updates[0])
    one_by_one = torch.zeros(1)
    for row in updates:
        one_by_one += row
    assert abs(weighted_sum(updates, torch.ones(n)).item() / exact - 1) < bound
    assert abs(one_by_one.item() / exact - 1) > 20 * bound


def test_weighted_sum_of_one_row_is_that_row():
    updates = normal(4, 9, dtype=torch.float32)
    assert torch.equal(weighted_sum(updates, torch.tensor([0.0, 0.0, 1.0, 0.0])), updates[2])


def test_weighted_sum_refuses():
    with pytest.raises(ValueError, match="n >= 1 rows; got n=0"):
        weighted_sum(torch.zeros(0, 3))
    with pytest.raises(ValueError, match=r"shape \[n=2\]; got \[3\]"):
        weighted_sum(torch.zeros(2, 3), torch.ones(3))


def check_distances(updates):
    got = squared_distances(updates)
    assert got.dtype == torch.float64
    assert torch.equal(got, got.T)
    assert (got >= 0).all()
    assert not got.diagonal().any()
    wanted = direct_distances(updates)
    torch.testing.assert_close(got, wanted, rtol=1e-7, atol=0)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-13 * float(wanted.max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances(columns, dtype):
    check_distances(normal(6, 14, dtype=dtype))


@often
@given(n=st.integers(1, 9), d=st.integers(1, 6), seed=st.integers(0, 10_000), shift=st.sampled_from([0.0, 1.0, 1e3, 1e6]))
def test_distances_of_random_rows(n, d, seed, shift):
    check_distances(normal(n, d, seed=seed) + shift)


@often
@given(
    st.integers(1, 4).flatmap(lambda d: st.lists(st.lists(st.integers(-3, 3), min_size=d, max_size=d), min_size=1, max_size=8))
)
def test_distances_of_integers_are_exact(rows):
    updates = torch.tensor(rows, dtype=torch.float64)
    assert torch.equal(squared_distances(updates), direct_distances(updates))


@pytest.mark.parametrize("far", [1e6, 1e12, 1e30])
def test_distances_of_close_rows_far_from_the_rest(far):
    updates = normal(6, 10)
    updates[4:] = far
    updates[5, 3] *= 1 + 1e-9
    updates[5, 7] *= 1 - 1e-12
    check_distances(updates)


def test_distances_of_equal_rows_are_zero():
    row = normal(1, 50, dtype=torch.float32)
    assert not squared_distances(row.repeat(7, 1)).any()
    assert not squared_distances(torch.cat([torch.zeros(1, 50), 1e3 * row.repeat(3, 1)]))[1:, 1:].any()


def test_distances_do_not_change_the_rows():
    updates = normal(5, 8)
    before = updates.clone()
    squared_distances(updates).fill_(3.0)
    weighted_sum(updates).fill_(3.0)
    assert torch.equal(updates, before)


@pytest.mark.parametrize("n", [0, 1])
def test_distances_of_hardly_any_rows(n):
    assert squared_distances(torch.ones(n, 3)).tolist() == [[0.0]] * n
