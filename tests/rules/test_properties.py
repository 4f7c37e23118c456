"""Which rule declares what, and what ``fedagg.testing`` does not try: rules without f under attack, near rows, tags."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import (
    CAF,
    CGE,
    FLAME,
    GAS,
    MDA,
    SMEA,
    Bulyan,
    CenteredClip,
    DnC,
    FLTrust,
    GeometricMedian,
    Krum,
    MeaMed,
    Mean,
    Median,
    Medoid,
    MoNNA,
    MultiKrum,
    Phocas,
    RobustLearningRate,
    SignGuard,
    SignMajority,
    TrimmedMean,
)

from . import properties

F = 2
ALL = {"permutation", "translation", "scale", "orthogonal"}
BY_COLUMN = {"permutation", "translation", "scale"}
MOVED = {"translation", "scale", "orthogonal"}
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
    MeaMed(f=F): (BY_COLUMN, {"coordinatewise", "robust"}),
    Phocas(f=F): (BY_COLUMN, {"coordinatewise", "robust"}),
    GeometricMedian(): ({"permutation", "translation", "orthogonal"}, {"uses_weights", "robust"}),
    Medoid(): (ALL, {"robust"}),
    MDA(f=F): (MOVED, {"robust"}),
    MoNNA(f=F, reference=3): (MOVED, {"robust"}),
    Bulyan(f=1): ({"translation", "scale"}, {"robust"}),
    SMEA(f=F): (ALL, {"robust"}),
    CAF(f=F): (ALL, {"robust"}),
    CGE(f=F): ({"permutation", "scale", "orthogonal"}, {"robust"}),
    RobustLearningRate(theta=3): ({"permutation", "scale"}, {"coordinatewise", "uses_weights"}),
    DnC(f=F): (ALL, {"robust", "random"}),
    FLAME(lam=0): ({"permutation", "scale", "orthogonal"}, {"robust", "random"}),
    SignGuard(): ({"permutation", "scale"}, {"robust", "random"}),
}
RULES = list(EXPECTED)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
quickly = settings(max_examples=25, deadline=None, derandomize=True)


def having(promise):
    return pytest.mark.parametrize("rule", [rule for rule in RULES if promise in EXPECTED[rule][1]], ids=str)


every_rule = pytest.mark.parametrize("rule", RULES, ids=str)


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
    for flag in ("associative", "coordinatewise", "uses_weights", "random"):
        assert getattr(rule, flag) == (flag in promises)


@pytest.mark.parametrize(
    "rule",
    [CenteredClip(tau=1.0, L=3), SignMajority(), FLTrust(), GAS(f=F, rule=Median()), GAS(F, Krum(F), p=2)],
    ids=str,
)
@quickly
@given(honest=matrices(least_n=F + 5, most_n=9))
def test_bounded_by_what_they_say_while_f_rows_are_at_1e30(rule, honest):
    """GAS by honest rows, FLTrust by the root update, the others by constants: L steps of tau, and sqrt(d) for d signs."""
    d = honest.shape[1]
    root = honest.mean(dim=0)
    longest = {
        CenteredClip: 3.0,
        SignMajority: d**0.5,
        FLTrust: float(root.norm()),
        GAS: d**0.5 * float(honest.norm(dim=1).max()),
    }[type(rule)]
    if isinstance(rule, FLTrust):
        rule = FLTrust(root_update=root)
    for updates in properties.attacked(honest, F):
        assert torch.linalg.vector_norm(copy.deepcopy(rule)(updates)) <= longest * (1 + 1e-9)


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
def test_rules_are_values(rule):
    assert replace(rule) == rule
    with pytest.raises(AttributeError):
        rule.f = 5
    for state in ("state_dict", "load_state_dict", "reset"):
        assert not hasattr(rule, state)


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
