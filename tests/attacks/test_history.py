"""Attacks that remember the last global update: ROP, free riders, Neurotoxin's mask."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedagg.attacks import ROP, FreeRider, Neurotoxin

from . import reference_search as reference
from .inputs import X7H, close, matrix, normal, scattered_rows

often = settings(max_examples=100, deadline=None, derandomize=True)


def test_rop_golden_value():
    close(ROP(z=0.25335)(matrix(X7H), f=2), [[-0.092596, -0.230007, 0.052048]] * 2, 1e-5)
    close(ROP()(matrix(X7H), f=2), [[-0.092596, -0.230007, 0.052048]] * 2, 1e-5)  # ALIE's z of n = 7, f = 2


def test_rop_by_hand():
    """u along the first axis, so the rest of the all-ones vector is the second: q = (0, 1), u = (1, 0)."""
    honest, last = matrix([[2.0, 0.0], [4.0, 0.0]]), matrix([1.0, 0.0])
    close(ROP(z=0.5, angle=90.0)(honest, f=1, last_delta=last), [[1.0, 0.5]])
    close(ROP(z=0.5, angle=180.0)(honest, f=1, last_delta=last), [[0.5, 0.0]])
    close(ROP(z=0.5, angle=0.0, pi=0.5)(honest, f=1, last_delta=last), [[2.5, 0.0]])
    close(ROP(z=0.5, pi=0.0)(honest, f=1), [[3.0, -0.5]])


@often
@given(st.data())
def test_rop_against_the_reference(data):
    rows = data.draw(scattered_rows(least_h=2).filter(lambda rows: len(rows[0]) > 1))
    f = data.draw(st.integers(1, len(rows)))
    last = data.draw(st.none() | st.integers(0, 99).map(lambda seed: normal(len(rows[0]), seed=seed).tolist()))
    settings_ = {
        "z": data.draw(st.none() | st.floats(-3, 3)),
        "lam": data.draw(st.sampled_from([0.0, 0.5, 0.9, 1.0])),
        "pi": data.draw(st.sampled_from([0.0, 0.3, 1.0])),
        "angle": data.draw(st.sampled_from([0.0, 45.0, 180.0, 270.0])),
    }
    sent = ROP(**settings_)(matrix(rows), f, last_delta=None if last is None else matrix(last))
    close(sent, [reference.rop(rows, f, last, **settings_)] * f, 1e-7)


def test_the_push_is_z_long_and_at_the_angle():
    honest, last = normal(8, 40), normal(40, seed=5)
    u = 0.9 * last + 0.1 * honest.mean(dim=0)
    for angle in (0.0, 60.0, 90.0, 135.0, 180.0, 270.0):
        push = ROP(z=2.0, angle=angle)(honest, f=1, last_delta=last)[0] - last
        assert float(push.norm()) == pytest.approx(2.0)
        assert float(torch.cosine_similarity(push, u, dim=0)) == pytest.approx(math.cos(math.radians(angle)), abs=1e-12)


def test_rop_is_void_where_nothing_pushes():
    attack = ROP()
    close(attack(matrix([[1.0, 3.0], [1.0, 4.0], [1.0, 5.0]]), f=1, last_delta=matrix([0.5, 7.0])), [[0.5, 7.0]])
    assert attack.last_info == {"z": 0.0, "void": True}  # ALIE's z for n = 4, f = 1
    attack(matrix(X7H), f=2)
    assert "void" not in attack.last_info


@pytest.mark.parametrize("row", [[0.1, 0.1, 0.1], [-7.3, -7.3, -7.3], [0.0, 0.0, 0.0]])
def test_rop_along_the_all_ones_vector(row):
    """Nothing of the all-ones vector is left to push along: the location goes out as it is, and it is noted."""
    attack = ROP(z=1.0, pi=0.0)
    close(attack(matrix([row, row, row]), f=1), [row])
    assert attack.last_info == {"z": 1.0, "void": True}


def test_rop_needs_a_minority_or_z():
    with pytest.raises(ValueError, match=r"needs f <= n/2 to compute z"):
        ROP()(matrix([[1.0, 2.0]]), f=2)
    assert ROP(z=1.0)(matrix([[1.0, 2.0]]), f=2).shape == (2, 2)


def test_a_free_rider_rides_in_every_round():
    """A lazy client of one well-known library never is: its counter of rounds stands still."""
    honest, last = normal(4, 6), normal(6, seed=3)
    for round in range(1, 6):
        known = {"round": round, "last_delta": None if round == 1 else last}
        assert torch.equal(FreeRider()(honest, 2, **known), torch.zeros(2, 6, dtype=torch.float64))
        wanted = torch.zeros(6, dtype=torch.float64) if round == 1 else last
        assert torch.equal(FreeRider(mode="last")(honest, 2, **known), wanted.expand(2, 6))


def test_a_free_riders_disguise():
    """With 400,000 draws the deviation has a standard error of 0.0034; a bound of six of them."""
    last = normal(200_000, seed=3)
    rows = FreeRider(mode="last", std=3.0)(torch.zeros(3, 200_000, dtype=torch.float64), f=2, last_delta=last) - last
    assert abs(rows.std() - 3.0) < 0.021
    assert abs(torch.corrcoef(rows)[0, 1]) < 6 / 200_000**0.5  # the rows are drawn apart
    source, honest = torch.Generator().manual_seed(7), torch.zeros(1, 20)
    disguised = FreeRider(std=0.5, generator=torch.Generator().manual_seed(7))
    for _ in range(2):
        wanted = 0.5 * torch.randn(20, generator=source, dtype=torch.float64)
        assert torch.equal(disguised(honest, f=1)[0], wanted.float())


@pytest.mark.parametrize(
    ("last", "ratio", "mask"),
    [
        ([0.1, -9.0, 5.0, -0.2], 0.5, [1, 0, 0, 1]),  # a signed order would keep -9
        ([-3.0, -2.0, -1.0, 4.0], 0.5, [0, 1, 1, 0]),
        ([1.0, 1.0, -1.0, 1.0], 0.5, [1, 1, 0, 0]),  # ties: the lowest coordinates
        ([2.0, 1.0, -1.0, 0.0, 1.0], 0.6, [0, 1, 1, 1, 0]),
        ([1.0, 2.0, 3.0], 0.5, [1, 0, 0]),  # floor(1.5)
        ([1.0, 2.0, 3.0], 0.0, [0, 0, 0]),
        ([1.0, 2.0, 3.0], 1.0, [1, 1, 1]),
    ],
)
def test_mask_by_hand(last, ratio, mask):
    attack, own = Neurotoxin(ratio=ratio), normal(2, len(last)) + 5.0
    assert attack.mask(matrix(last)).tolist() == [bool(m) for m in mask]
    sent = attack(normal(3, len(last)), f=2, own=own, last_delta=matrix(last))
    assert torch.equal(sent, own * matrix(mask))
    assert torch.equal(attack(normal(3, len(last)), f=2, own=own), own)


@often
@given(st.lists(st.integers(-3, 3).map(float) | st.floats(-1e3, 1e3), min_size=1, max_size=30), st.floats(0, 1), st.booleans())
def test_mask_against_the_reference(last, ratio, single):
    reference_ = matrix(last).to(torch.float32 if single else torch.float64)
    wanted = reference.smallest(reference_.tolist(), int(ratio * len(last) + 1e-9))
    assert Neurotoxin(ratio=ratio).mask(reference_).tolist() == wanted


def test_a_share_that_rounding_makes_smaller():
    assert int(Neurotoxin(ratio=0.29).mask(normal(100)).sum()) == 29  # 0.29 * 100 is 28.999999999999996


def test_masked_entries_are_gone_whatever_they_were():
    own = matrix([[math.inf, 1.0], [math.nan, 2.0]])
    sent = Neurotoxin()(normal(3, 2), f=2, own=own, last_delta=matrix([5.0, 0.0]))
    assert sent.tolist() == [[0.0, 1.0], [0.0, 2.0]]
