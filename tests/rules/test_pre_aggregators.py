"""Pre-aggregators: golden values, a slow reference, what they keep of the rows, and how strategies use them."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedagg import Strategy
from fedagg.experiment import build
from fedagg.hydra_app import compose
from strategies import ARC, NNM, Bucketing, Krum, StaticClip, TrimmedMean

from . import properties, reference_distance
from .test_against_reference import normal_rows, small_integers, tables
from .test_golden import X5, X7, close, matrix

often = settings(max_examples=60, deadline=None, derandomize=True)
EVERY = [NNM(f=2), Bucketing(s=2), StaticClip(c=1.5), ARC(f=2)]
every = pytest.mark.parametrize("pre", EVERY, ids=str)


def alike(got, wanted, slack=1e-9):
    torch.testing.assert_close(got.double(), torch.tensor(wanted, dtype=torch.float64), rtol=slack, atol=slack)


@pytest.mark.parametrize(
    ("pre", "rows", "value"),
    [
        (NNM(f=1), X5, [[1.625, 1.625]] * 4 + [[3.875, -1.375]]),
        (ARC(f=1), X5, [*X5[:4], [2, -2]]),
        (StaticClip(c=5.0), [[3, 4], [6, 8], [0, 0], [-30, 40]], [[3, 4], [3, 4], [0, 0], [-3, 4]]),
        (Bucketing(s=5), X5, [[3.3, -0.7]]),
    ],
    ids=str,
)
def test_value(pre, rows, value):
    close(pre(matrix(rows)), value)


def test_mixing_then_trimming():
    close(TrimmedMean(f=1)(NNM(f=1)(matrix(X5))), [1.625, 1.625])


@often
@given(table=tables(least_n=lambda f: 2 * f + 1, values=small_integers), s=st.integers(1, 4))
def test_ties(table, s):
    f, rows = table
    updates = torch.tensor(rows, dtype=torch.float64)
    alike(NNM(f=f)(updates), reference_distance.nnm(rows, f))
    alike(ARC(f=f)(updates), reference_distance.arc(rows, f))
    bucketing = Bucketing(s=s)
    alike(bucketing(updates), reference_distance.buckets(rows, bucketing.last_info["order"].tolist(), s))


@often
@given(f=st.integers(0, 4), spare=st.integers(0, 30), d=st.integers(1, 5), seed=st.integers(0, 10_000), single=st.booleans())
def test_random_rows(f, spare, d, seed, single):
    dtype, slack = (torch.float32, 1e-5) if single else (torch.float64, 1e-9)
    updates = torch.tensor(normal_rows(2 * f + 1 + spare, d, seed), dtype=torch.float64).to(dtype)
    rows = updates.double().tolist()
    alike(NNM(f=f)(updates), reference_distance.nnm(rows, f), slack)
    alike(ARC(f=f)(updates), reference_distance.arc(rows, f), slack)
    alike(StaticClip(c=1.2)(updates), reference_distance.static_clip(rows, 1.2), slack)


def test_of_equally_near_rows_the_row_itself_and_then_the_lowest_is_mixed_in():
    nnm = NNM(f=2)
    nnm(matrix([[1.0], [0.0], [1.0], [2.0], [1.0]]))
    assert nnm.last_info["selected"].tolist() == [[0, 2, 4], [1, 0, 2], [2, 0, 4], [3, 0, 2], [4, 0, 2]]


def test_f_zero_mixes_everything_and_clips_nothing():
    updates = matrix(X7)
    close(NNM(f=0)(updates), updates.mean(dim=0).repeat(7, 1).tolist())
    assert torch.equal(ARC(f=0)(updates), updates)


def test_arc_counts_in_whole_numbers():
    """k = floor(2 * 1 * 3 / 4) = 1 and floor(2 * 3 * 4 / 7) = 3, one more than half of what is left."""
    assert ARC(f=1)(matrix([[1.0], [-2.0], [3.0], [-4.0]])).tolist() == [[1], [-2], [3], [-3]]
    lengths = matrix([[7.0], [6.0], [5.0], [4.0], [3.0], [2.0], [1.0]])
    assert ARC(f=3)(lengths).flatten().tolist() == pytest.approx([4, 4, 4, 4, 3, 2, 1])
    pre = ARC(f=3)
    pre(lengths)
    assert pre.last_info["clipped"].tolist() == [True] * 3 + [False] * 4
    assert pre.last_info["scores"].tolist() == pytest.approx([7, 6, 5, 4, 3, 2, 1])


def test_short_rows_pass_untouched():
    updates = torch.tensor(normal_rows(9, 30, seed=0)).float()
    longest = updates.norm(dim=1).argsort()[-3:]
    for pre in (ARC(f=2), StaticClip(c=float(updates.norm(dim=1).sort().values[-4]) + 1e-4)):
        short = torch.ones(9, dtype=torch.bool)
        short[longest] = False
        assert torch.equal(pre(updates)[short], updates[short])
    assert torch.equal(StaticClip(c=1.0)(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_buckets_follow_the_generator():
    updates = torch.arange(10, dtype=torch.float64)[:, None]
    one = Bucketing(s=3)
    assert torch.equal(one(updates), one(updates))  # a direct call draws from seed 0 each time
    assert one(updates).shape == (4, 1)
    assert one.last_info["order"].sort().values.tolist() == list(range(10))
    assert one.last_info["order"].tolist() != list(range(10))
    source = torch.Generator().manual_seed(7)
    lent = Bucketing(s=3, generator=source)
    first = lent(updates)
    assert not torch.equal(first, lent(updates))
    assert torch.equal(Bucketing(s=3, generator=torch.Generator().manual_seed(7))(updates), first)
    shuffled = Bucketing(s=1)
    assert torch.equal(shuffled(updates), updates[shuffled.last_info["order"]])


def test_the_order_is_uniform():
    """Each of 6 orders of 3 rows is drawn 200 times of 1200: a chi-squared of 5 degrees exceeds 25.7 once in 10,000 seeds."""
    pre, seen = Bucketing(s=1, generator=torch.Generator().manual_seed(0)), {}
    for _ in range(1200):
        pre(torch.zeros(3, 1))
        order = tuple(pre.last_info["order"].tolist())
        seen[order] = seen.get(order, 0) + 1
    assert sum((count - 200) ** 2 / 200 for count in seen.values()) + 200 * (6 - len(seen)) < 25.7


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_kept_and_the_rows_are(pre, dtype):
    updates = torch.tensor(normal_rows(7, 5, seed=1)).to(dtype)
    before = updates.clone()
    got = pre(updates)
    assert got.dtype == dtype
    slack = {torch.float16: 2e-3, torch.bfloat16: 2e-2}.get(dtype, 1e-6)
    torch.testing.assert_close(got.double(), pre(updates.double()), rtol=slack, atol=slack)
    got.fill_(7.0)
    assert torch.equal(updates, before)
    assert torch.equal(pre(updates.T.contiguous().T), pre(updates))


@every
def test_rows_of_nan_and_infinity_are_refused_by_number(pre):
    for value in (float("nan"), float("inf"), float("-inf")):
        updates = torch.tensor(normal_rows(7, 5, seed=1))
        updates[2, 1] = updates[6, 0] = value
        with pytest.raises(ValueError, match=rf"{type(pre).__name__} needs finite updates; rows \[2, 6\]"):
            pre(updates)


def test_rows_whose_squares_overflow():
    updates = torch.tensor(normal_rows(7, 4, seed=1), dtype=torch.float64)
    updates[3] = 1e200
    for pre in (ARC(f=2), StaticClip(c=2.0)):
        clipped = pre(updates)
        assert clipped.norm(dim=1).max() < 10
        assert torch.allclose(clipped[3], clipped[3, 0].expand(4))  # shorter, in its own direction
    with pytest.raises(ValueError, match=r"overflows for rows \[3\]"):
        NNM(f=2)(updates)


@every
def test_values_and_state(pre):
    assert eval(repr(pre), {**vars(properties.strategies)}) == pre == copy.deepcopy(pre)
    with properties.global_generators_untouched():
        pre(torch.ones(7, 3))
    with pytest.raises(AttributeError):
        pre.f = 1
    assert not hasattr(pre, "state_dict")
    assert pre.random == isinstance(pre, Bucketing)
    assert pre(torch.zeros(7, 0)).shape == (4 if pre.random else 7, 0)


def test_tags():
    assert [str(pre) for pre in EVERY] == ["NNM-2", "Bucketing", "StaticClip-1.5", "ARC-2"]


@pytest.mark.parametrize(("pre", "s"), [(NNM(f=2), 3.0), (ARC(f=2), 3.0)], ids=str)
def test_equivariance(pre, s):
    updates = torch.tensor(normal_rows(8, 4, seed=5), dtype=torch.float64)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    properties.close(pre(updates[order]), pre(updates)[order])
    properties.close(pre(s * updates), s * pre(updates))
    turn = torch.linalg.qr(torch.tensor(normal_rows(4, 4, seed=6), dtype=torch.float64)).Q
    properties.close(pre(updates @ turn), pre(updates) @ turn)


@pytest.mark.parametrize("pre", [NNM(f=2), Bucketing(s=2)], ids=str)
def test_translation(pre):
    updates = torch.tensor(normal_rows(8, 4, seed=5), dtype=torch.float64)
    properties.close(pre(updates + 3.0), pre(updates) + 3.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NNM(f=2)(torch.zeros(4, 3)), "NNM needs f >= 0 and n >= 2f + 1 (Allouah et al. 2023); got n=4, f=2"),
        (lambda: NNM(f=-1)(torch.zeros(4, 3)), "got n=4, f=-1"),
        (lambda: ARC(f=2)(torch.zeros(4, 3)), "ARC needs f >= 0 and n >= 2f + 1 (Allouah et al. 2024); got n=4, f=2"),
        (lambda: ARC(f=0)(torch.zeros(0, 3)), "got n=0, f=0"),
        (lambda: Bucketing(s=2)(torch.zeros(0, 3)), "Bucketing needs n >= 1; got n=0"),
        (lambda: Bucketing(s=0), "Bucketing needs s >= 1 (Karimireddy et al. 2022); got s=0"),
        (lambda: StaticClip(c=0.0), "StaticClip needs a finite c > 0; got c=0.0"),
        (lambda: StaticClip(c=float("nan")), "got c=nan"),
    ],
)
def test_bounds(make, message):
    with pytest.raises(ValueError) as caught:
        make()
    assert message in str(caught.value)


def test_a_bucket_counts_as_one_row_for_the_bound_of_the_rule():
    with pytest.raises(ValueError, match="n=4, f=1"):
        Krum(f=1)(Bucketing(s=2)(torch.ones(7, 3)))


def test_the_command_line_puts_them_before_a_rule():
    overrides = ["strategy=trimmed_mean", "f=1", "population=9", "model=logistic_regression", "partition=iid"]
    strategy = build(compose([*overrides, "pre_aggregators=[bucketing,nnm]"])).strategy
    assert isinstance(strategy, Strategy)
    assert strategy.pre_aggregators == (Bucketing(s=2), NNM(f=1))
