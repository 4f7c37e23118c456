"""Bulyan, the geometric median, the medoid, CGE and MoNNA: golden values, a slow reference, ties, bounds and far rows."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from strategies import CGE, Bulyan, GeometricMedian, Medoid, MoNNA

from . import reference, reference_distance
from .test_against_reference import normal_rows, same, small_integers, tables
from .test_golden import X5, X7, close, matrix

often = settings(max_examples=60, deadline=None, derandomize=True)
XB = [[1, 0], [1.2, 0.1], [0.8, -0.2], [1.1, 0.3], [0.9, 0.05], [1.05, -0.1], [-8, 6]]
RFA = {"nu": 1e-5, "T": 4, "tol": 0.0}
FROM_ZERO = {"nu": 0.1, "T": 3, "tol": 0.0, "start": "zero"}


@pytest.mark.parametrize(
    ("rule", "rows", "value"),
    [
        (Bulyan(f=1), XB, [1.05, 0]),
        (GeometricMedian(), X5, [1.637812, 1.478824]),
        (GeometricMedian(**RFA), X7, [0.911999, 0.131987, 1.919057]),
        (GeometricMedian(**FROM_ZERO), X7, [0.865435, 0.159617, 1.885815]),
        (GeometricMedian(), [[0, 0], [4, 0], [0, 4], [4, 4]], [2, 2]),
        (Medoid(), X5, [1.5, 1.5]),
        (CGE(f=1), X5, [1.625, 1.625]),
        (MoNNA(f=1), X5, [1.625, 1.625]),
        (MoNNA(f=1, reference=4), [[0], [1], [2], [8], [9]], [5]),
    ],
    ids=str,
)
def test_value(rule, rows, value):
    close(rule(matrix(rows)), value)


def test_three_passes_from_zero_are_not_the_geometric_median():
    few = GeometricMedian(**FROM_ZERO)(matrix(X5))
    torch.testing.assert_close(few, matrix([1.851, 1.269]), rtol=0, atol=1e-3)


def test_picks_of_bulyan():
    rule = Bulyan(f=1)
    rule(matrix(XB))
    assert rule.last_info["selected"].tolist() == reference_distance.bulyan_picks(XB, 1) == [0, 5, 1, 2, 3]


@often
@given(table=tables(least_n=lambda f: 4 * f + 3, spare=3, values=small_integers))
@example(table=(0, [[0.0], [5.0], [6.0]]))
@example(table=(1, [[1.0]] * 7))
def test_bulyan_on_ties(table):
    f, rows = table
    rule = Bulyan(f=f)
    got = rule(torch.tensor(rows, dtype=torch.float64))
    assert rule.last_info["selected"].tolist() == reference_distance.bulyan_picks(rows, f)
    same(got, reference_distance.bulyan(rows, f))


@often
@given(f=st.integers(0, 3), spare=st.integers(0, 4), d=st.integers(2, 5), seed=st.integers(0, 10_000), single=st.booleans())
def test_random_rows(f, spare, d, seed, single):
    dtype, slack = (torch.float32, 1e-5) if single else (torch.float64, 1e-9)
    updates = torch.tensor(normal_rows(4 * f + 3 + spare, d, seed), dtype=torch.float64).to(dtype)
    rows = updates.double().tolist()
    at = seed % len(rows)
    sums = reference_distance.medoid(rows)
    for rule, wanted in (
        (Bulyan(f=f), reference_distance.bulyan(rows, f)),
        (Medoid(), rows[reference.least(sums, 1)[0]]),
        (CGE(f=f), reference.mean([rows[i] for i in reference_distance.cge(rows, f)])),
        (MoNNA(f=f, reference=at), reference.mean([rows[i] for i in reference_distance.monna(rows, f, at)])),
    ):
        torch.testing.assert_close(rule(updates), torch.tensor(wanted, dtype=dtype), rtol=slack, atol=slack, msg=str(rule))
    rule = Medoid()
    rule(updates)
    torch.testing.assert_close(rule.last_info["scores"], torch.tensor(sums, dtype=torch.float64), rtol=slack, atol=0)


@pytest.mark.parametrize("settings", [{}, RFA, FROM_ZERO, {"nu": 0.5, "T": 20, "tol": 1e-3}], ids=str)
@often
@given(n=st.integers(1, 9), d=st.integers(1, 5), seed=st.integers(0, 10_000), weighted=st.booleans())
def test_geometric_median(settings, n, d, seed, weighted):
    rows = normal_rows(n, d, seed)
    weights = torch.rand(n, generator=torch.Generator().manual_seed(seed)).tolist() if weighted else None
    z, w, passes = reference_distance.geometric_median(rows, weights, **settings)
    rule = GeometricMedian(**settings)
    got = rule(torch.tensor(rows, dtype=torch.float64), None if weights is None else torch.tensor(weights))
    torch.testing.assert_close(got, torch.tensor(z, dtype=torch.float64), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(rule.last_info["client_weights"], torch.tensor(w, dtype=torch.float64), rtol=1e-6, atol=1e-8)
    if settings.get("tol"):  # the others go on until rounding stops them
        assert rule.last_info["iterations"] == passes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("far", [1e3, 1e12, 1e30])
def test_far_rows_cost_the_geometric_median_no_digits(dtype, far):
    """The limit of a row at infinity in a fixed direction: it pulls with its weight, however far it is."""
    updates = torch.tensor(normal_rows(9, 20, seed=4)).to(dtype) + 3.0
    updates[:2] = 0.0
    updates[:2, 0] = far
    near = updates.double().clone()
    near[:2, 0] = min(far, 1e9)  # the reference works on the point, and is right there
    z, _, _ = reference_distance.geometric_median(near.tolist(), T=1000, tol=0.0)
    slack = 1e-4 if dtype == torch.float32 or far < 1e9 else 1e-6
    got = GeometricMedian(T=1000, tol=0.0)(updates)
    torch.testing.assert_close(got.double(), torch.tensor(z, dtype=torch.float64), rtol=slack, atol=slack)


def test_a_common_part_costs_the_geometric_median_no_digits():
    spread = torch.tensor(normal_rows(7, 50, seed=2), dtype=torch.float64)
    updates = (1e5 + spread).float()
    updates[0] = 0.0
    z, _, _ = reference_distance.geometric_median(updates.double().tolist(), T=500, tol=0.0)
    got = GeometricMedian(T=500, tol=0.0)(updates)
    assert float((got.double() - torch.tensor(z, dtype=torch.float64)).abs().max()) < 0.02  # float32 holds 1e5 to 0.008


def test_weights_of_the_geometric_median():
    updates = matrix([[0.0], [1.0], [10.0]])
    close(GeometricMedian()(updates, torch.tensor([1.0, 1.0, 5.0])), [10.0])  # more than half of the weight
    close(GeometricMedian()(updates, torch.tensor([1e-3, 1e-3, 5e-3])), [10.0])  # only ratios matter
    assert GeometricMedian().client_weights(updates, torch.tensor([1.0, 2.0, 0.0]))[2] == 0
    for bad in ([0.0, 0.0, 0.0], [1.0, -1.0, 3.0], [float("nan"), 1.0, 1.0]):
        with pytest.raises(ValueError, match="weights >= 0 that are not all 0"):
            GeometricMedian()(updates, torch.tensor(bad))
    with pytest.raises(ValueError, match=r"\[3\], one for each row; got \[2\]"):
        GeometricMedian()(updates, torch.ones(2))


def test_a_large_nu_gives_the_mean_and_says_how_many_passes_it_made():
    rule = GeometricMedian(nu=0.1)
    close(rule(0.001 * matrix(X7)), [0.001 * x for x in reference.mean(X7)])
    assert rule.last_info["iterations"] == 1
    assert rule.last_info["residual"] == pytest.approx(0, abs=1e-12)
    rule = GeometricMedian(T=2)
    rule(matrix(X7))
    assert rule.last_info["iterations"] == 2


def test_ties():
    twins = matrix([[5.0, 0.0], [1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    assert CGE(f=2).client_weights(twins).nonzero().flatten().tolist() == [1, 2, 3]
    assert MoNNA(f=2, reference=2).client_weights(twins).nonzero().flatten().tolist() == [1, 2, 4]
    rule = MoNNA(f=2, reference=2)
    rule(twins)
    assert rule.last_info["selected"].tolist() == [2, 1, 4]
    assert Medoid().client_weights(matrix([[3.0], [1.0]])).tolist() == [1, 0]
    assert Medoid().client_weights(matrix([[3.0], [1.0], [1.0], [3.0]])).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("rule", [Bulyan(f=2), Medoid(), CGE(f=2), MoNNA(f=2), GeometricMedian()], ids=str)
def test_rows_whose_squares_overflow_do_not_take_part(rule):
    updates = torch.tensor(normal_rows(11, 3, seed=0), dtype=torch.float64)
    updates[4], updates[9] = 1e200, -1e200
    assert rule(updates).abs().max() < 10
    if hasattr(rule, "client_weights"):
        weights = rule.client_weights(updates)
        assert weights[[4, 9]].tolist() == [0, 0]
        assert float(weights.sum()) == pytest.approx(1)
    with pytest.raises(ValueError, match=r"finite|overflows|fewer than"):
        rule(1e200 * torch.ones(11, 3, dtype=torch.float64) * torch.arange(1, 12)[:, None])


@pytest.mark.parametrize(
    ("rule", "n", "message"),
    [
        (Bulyan(f=1), 6, "Bulyan needs n >= 4f + 3 (El Mhamdi et al. 2018); got n=6, f=1"),
        (Bulyan(f=0), 0, "n >= 4f + 3 (El Mhamdi et al. 2018); got n=0, f=0"),
        (Bulyan(f=-1), 9, "f >= 0 and n >= 4f + 3 (El Mhamdi et al. 2018); got n=9, f=-1"),
        (GeometricMedian(), 0, "GeometricMedian needs n >= 1; got n=0"),
        (Medoid(), 0, "Medoid needs n >= 1; got n=0"),
        (CGE(f=2), 4, "CGE needs f >= 0 and n >= 2f + 1 (Gupta et al. 2020); got n=4, f=2"),
        (CGE(f=-1), 4, "got n=4, f=-1"),
        (CGE(f=0), 0, "got n=0, f=0"),
        (MoNNA(f=2), 4, "n >= 2f + 1 and 0 <= reference < n (Farhadkhani et al. 2023); got n=4, f=2, reference=0"),
        (MoNNA(f=1, reference=4), 4, "got n=4, f=1, reference=4"),
        (MoNNA(f=1, reference=-1), 4, "got n=4, f=1, reference=-1"),
    ],
    ids=str,
)
def test_bound(rule, n, message):
    with pytest.raises(ValueError) as caught:
        rule(torch.zeros(n, 3))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "n"), [(Bulyan(f=1), 7), (Bulyan(f=0), 3), (GeometricMedian(), 1), (Medoid(), 1), (CGE(f=2), 5), (MoNNA(f=2), 5)]
)
def test_the_bound_itself_is_allowed(rule, n):
    assert rule(torch.ones(n, 3)).tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert rule(torch.ones(n, 0)).shape == (0,)


@pytest.mark.parametrize("bad", [{"nu": 0.0}, {"T": 0}, {"tol": -1.0}, {"nu": float("nan")}, {"start": "median"}], ids=str)
def test_settings_of_the_geometric_median(bad):
    with pytest.raises(ValueError, match=f"GeometricMedian needs .*{next(iter(bad.values()))}"):
        GeometricMedian(**bad)
