"""Rules that cluster clients: which are kept, how they are clipped, noise, windows and fallbacks."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from strategies import FLAME, SignGuard

from . import reference_reputation as slow
from .checks import double, refuses_what_is_no_update, same, seeded
from .test_against_reference import normal_rows

often = settings(max_examples=80, deadline=None, derandomize=True)

# FLAME


@often
@given(n=st.integers(3, 12), d=st.integers(1, 6), shift=st.floats(0, 2), seed=st.integers(0, 10_000))
def test_flame(n, d, shift, seed):
    rows = [[x + shift for x in row] for row in normal_rows(n, d, seed)]
    rule = FLAME(lam=0)
    kept, wanted = slow.flame(rows)
    same(rule(double(rows)), wanted)
    assert rule.last_info["selected"].tolist() == kept


def test_flame_keeps_the_majority_and_clips_it():
    rows = [[1.0, 0.0], [1.0, 0.1], [4.0, 0.0], [1.0, -0.1], [-9.0, 9.0]]
    rule = FLAME(lam=0)
    limit = 1.01**0.5  # the median of 1, 1.005, 4, 1.005, 12.7
    same(rule(double(rows)), [(1 + 1 + limit + 1) / 4, 0.0])
    assert rule.last_info["selected"].tolist() == [0, 1, 2, 3]
    assert rule.last_info["clipped"].tolist() == [False, False, True, False, True]


def test_flame_noise_has_the_size_it_should_and_the_draw_of_its_generator():
    updates = torch.ones(5, 20_000, dtype=torch.float64)
    median = 20_000**0.5
    noise = FLAME(lam=0.1)(updates) - 1
    assert abs(float(noise.std()) / (0.1 * median) - 1) < 0.02  # four standard deviations of the estimate
    assert abs(float(noise.mean())) < 0.1 * median * 4 / median
    assert torch.equal(FLAME(lam=0.1)(updates) - 1, noise)
    assert not torch.equal(FLAME(lam=0.1, generator=seeded(1))(updates) - 1, noise)
    source = seeded(1)
    before = source.get_state()
    FLAME(lam=0.1, generator=source).client_weights(updates)
    assert torch.equal(source.get_state(), before)


def test_equal_rows_and_a_reversed_minority():
    """At distance 0 of each other, where HDBSCAN by itself would keep everybody."""
    rows = torch.tensor([[2.0, 1.0, 1.0]] * 4 + [[-2.0, -1.0, -1.0]] * 3)
    rule = FLAME(lam=0)
    torch.testing.assert_close(rule(rows), rows[0])
    assert rule.last_info["selected"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_directions_that_differ_by_rounding_are_one(dtype):
    row = torch.randn(50_000, generator=seeded(0), dtype=dtype)
    lengths = torch.cat([torch.linspace(1, 3, 27), -torch.linspace(1, 3, 23)]).to(dtype)
    rule = FLAME(lam=0)
    rule.client_weights(lengths[:, None] * row)
    assert rule.last_info["selected"].tolist() == list(range(27))


# SignGuard


@often
@given(n=st.integers(2, 10), d=st.integers(1, 40), shift=st.floats(0, 1), seed=st.integers(0, 10_000))
def test_sign_guard(n, d, shift, seed):
    rows = [[0.0 if abs(x) < 0.2 else x + shift for x in row] for row in normal_rows(n, d, seed)]
    rows[-1] = [50 * x for x in rows[-1]]
    features = slow.sign_features(rows, 0, d)
    variants = [slow.mean_shift_labels(features, wider, turn) for wider in (1 - 1e-9, 1, 1 + 1e-9) for turn in (1, -1)]
    assume(all(variant == variants[0] for variant in variants))  # else rounding decides
    rule = SignGuard(fraction=1)
    kept, wanted = slow.sign_guard(rows, 0, d)
    same(rule(double(rows)), wanted)
    same(rule.last_info["features"], features)
    assert rule.last_info["selected"].tolist() == kept


def test_the_window_is_one_piece_of_the_row_and_moves():
    """Each row is positive in one quarter of its own: the shares tell which quarter was looked at."""
    d = 400
    updates = torch.full((4, d), -1.0)
    for i in range(4):
        updates[i, 100 * i : 100 * (i + 1)] = 1.0
    seen = set()
    for seed in range(40):
        rule = SignGuard(fraction=0.25, generator=seeded(seed))
        rule.client_weights(updates)
        positive = rule.last_info["features"][:, 0]
        touched = [i for i in range(4) if positive[i] > 0]
        assert touched == list(range(touched[0], touched[0] + len(touched)))
        assert 1 <= len(touched) <= 2
        seen.update(touched)
    assert seen == {0, 1, 2, 3}
    assert SignGuard(fraction=0.25)(updates).tolist() == SignGuard(fraction=0.25)(updates).tolist()


def test_wide_windows_are_counted_block_by_block():
    rows = normal_rows(3, 20_000, seed=5)
    rule = SignGuard(fraction=1)
    rule.client_weights(double(rows))
    same(rule.last_info["features"], slow.sign_features(rows, 0, 20_000))


def test_length_alone_keeps_a_row_out():
    rows = double([[1.0, 1.0], [2.0, 1.0], [1.0, 2.0], [0.1, 0.1], [5.0, 5.0]])  # the median norm is that of (1, 2)
    rule = SignGuard(fraction=1)
    rule(rows)
    assert rule.last_info["selected"].tolist() == [0, 1, 2]
    rule = SignGuard(fraction=1, low=0, high=1e9)
    rule(rows)
    assert rule.last_info["selected"].tolist() == [0, 1, 2, 3, 4]


def test_where_the_filters_agree_on_nobody_length_decides():
    """Five rows with signs +++ are the biggest cluster, three too long and two too short; the others have usual lengths."""
    liars = [[100.0] * 3] * 3 + [[0.01] * 3] * 2
    others = [[4.0, -3.0, -3.0], [-3.0, 4.0, -3.0], [3.0, 3.0, -4.0], [3.0, -4.0, 3.0]]
    rule = SignGuard(fraction=1)
    same(rule(double(liars + others)), [7 / 4, 0.0, -7 / 4])
    assert rule.last_info["selected"].tolist() == [5, 6, 7, 8]
    assert "those of usual length" in rule.last_info["fallback"]
    assert rule(torch.zeros(4, 3)).tolist() == [0, 0, 0]
    assert "the result is zero" in rule.last_info["fallback"]
    rule(double(others))
    assert "fallback" not in rule.last_info


# Settings


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FLAME()(torch.ones(2, 3)), "FLAME needs n >= 3 (Nguyen et al. 2022); got n=2"),
        (lambda: FLAME(lam=-1), "lam >= 0; got lam=-1"),
        (lambda: SignGuard()(torch.ones(1, 3)), "SignGuard needs n >= 2 (Xu et al. 2022); got n=1"),
        (lambda: SignGuard(fraction=0), "0 < fraction <= 1; got low=0.1, high=3.0, fraction=0"),
        (lambda: SignGuard(low=3.0), "0 <= low < high"),
    ],
)
def test_bounds(make, message):
    with pytest.raises(ValueError) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize("rule", [FLAME(), SignGuard()], ids=str)
def test_rows_that_are_no_updates_are_refused_by_number(rule):
    refuses_what_is_no_update(rule)


def test_tags():
    assert [str(rule) for rule in (FLAME(lam=0), SignGuard(fraction=1))] == ["FLAME-lam=0", "SignGuard-fraction=1"]
    assert repr(FLAME(generator=seeded(0))) == "FLAME(lam=0.001)"
