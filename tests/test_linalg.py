"""Sums and distances of rows, against sums over single numbers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedagg import linalg
from fedagg.linalg import gram, row_norms, squared_distances, weighted_sum, weighted_sums

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
    monkeypatch.setattr(linalg, "BLOCK", request.param)


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
    with pytest.raises(ValueError, match=r"shape \[2\], one for each row; got \[3\]"):
        weighted_sum(torch.zeros(2, 3), torch.ones(3))


def check_distances(updates):
    got = squared_distances(updates)
    assert got.dtype == torch.float64
    assert torch.equal(got, got.T)
    assert (got >= 0).all()
    assert not got.diagonal().any()
    wanted = direct_distances(updates)
    single = updates.dtype == torch.float32
    torch.testing.assert_close(got, wanted, rtol=1e-5 if single else 1e-9, atol=0)
    torch.testing.assert_close(got, wanted, rtol=0, atol=(1e-6 if single else 1e-13) * float(wanted.max()))


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
def test_distances_of_close_rows_far_from_the_rest(columns, far):
    updates = normal(6, 10)
    updates[4:] = far
    updates[5, 3] *= 1 + 1e-9
    updates[5, 7] *= 1 - 1e-12
    check_distances(updates)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("far", [1e-22, 1e-20, 1e-3, 1e6, 1e12, 1e30])
def test_distances_of_rows_of_very_different_lengths(dtype, far):
    updates = normal(7, 10, dtype=dtype)
    updates[4:] *= far
    updates[6] = updates[5]
    check_distances(updates)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_of_groups_within_groups(columns, dtype):
    """Each row lies a hundred times closer to the next than the one before it did: every pass settles one of them."""
    updates = torch.zeros(9, 12, dtype=dtype)
    steps = [1e3, 1e1, 1e-1, 1e-3]
    for i, step in enumerate(steps, start=1):
        updates[i:5] += step * normal(1, 12, seed=i, dtype=dtype)
    updates[5:] = normal(4, 12, seed=9, dtype=dtype)
    check_distances(updates)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("zero", [False, True])
def test_distances_of_rows_with_much_in_common(dtype, zero):
    """Differences of 1e-5 on a row of length 22, beside a row of zeros that an attacker sent or without it."""
    updates = (0.05 * normal(1, 20_000) + 1e-5 * normal(7, 20_000, seed=1)).to(dtype)
    if zero:
        updates[3] = 0.0
    check_distances(updates)


@often
@given(n=st.integers(2, 12), seed=st.integers(0, 10_000), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_equal_rows_have_equal_distances_to_all_others(n, seed, dtype):
    rows = normal(n, 700, seed=seed, dtype=dtype)
    source = torch.randint(n, (2 * n,), generator=torch.Generator().manual_seed(seed))
    got = squared_distances(rows[source])
    for i in range(2 * n):
        for j in range(i):
            if source[i] == source[j]:
                assert torch.equal(got[i], got[j])
                assert got[i, j] == 0
            else:
                assert got[i, j] > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rows_are_ties_even_if_products_add_up_their_terms_in_another_order(dtype, monkeypatch):
    products = linalg._products

    def uneven(*args):
        exact = products(*args)
        return exact * (1 + 1e-12 * torch.arange(len(exact), dtype=torch.float64))[:, None]

    monkeypatch.setattr(linalg, "_products", uneven)
    updates = normal(9, 50, dtype=dtype)
    updates[[5, 8]] = updates[3].clone()
    got = squared_distances(updates)
    assert torch.equal(got[3], got[5])
    assert torch.equal(got[3], got[8])
    assert torch.equal(got, got.T)


def test_rows_that_point_the_same_way_cost_a_second_pass_and_others_none(monkeypatch):
    passes = []
    products = linalg._products
    monkeypatch.setattr(linalg, "_products", lambda *args: passes.append(args[2].tolist()) or products(*args))
    every = list(range(9))
    squared_distances(normal(9, 40, dtype=torch.float32))
    assert passes == [every]
    updates = 5.0 + 1e-3 * normal(9, 40, dtype=torch.float32)
    squared_distances(updates)
    assert passes[1:] == [every, every]
    updates[4] = 0.0
    squared_distances(updates)
    assert passes[3:] == [every, [0, 1, 2, 3, 5, 6, 7, 8]]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e200])
def test_distances_that_overflow_are_infinite(value):
    updates = normal(4, 5)
    updates[2, 1] = value
    got = squared_distances(updates)
    assert not got.isnan().any()
    assert got[2].tolist() == got[:, 2].tolist()
    assert not got[2, [0, 1, 3]].isfinite().any()
    if value == 1e200:
        torch.testing.assert_close(got[[0, 1, 3]][:, [0, 1, 3]], direct_distances(updates[[0, 1, 3]]), rtol=1e-9, atol=0)


def test_a_torch_that_rounds_products_is_not_asked_for_them():
    updates = normal(6, 300, dtype=torch.float32)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert linalg._product_dtype(updates) == torch.float64
        check_distances(updates)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    updates = normal(5, 300, dtype=dtype)
    torch.testing.assert_close(squared_distances(updates), direct_distances(updates), rtol=1e-5, atol=0)
    torch.testing.assert_close(row_norms(updates).square(), updates.double().square().sum(dim=1), rtol=1e-5, atol=0)
    torch.testing.assert_close(gram(updates), updates.double() @ updates.double().T, rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("far", [1e-30, 1.0, 1e30])
def test_norms(columns, dtype, far):
    updates = normal(6, 14, dtype=dtype)
    updates[1], updates[2] = 0.0, updates[2] * far
    center = updates[4]
    for got, rows in (
        (row_norms(updates), updates.double()),
        (row_norms(updates, center), updates.double() - center.double()),
    ):
        wanted = [math.sqrt(math.fsum(x * x for x in row)) for row in rows.tolist()]
        torch.testing.assert_close(got, torch.tensor(wanted, dtype=torch.float64), rtol=1e-6, atol=0)
    assert row_norms(updates)[1] == row_norms(updates, center)[4] == 0


def test_norms_beyond_the_range_of_their_squares():
    updates = torch.tensor([[3e200, 4e200], [3e-200, 4e-200], [float("inf"), 1.0], [float("nan"), 1.0]], dtype=torch.float64)
    got = row_norms(updates)
    assert got[:2].tolist() == pytest.approx([5e200, 5e-200], rel=1e-12)
    assert got[2] == math.inf
    assert not got[3].isfinite()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("center", [None, 2])
def test_inner_products(columns, dtype, center):
    updates = normal(6, 14, dtype=dtype)
    updates[3] *= 1e12
    rows = updates.double() if center is None else updates.double() - updates[center].double()
    pairs = [[math.fsum(x * y for x, y in zip(a, b, strict=True)) for b in rows.tolist()] for a in rows.tolist()]
    wanted = torch.tensor(pairs, dtype=torch.float64)
    got = gram(updates, None if center is None else updates[center])
    assert torch.equal(got, got.T)
    scale = rows.norm(dim=1)[:, None] * rows.norm(dim=1) + 1e-30
    assert ((got - wanted).abs() / scale).max() < (1e-6 if dtype == torch.float32 else 1e-13)


@pytest.mark.parametrize("n", [3, 32, 70])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_several_weighted_sums(columns, n, dtype):
    updates, coefficients = normal(n, 14, dtype=dtype), normal(5, n, seed=1)
    got = weighted_sums(updates, coefficients)
    assert got.dtype == dtype
    tolerance = {torch.bfloat16: 1e-1, torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    for row, weights in zip(got, coefficients.tolist(), strict=True):
        torch.testing.assert_close(row.double(), direct_sum(updates, weights), rtol=tolerance, atol=tolerance)


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
