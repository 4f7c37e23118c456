"""What every attack promises, whatever it does."""

import copy
import inspect
import random
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedagg import attacks
from fedagg.attacks import (
    ALIE,
    DBA,
    IPM,
    ROP,
    Backdoor,
    FangKrum,
    FangTrimmedMean,
    FreeRider,
    GaussianNoise,
    LabelFlip,
    Mimic,
    MinMax,
    MinSum,
    ModelReplacement,
    NaNAttack,
    Neurotoxin,
    OptimalALIE,
    OptimalIPM,
    Ranked,
    SignFlip,
)

from .inputs import normal

NEEDS_OWN = [
    SignFlip(of="own"),
    GaussianNoise(std=0.5, add=True),
    LabelFlip(num_classes=3),
    Backdoor(),
    DBA(gamma=3.0),
    ModelReplacement(),
    ModelReplacement(gamma=2.0, backdoor=Backdoor(target=1)),
    Neurotoxin(),
    Neurotoxin(ratio=0.3, backdoor=DBA()),
]
EQUAL_ROWS = [
    SignFlip(),
    SignFlip(scale=2.5),
    ALIE(),
    ALIE(z=1.5, sign=-1, formula="n", ddof=0),
    IPM(),
    IPM(epsilon=100.0),
    NaNAttack(),
    NaNAttack(kind="inf"),
    NaNAttack(kind="huge"),
    MinMax(),
    MinMax(dev="unit", search="official"),
    MinSum(),
    MinSum(dev="sign", bound="min", ddof=0),
    FangKrum(),
    OptimalALIE(),
    OptimalALIE(search="byzfl", sign=-1, ddof=0),
    OptimalIPM(),
    OptimalIPM(search="byzfl"),
    ROP(),
    ROP(z=1.0, lam=0.5, pi=0.5, angle=180.0),
    FreeRider(),
    FreeRider(mode="last"),
    Mimic(warmup=2),
]
ATTACKS = [
    *EQUAL_ROWS,
    GaussianNoise(),
    GaussianNoise(std=0.1, mean=2.0),
    FangTrimmedMean(),
    FreeRider(mode="last", std=0.5),
    Mimic(index=1),
    *NEEDS_OWN,
]
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
every_attack = pytest.mark.parametrize("attack", ATTACKS, ids=str)


@pytest.fixture(autouse=True)
def nothing_is_remembered():
    for attack in ATTACKS:
        if hasattr(attack, "reset"):
            attack.reset()


def everything_known(f, d, dtype=torch.float64, device="cpu"):
    context = {
        "own": normal(f, d, seed=1, dtype=dtype).to(device),
        "last_delta": normal(d, seed=2, dtype=dtype).to(device),
        "params": normal(d, seed=3, dtype=dtype).to(device),
    }
    return {**context, "round": 4, "client_ids": [2, 5, 6, 8, 11, 12]}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("f", [0, 1, 3])
@every_attack
def test_shape_dtype_and_device(attack, f, dtype, device):
    honest = normal(6, 5, dtype=dtype).to(device)
    rows = attack(honest, f, **everything_known(f, 5, dtype, device))
    assert (rows.shape, rows.dtype, rows.device.type) == ((f, 5), dtype, device)


@every_attack
def test_nobody_to_attack_needs_nothing(attack):
    assert attack(normal(6, 5), f=0).shape == (0, 5)


@every_attack
def test_inputs_stay_as_they_are(attack):
    honest, context = normal(6, 5), everything_known(2, 5)
    before = copy.deepcopy((honest, context))
    attack(honest, 2, **context).fill_(7.0)  # nor is the result a view of them
    assert torch.equal(honest, before[0])
    for name in ("own", "last_delta", "params"):
        assert torch.equal(context[name], before[1][name])


@pytest.mark.parametrize("attack", EQUAL_ROWS, ids=str)
def test_rows_are_equal_and_apart_in_memory(attack):
    rows = attack(normal(6, 5), f=3)
    for row in rows[1:]:
        torch.testing.assert_close(row, rows[0], rtol=0, atol=0, equal_nan=True)
    rows[0] = 7.0
    assert not (rows[1:] == 7.0).any()


@pytest.mark.parametrize("attack", EQUAL_ROWS, ids=str)
def test_the_order_of_honest_rows_does_not_matter(attack):
    honest = normal(6, 5)
    flipped = copy.deepcopy(attack)(honest.flip(0), f=2)
    torch.testing.assert_close(flipped, attack(honest, f=2), rtol=1e-12, atol=1e-12, equal_nan=True)


@every_attack
def test_the_same_call_gives_the_same_rows(attack):
    honest, context = normal(6, 5), everything_known(2, 5)
    others = [replace(attack), copy.deepcopy(attack), eval(repr(attack), {**vars(attacks)})]
    first = attack(honest, 2, **context)
    for other in others if hasattr(attack, "reset") else [attack, *others]:
        torch.testing.assert_close(other(honest, 2, **context), first, rtol=0, atol=0, equal_nan=True)


@every_attack
def test_impossible_calls(attack):
    with pytest.raises(ValueError, match="f >= 0 rows; got f=-1"):
        attack(normal(6, 5), f=-1)
    with pytest.raises(ValueError, match=r"h >= 1, d\]; got \[0, 5\]"):
        attack(normal(0, 5), f=2, **everything_known(2, 5))


@pytest.mark.parametrize("attack", NEEDS_OWN, ids=str)
def test_what_is_needed_and_missing_is_named(attack):
    name = type(attack).__name__
    with pytest.raises(ValueError, match=rf"{name} needs own= of shape \[2, 5\].*got none"):
        attack(normal(6, 5), f=2)
    with pytest.raises(ValueError, match=rf"{name} needs own= of shape \[2, 5\].*got shape \[3, 5\]"):
        attack(normal(6, 5), f=2, own=normal(3, 5))


@every_attack
def test_own_has_no_effect_where_it_is_not_needed(attack):
    honest = normal(6, 5)
    if attack in NEEDS_OWN:
        assert not torch.equal(attack(honest, 2, own=normal(2, 5, seed=8)), attack(honest, 2, own=normal(2, 5, seed=9)))
    else:
        with_own, without = copy.deepcopy(attack)(honest, 2, own=normal(2, 5)), attack(honest, 2)
        torch.testing.assert_close(with_own, without, rtol=0, atol=0, equal_nan=True)


@every_attack
def test_an_attack_looks_at_what_it_says_and_at_nothing_else(attack):
    others = 6 if attack == ModelReplacement() else 5  # it knows how many they are
    contexts = [everything_known(2, 5), everything_known(2, 5)]
    contexts[1]["params"] = normal(5, seed=7)
    if attack.knowledge != "history":
        contexts[1]["last_delta"] = normal(5, seed=8)
    seen = [
        copy.deepcopy(attack)(honest, 2, **{**context, "client_ids": range(len(honest))})
        for honest, context in zip((normal(6, 5, seed=2), normal(others, 5, seed=3)), contexts, strict=True)
    ]
    if attack.knowledge == "own":
        torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=0, equal_nan=True)
    elif attack.knowledge != "history":
        assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("attack", [a for a in ATTACKS if a.knowledge == "history"], ids=str)
def test_history_matters(attack):
    context = everything_known(2, 20)
    first_round = attack(normal(6, 20), 2, **{**context, "last_delta": None})
    later = [attack(normal(6, 20), 2, **{**context, "last_delta": normal(20, seed=seed)}) for seed in (8, 9)]
    assert not torch.equal(first_round, later[0])
    assert not torch.equal(later[0], later[1])


@every_attack
def test_a_misspelt_keyword_is_no_keyword(attack):
    with pytest.raises(TypeError, match="onw"):
        attack(normal(6, 5), 2, onw=normal(2, 5))


def test_knowledge():
    methods = [getattr(attacks, name) for name in attacks.__all__]
    sees = {level: {cls for cls in methods if cls.knowledge == level} for level in ("aggregator", "history", "honest", "own")}
    assert sees == {
        "aggregator": {FangKrum, OptimalALIE, OptimalIPM},
        "history": {FreeRider, Neurotoxin, ROP},
        "honest": {ALIE, IPM, FangTrimmedMean, Mimic, MinMax, MinSum, Ranked, SignFlip},
        "own": {DBA, Backdoor, GaussianNoise, LabelFlip, ModelReplacement, NaNAttack},
    }
    assert [a.knowledge for a in (SignFlip(), SignFlip(of="own"), copy.deepcopy(SignFlip(of="own")))] == [
        "honest",
        "own",
        "own",
    ]
    assert [a.knowledge for a in (FreeRider(mode="last"), FreeRider(), FreeRider(std=0.1))] == ["history", "own", "own"]
    assert SignFlip.knowledge == "honest"  # an instance that knows less does not change the class
    assert {cls for cls in methods if cls.random} == {DBA, Backdoor, FangTrimmedMean, FreeRider, GaussianNoise, Mimic}
    assert {cls for cls in methods if cls.distributed} == {DBA}


def test_every_attack_is_tested_here():
    """Those on rankings have a file of their own."""
    others = {name for name in attacks.__all__ if "updates" not in getattr(attacks, name).payloads}
    assert {type(attack).__name__ for attack in ATTACKS} == set(attacks.__all__) - others


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("MinMax", "dev='std', ddof=1, search='exact'"),
        ("MinSum", "dev='std', bound='max', ddof=1, search='exact'"),
        ("Mimic", "index=0, warmup=0"),
        ("FangTrimmedMean", "b=2.0, generator=None"),
        ("FangKrum", "min_lambda=1e-05"),
        ("OptimalALIE", "aggregator=None, search='grid', sign=1, ddof=1"),
        ("OptimalIPM", "aggregator=None, search='grid'"),
        ("ROP", "z=None, lam=0.9, pi=1.0, angle=270.0"),
        ("FreeRider", "mode='zero', std=0.0, generator=None"),
        ("Backdoor", "target=0, fraction=0.3, size=3, value=1.0, generator=None"),
        ("ModelReplacement", "gamma=None, backdoor=None"),
        ("DBA", "target=2, fraction=0.078125, value=1.0, gamma=1.0, generator=None"),
        ("Neurotoxin", "ratio=0.5, backdoor=None"),
    ],
)
def test_arguments(name, wanted):
    parameters = inspect.signature(getattr(attacks, name)).parameters.values()
    assert ", ".join(f"{p.name}={p.default!r}" for p in parameters) == wanted


@every_attack
def test_repr_pastes_back(attack):
    assert eval(repr(attack), {**vars(attacks)}) == attack
    assert "generator" not in repr(attack)
    assert "generator" not in str(attack)


@pytest.mark.parametrize(
    ("attack", "tag"),
    [
        (SignFlip(), "SignFlip"),
        (SignFlip(of="own"), "SignFlip-of=own"),
        (ALIE(z=1.5), "ALIE-z=1.5"),
        (GaussianNoise(std=2.0, generator=torch.Generator()), "GaussianNoise-std=2.0"),
        (LabelFlip(mapping=(3, 5)), "LabelFlip-mapping=(3, 5)"),
        (NaNAttack(kind="huge"), "NaNAttack-kind=huge"),
        (OptimalIPM(aggregator=lambda rows: rows[0]), "OptimalIPM"),
        (Neurotoxin(ratio=0.1, backdoor=Backdoor(target=7)), "Neurotoxin-ratio=0.1-backdoor=Backdoor-target=7"),
    ],
)
def test_the_tag_is_short(attack, tag):
    assert str(attack) == tag


@contextmanager
def global_generators_untouched():
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    assert random.getstate() == before[0]
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), before[1], strict=True))
    assert torch.equal(torch.get_rng_state(), before[2])


@every_attack
def test_global_generators_untouched(attack):
    with global_generators_untouched():
        attack(normal(6, 5), 2, **everything_known(2, 5))
        if getattr(attack, "poison", None) is not None:
            attack.poison(torch.zeros(20, 1, 8, 8), torch.zeros(20, dtype=torch.int64))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SignFlip(scale=float("nan")), "finite scale; got scale=nan"),
        (lambda: SignFlip(of="median"), "of in ['mean', 'own']; got 'median'"),
        (lambda: GaussianNoise(std=-1.0), "std >= 0 and a finite mean; got std=-1.0"),
        (lambda: GaussianNoise(mean=float("inf")), "mean=inf"),
        (lambda: ALIE(z=float("inf")), "finite z, or None to compute it; got z=inf"),
        (lambda: ALIE(sign=0), "sign 1 or -1; got sign=0"),
        (lambda: ALIE(formula="cdf"), "formula in ['paper', 'n']; got 'cdf'"),
        (lambda: ALIE(ddof=-1), "ddof >= 0; got ddof=-1"),
        (lambda: IPM(epsilon=float("nan")), "finite epsilon; got epsilon=nan"),
        (lambda: NaNAttack(kind="zero"), "kind in ['nan', 'inf', 'huge']; got 'zero'"),
        (lambda: LabelFlip(num_classes=1), "num_classes >= 2; got num_classes=1"),
        (lambda: LabelFlip(mapping="random"), "got 'random'"),
        (lambda: LabelFlip(num_classes=3, mapping=(0, 3)), "different classes of 0 .. 2; got (0, 3)"),
        (lambda: LabelFlip(mapping=(4, 4)), "got (4, 4)"),
        (lambda: LabelFlip(mapping=(1, 2, 3)), "got (1, 2, 3)"),
        (lambda: MinMax(dev="mean"), "MinMax needs dev in ['std', 'unit', 'sign']; got 'mean'"),
        (lambda: MinSum(ddof=-1), "MinSum needs ddof >= 0; got ddof=-1"),
        (lambda: MinMax(search="grid"), "search in ['exact', 'official']; got 'grid'"),
        (lambda: MinSum(bound="mean"), "bound in ['max', 'min']; got 'mean'"),
        (lambda: Mimic(index=-1), "index >= 0 and warmup >= 0; got index=-1, warmup=0"),
        (lambda: Mimic(warmup=-2), "warmup=-2"),
        (lambda: FangTrimmedMean(b=0.5), "finite b >= 1; got b=0.5"),
        (lambda: FangKrum(min_lambda=0.0), "finite min_lambda > 0; got min_lambda=0.0"),
        (lambda: OptimalALIE(aggregator=3), "OptimalALIE needs an aggregator [n, d] -> [d], or None; got 3"),
        (lambda: OptimalIPM(search="exact"), "OptimalIPM needs search in ['grid', 'byzfl']; got 'exact'"),
        (lambda: OptimalALIE(sign=2), "sign 1 or -1; got sign=2"),
        (lambda: OptimalALIE(ddof=-1), "ddof >= 0; got ddof=-1"),
        (lambda: ROP(z=float("nan")), "finite z, or None to compute it; got z=nan"),
        (lambda: ROP(lam=1.5), "lam and pi in [0, 1]; got lam=1.5, pi=1.0"),
        (lambda: ROP(angle=float("inf")), "finite angle; got angle=inf"),
        (lambda: FreeRider(mode="lazy"), "mode in ['zero', 'last']; got 'lazy'"),
        (lambda: FreeRider(std=-0.1), "finite std >= 0; got std=-0.1"),
        (lambda: Backdoor(fraction=1.1), "Backdoor needs fraction in [0, 1]; got fraction=1.1"),
        (lambda: Backdoor(size=0), "size >= 1 and a finite value; got size=0, value=1.0"),
        (lambda: Backdoor(target=-1), "class target >= 0; got target=-1"),
        (lambda: DBA(fraction=-0.1), "DBA needs fraction in [0, 1]; got fraction=-0.1"),
        (lambda: DBA(gamma=float("inf")), "finite value and gamma; got value=1.0, gamma=inf"),
        (lambda: ModelReplacement(gamma=float("nan")), "finite gamma, or None for n/f; got gamma=nan"),
        (lambda: ModelReplacement(backdoor=IPM()), "a backdoor with poison(x, y), or None; got IPM(epsilon=0.1)"),
        (lambda: Neurotoxin(ratio=2.0), "ratio in [0, 1]; got ratio=2.0"),
    ],
)
def test_impossible_settings(build, message):
    with pytest.raises(ValueError) as caught:
        build()
    assert message in str(caught.value)
