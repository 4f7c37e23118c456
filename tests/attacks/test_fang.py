"""Fang's attacks: beyond the extremes against trimmed means, against the signs for Krum."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedagg.attacks import FangKrum, FangTrimmedMean
from strategies import Krum

from . import reference_search as reference
from .inputs import X5H, X7H, close, honest_rows, matrix, normal, scattered_rows

often = settings(max_examples=100, deadline=None, derandomize=True)


def test_the_golden_interval_is_covered():
    rows = FangTrimmedMean()(matrix(X7H), f=4000)
    low, high = matrix([0.4, -0.4, 0.9]), matrix([0.8, -0.2, 1.8])
    assert ((low <= rows) & (rows <= high)).all()
    close(rows.amin(dim=0) - low, [0.0] * 3, 2e-3)  # 4,000 draws miss a 250th of the interval with probability 1e-7
    close(high - rows.amax(dim=0), [0.0] * 3, 4e-3)


@pytest.mark.parametrize(
    ("column", "low", "high"),
    [
        ([1.0, 2.0, 3.0], 0.5, 1.0),
        ([-1.0, 2.0, 3.0], -2.0, -1.0),
        ([-3.0, -2.0, -1.0], -1.0, -0.5),  # downwards everywhere: still above the highest, and never 0
        ([-3.0, -2.0, 1.0], 1.0, 2.0),
        ([-1.0, 0.0, 1.0], -2.0, -1.0),  # a mean of 0 counts as upwards
        ([0.0, 1.0, 2.0], 0.0, 0.0),
        ([-2.0, -1.0, 0.0], 0.0, 0.0),
    ],
)
def test_interval_by_hand(column, low, high):
    assert reference.fang_interval(column, 2.0) == (low, high)
    rows = FangTrimmedMean()(matrix([[x] for x in column]), f=200)
    assert low <= rows.min() <= rows.max() <= high
    assert rows.max() - rows.min() == pytest.approx(high - low, abs=0.05 * (high - low))


@often
@given(honest_rows(), st.sampled_from([1.0, 1.5, 2.0, 10.0]), st.integers(0, 3))
@example([[1.0], [-6.6e-233], [-1.0]], 1.0, 0)  # a sum in float64 loses the middle row, and with it the sign of the mean
def test_within_the_interval(rows, b, seed):
    sent = FangTrimmedMean(b=b, generator=torch.Generator().manual_seed(seed))(matrix(rows), f=5)
    for j, column in enumerate(zip(*rows, strict=True)):
        signless = abs(math.fsum(column)) <= 1e-15 * math.fsum(map(abs, column))  # as far as rounding can tell
        ends = [reference.fang_interval(column, b, up) for up in ((True, False) if signless else (None,))]
        low, high = next((pair for pair in ends if pair[0] <= sent[0, j] <= pair[1]), ends[0])
        assert all(low <= x <= high for x in sent[:, j].tolist())
        if column[0] and b > 1 and low != high:
            assert len(set(sent[:, j].tolist())) == 5  # every row is drawn apart


def test_the_draws_come_from_the_generator_and_are_the_same_in_either_precision():
    honest = normal(5, 30)
    single, double = FangTrimmedMean()(honest.float(), f=2), FangTrimmedMean()(honest.float().double(), f=2)
    assert torch.equal(single, double.float())
    source = torch.Generator().manual_seed(7)
    attack = FangTrimmedMean(generator=torch.Generator().manual_seed(7))
    uniform = torch.stack([torch.rand(30, generator=source, dtype=torch.float64) for _ in range(2)])
    first, second = attack(honest, f=2), attack(honest, f=2)
    ends = matrix([reference.fang_interval(column, 2.0) for column in honest.T.tolist()]).T
    up = honest.mean(dim=0) < 0
    near, far = torch.where(up, ends[0], ends[1]), torch.where(up, ends[1], ends[0])
    torch.testing.assert_close(first, near + uniform * (far - near))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("f", "start"), [(2, 1.438793), (1, 1.472022)])
def test_golden_start_and_a_void_end(f, start):
    """Honest rows close together and far from 0: no lambda is picked, and the attack says so."""
    assert reference.fang_krum_start(X7H, f) == pytest.approx(start, abs=1e-6)
    attack = FangKrum(min_lambda=100.0)  # gives up at the start
    close(attack(matrix(X7H), f=f), [[-start] * 3] * f, 1e-6)
    assert attack.last_info == {"lambda": pytest.approx(start, abs=1e-6), "void": True}
    attack = FangKrum()
    attack(matrix(X7H), f=f)
    assert attack.last_info["void"] is True
    assert 5e-6 < attack.last_info["lambda"] <= 1e-5


@often
@given(st.data())
def test_fang_krum_against_the_reference(data):
    f = data.draw(st.integers(1, 4))
    rows = data.draw(scattered_rows(least_h=f + 3))
    size, picked = reference.fang_krum(rows, f)
    attack = FangKrum()
    sent = attack(matrix(rows), f)
    assert attack.last_info.get("void", False) is not picked
    assert attack.last_info["lambda"] == pytest.approx(size, rel=1e-9)
    close(sent, [[-size * s for s in reference.direction(rows, "sign", 0)]] * f)


@pytest.mark.parametrize("f", [1, 2, 5])
def test_krum_picks_it(f):
    """Against the rule itself, on rows spread around 0; at twice the length Krum no longer does."""
    picks = 0
    for seed in range(10):
        honest = normal(2 * f + 4, 30, seed=seed) + 0.1
        attack = FangKrum()
        rows = attack(honest, f)
        assert "void" not in attack.last_info
        assert torch.equal(Krum(f)(torch.cat([honest, rows])), rows[0])
        if attack.last_info["lambda"] < reference.fang_krum_start(honest.tolist(), f) * 0.9:
            picks += 1
            assert not torch.equal(Krum(f)(torch.cat([honest, 2 * rows])), 2 * rows[0])
    assert picks > 0


def test_void_is_forgotten():
    attack = FangKrum()
    attack(matrix(X7H), f=2)
    attack(normal(8, 30), f=2)
    assert "void" not in attack.last_info


def test_fang_krum_needs_what_krum_needs():
    with pytest.raises(ValueError, match=r"FangKrum needs h >= f \+ 3 honest updates \(Krum's n >= 2f \+ 3\); got h=4, f=2"):
        FangKrum()(matrix(X5H), f=2)
    with pytest.raises(ValueError, match="FangKrum needs honest updates with finite distances"):
        FangKrum()(normal(5, 4) * 1e200, f=1)
    close(FangKrum()(matrix([[0.0, 0.0]] * 4), f=1), [[0.0, 0.0]])  # nothing to go against
