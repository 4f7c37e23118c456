"""Which rule has which property. Hypothesis picks shapes and values."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import Krum, Mean, Median, MultiKrum, TrimmedMean

from . import properties

F = 2
ALL = {"permutation", "translation", "scale", "orthogonal"}
BY_COLUMN = {"permutation", "translation", "scale"}
EXPECTED = {  # rule -> its invariances, and what else it promises
    Mean(): (ALL, {"associative", "coordinatewise", "uses_weights"}),
    Median(): (BY_COLUMN, {"coordinatewise", "robust", "hull"}),
    Median(even="lower"): (BY_COLUMN, {"coordinatewise", "robust", "hull"}),
    TrimmedMean(f=0): (BY_COLUMN, {"coordinatewise"}),
    TrimmedMean(f=F): (BY_COLUMN, {"coordinatewise", "robust", "hull"}),
    Krum(f=F): (ALL, {"robust"}),
    Krum(f=F, neighbours="byzfl"): (ALL, {"robust"}),
    Krum(f=F, power=1): (ALL, {"robust"}),
    Krum(f=F, power=4): (ALL, {"robust"}),
    MultiKrum(f=F): (ALL, {"robust"}),
    MultiKrum(f=F, m=1): (ALL, {"robust"}),
    MultiKrum(f=F, m=3, neighbours="byzfl", power=1): (ALL, {"robust"}),
}
RULES = list(EXPECTED)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
quickly = settings(max_examples=25, deadline=None, derandomize=True)


def having(promise):
    return pytest.mark.parametrize("rule", [rule for rule in RULES if promise in EXPECTED[rule][1]], ids=str)


every_rule = pytest.mark.parametrize("rule", RULES, ids=str)
picking = pytest.mark.parametrize("rule", [rule for rule in RULES if hasattr(rule, "client_weights")], ids=str)
weights_free = pytest.mark.parametrize("rule", [rule for rule in RULES if not rule.uses_weights], ids=str)


@st.composite
def matrices(draw, least_n=7, most_n=12):
    """Rows drawn from a normal distribution, off the origin. With d = 1 sums of unsquared distances would tie."""
    source = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    return (
        torch.randn(draw(st.integers(least_n, most_n)), draw(st.integers(2, 6)), generator=source, dtype=torch.float64) + 1.0
    )


@every_rule
def test_what_the_class_declares_is_what_is_expected(rule):
    invariances, promises = EXPECTED[rule]
    assert rule.invariances == invariances
    for flag in ("associative", "coordinatewise", "uses_weights"):
        assert getattr(rule, flag) == (flag in promises)
    assert not rule.random


@pytest.mark.parametrize("invariance", sorted(ALL))
@every_rule
def test_invariance(rule, invariance):
    holds = properties.INVARIANCES[invariance]
    if invariance in EXPECTED[rule][0]:

        @quickly
        @given(matrices())
        def check(updates):
            holds(rule, updates)

        check()
    elif rule == TrimmedMean(f=0):
        holds(rule, torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))  # then it is the mean
    else:
        with pytest.raises(AssertionError):
            holds(rule, torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))


@every_rule
@quickly
@given(updates=matrices())
def test_equal_rows_give_that_row(rule, updates):
    properties.equal_rows_give_that_row(rule, updates)


@having("hull")
@quickly
@given(
    honest=matrices(least_n=F + 1, most_n=9),
    bad=st.lists(st.sampled_from([0.0, 1.0, -1.0, 1e30, -1e30, 1e-30, 3.0]), min_size=12, max_size=12),
)
def test_inside_the_honest_hull(rule, honest, bad):
    byzantine = torch.tensor(bad, dtype=torch.float64).view(F, 6)[:, : honest.shape[1]]
    properties.inside_the_honest_hull(rule, honest, byzantine)


@having("robust")
@quickly
@given(honest=matrices(least_n=F + 3, most_n=9))
def test_bounded_while_f_rows_are_at_1e30(rule, honest):
    properties.bounded_under_attack(rule, honest, F)
    properties.bounded_under_attack(rule, honest.float(), F)


@pytest.mark.parametrize("rule", [Mean(), TrimmedMean(f=0)], ids=str)
def test_rules_that_tolerate_nobody_follow_one_row(rule):
    with pytest.raises(AssertionError):
        properties.bounded_under_attack(rule, torch.ones(6, 3, dtype=torch.float64), 1)


@every_rule
@quickly
@given(updates=matrices())
def test_inputs_untouched(rule, updates):
    properties.inputs_untouched(rule, updates)
    properties.inputs_untouched(rule, updates.T.contiguous().T)  # columns next to each other in memory
    properties.inputs_untouched(rule, updates[:, :1])


@pytest.mark.parametrize("device", DEVICES)
@every_rule
@quickly
@given(updates=matrices())
def test_dtype_and_device_kept(rule, device, updates):
    properties.dtype_and_device_kept(rule, updates, device)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@every_rule
def test_half_precision_is_kept_too(rule, dtype):
    updates = torch.randn(9, 5, generator=torch.Generator().manual_seed(1)).to(dtype)
    got = rule(updates)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), rule(updates.double()), rtol=2e-2, atol=2e-2)


@weights_free
@quickly
@given(updates=matrices())
def test_a_claim_of_a_billion_examples_changes_nothing(rule, updates):
    properties.weights_ignored(rule, updates)


@having("uses_weights")
def test_weights_count_where_a_rule_uses_them(rule):
    with pytest.raises(AssertionError):
        properties.weights_ignored(rule, torch.eye(7, dtype=torch.float64))


@picking
@quickly
@given(updates=matrices())
def test_client_weights_times_the_rows_is_the_result(rule, updates):
    properties.client_weights_agree(rule, updates)


@having("coordinatewise")
@quickly
@given(updates=matrices())
def test_columns_may_be_cut(rule, updates):
    properties.columns_may_be_cut(rule, updates)


@picking
def test_columns_may_not_be_cut_where_distances_count(rule):
    with pytest.raises(AssertionError):
        properties.columns_may_be_cut(rule, torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64))


@having("associative")
@quickly
@given(updates=matrices())
def test_rows_may_be_added_in_parts(rule, updates):
    properties.rows_may_be_added_in_parts(rule, updates)


@having("robust")
def test_non_finite_rows_are_not_used(rule):
    properties.non_finite_rows_are_not_used(rule, torch.randn(9, 3, generator=torch.Generator().manual_seed(0)).double())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@every_rule
def test_rows_of_nan_and_infinity_are_refused_by_number(rule, value):
    updates = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    updates[4, 1] = updates[7, 2] = value
    with pytest.raises(ValueError, match=rf"{type(rule).__name__} needs finite updates; rows \[4, 7\]"):
        rule(updates)


@every_rule
def test_repr_pastes_back(rule):
    properties.repr_pastes_back(rule)


@every_rule
def test_rules_are_values(rule):
    assert replace(rule) == rule
    with pytest.raises(AttributeError):
        rule.f = 5
    for state in ("state_dict", "load_state_dict", "reset"):
        assert not hasattr(rule, state)


@every_rule
def test_global_generators_untouched(rule):
    updates = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    with properties.global_generators_untouched():
        rule(updates)


@pytest.mark.parametrize(
    ("rule", "tag"),
    [
        (Mean(), "Mean"),
        (Median(), "Median"),
        (Median(even="lower"), "Median-even=lower"),
        (TrimmedMean(f=2), "TrimmedMean-2"),
        (Krum(f=2), "Krum-2"),
        (Krum(f=2, neighbours="byzfl"), "Krum-2-neighbours=byzfl"),
        (MultiKrum(f=1, m=3), "MultiKrum-1-m=3"),
    ],
)
def test_the_tag_is_short(rule, tag):
    assert str(rule) == tag
