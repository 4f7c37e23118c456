"""Min-Max and Min-Sum: the mean, shifted as far as the bound allows and no further."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedagg.attacks import MinMax, MinSum
from fedagg.linalg import COLUMNS

from . import reference_search as reference
from .inputs import X5H, X7H, close, honest_rows, matrix, normal

often = settings(max_examples=30, deadline=None, derandomize=True)
every_dev = pytest.mark.parametrize("dev", ["std", "unit", "sign"])


@pytest.mark.parametrize(
    ("attack", "rows", "gamma", "value"),
    [
        (MinMax(), X5H, 1.30558, [1, 1]),
        (MinMax(dev="unit"), X5H, 0.88387, [1, 1]),
        (MinMax(dev="sign"), X5H, 0.625, [1, 1]),
        (MinSum(), X5H, 1.0766, [1.109616, 1.109616]),
        (MinSum(bound="min"), X5H, 0.26112, None),
        (MinMax(ddof=0), X7H, 1.59843, None),
    ],
    ids=str,
)
def test_golden_value(attack, rows, gamma, value):
    sent = attack(matrix(rows), f=2)
    assert attack.last_info["gamma"] == pytest.approx(gamma, abs=5e-5)
    if value is not None:
        close(sent, [value, value], 1e-5)


def gamma_of(attack, rows):
    attack(matrix(rows), f=1)
    return attack.last_info["gamma"]


@every_dev
@often
@given(rows=honest_rows(least_h=2), ddof=st.integers(0, 1))
def test_min_max_against_bisection(dev, rows, ddof):
    wanted = reference.largest_gamma(
        lambda gamma: reference.min_max_room(rows, reference.shifted(rows, dev, ddof, gamma)),
        reference.direction(rows, dev, ddof),
    )
    compare_shift(MinMax(dev=dev, ddof=ddof), rows, wanted)


@every_dev
@pytest.mark.parametrize("bound", ["max", "min"])
@often
@given(rows=honest_rows(least_h=2), ddof=st.integers(0, 1))
def test_min_sum_against_bisection(dev, bound, rows, ddof):
    wanted = reference.largest_gamma(
        lambda gamma: reference.min_sum_room(rows, reference.shifted(rows, dev, ddof, gamma), bound),
        reference.direction(rows, dev, ddof),
    )
    compare_shift(MinSum(dev=dev, bound=bound, ddof=ddof), rows, wanted)


def compare_shift(attack, rows, wanted):
    """The shift is compared on the scale of the rows: a gamma that leads nowhere may be anything."""
    sent = attack(matrix(rows), f=1)
    scale = max(abs(x) for row in rows for x in row)
    close(
        sent / (scale or 1.0), [[x / (scale or 1.0) for x in reference.shifted(rows, attack.dev, attack.ddof, wanted)]], 1e-6
    )


@every_dev
@pytest.mark.parametrize("h", [2, 3, 10])
@pytest.mark.parametrize("common", [0.0, 1.0, 1e3])
def test_feasible_and_tight(dev, h, common):
    rows = (normal(h, 6) + common).tolist()
    for attack, room in [
        (MinMax(dev=dev), reference.min_max_room),
        (MinSum(dev=dev), lambda rows, c: reference.min_sum_room(rows, c, "max")),
        (MinSum(dev=dev, bound="min"), lambda rows, c: reference.min_sum_room(rows, c, "min")),
    ]:
        gamma = gamma_of(attack, rows)
        assert gamma > 0
        assert room(rows, reference.shifted(rows, dev, 1, gamma * (1 - 1e-6))) > 0
        assert room(rows, reference.shifted(rows, dev, 1, gamma * (1 + 1e-6))) < 0


@every_dev
@pytest.mark.parametrize("seed", range(5))
def test_the_published_search(dev, seed):
    rows = (normal(6, 4, seed=seed) + 1.0).tolist()

    def feasible_by(room):
        return reference.published_gamma(lambda gamma: room(reference.shifted(rows, dev, 1, gamma)) >= 0)

    wanted = feasible_by(lambda candidate: reference.min_max_room(rows, candidate))
    assert gamma_of(MinMax(dev=dev, search="official"), rows) == wanted
    for bound in ("max", "min"):
        wanted = feasible_by(lambda candidate, bound=bound: reference.min_sum_room(rows, candidate, bound))
        assert gamma_of(MinSum(dev=dev, bound=bound, search="official"), rows) == wanted
        assert wanted == pytest.approx(gamma_of(MinSum(dev=dev, bound=bound), rows), abs=2e-5)


def test_the_published_search_stays_below_20():
    rows = [[1.0, 0.001], [1.0, -0.001], [1000.0, 0.0]]
    assert gamma_of(MinSum(dev="unit"), rows) > 600
    assert 19.9 < gamma_of(MinSum(dev="unit", search="official"), rows) < 20
    assert 19.9 < gamma_of(MinMax(dev="unit", search="official"), rows) < 20


@every_dev
@pytest.mark.parametrize("search", ["exact", "official"])
@pytest.mark.parametrize("attack", [MinMax, MinSum])
def test_honest_clients_who_agree_leave_no_room(attack, dev, search):
    for row in ([1.0, -2.0], [0.0, 0.0]):
        sent = attack(dev=dev, search=search)(matrix([row] * 4), f=2)
        close(sent, [row, row], 2e-5)


@pytest.mark.parametrize("attack", [MinMax, MinSum])
def test_one_honest_client(attack):
    with pytest.raises(ValueError, match=rf"{attack.__name__} needs h - ddof >= 1 honest updates .*; got h=1, ddof=1"):
        attack()(matrix([[1.0, 2.0]]), f=1)
    for alone in (attack(ddof=0), attack(dev="unit"), attack(dev="sign")):
        close(alone(matrix([[1.0, 2.0]]), f=1), [[1.0, 2.0]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_large_common_part_does_not_matter(dtype):
    """The shift along sigma depends on differences alone. float32 rows at 1e3 hold them to four digits."""
    rows = normal(8, 50, seed=3) * 1e-2
    moved = (rows + 1e3).to(dtype)
    for attack in (MinMax(), MinSum()):
        gammas = []
        for honest in (moved.double() - 1e3, moved):
            attack(honest, f=1)
            gammas.append(attack.last_info["gamma"])
        assert gammas[1] == pytest.approx(gammas[0], rel=1e-6)


def test_many_columns_are_read_block_by_block():
    d = COLUMNS + 3
    honest = normal(4, d)
    for attack, widest in [
        (MinMax(dev="sign"), lambda c: (torch.cdist(honest, honest).max(), (honest - c).norm(dim=1).max())),
        (MinSum(dev="sign"), lambda c: (torch.cdist(honest, honest).square().sum(1).max(), (honest - c).square().sum())),
    ]:
        bound, reached = widest(attack(honest, f=1))
        assert float(reached) == pytest.approx(float(bound), rel=1e-6)


def test_the_two_bounds_differ_by_a_factor_of_four():
    assert gamma_of(MinSum(), X5H) / gamma_of(MinSum(bound="min"), X5H) == pytest.approx(math.sqrt(17), rel=1e-9)
