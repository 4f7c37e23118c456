"""What every attack promises, whatever it does."""

import copy
import random
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedagg import attacks
from fedagg.attacks import ALIE, IPM, GaussianNoise, LabelFlip, NaNAttack, SignFlip

NEEDS_OWN = [SignFlip(of="own"), GaussianNoise(std=0.5, add=True), LabelFlip(num_classes=3)]
ATTACKS = [
    SignFlip(),
    SignFlip(scale=2.5),
    GaussianNoise(),
    GaussianNoise(std=0.1, mean=2.0),
    ALIE(),
    ALIE(z=1.5, sign=-1, formula="n", ddof=0),
    IPM(),
    IPM(epsilon=100.0),
    NaNAttack(),
    NaNAttack(kind="inf"),
    NaNAttack(kind="huge"),
    *NEEDS_OWN,
]
EQUAL_ROWS = [attack for attack in ATTACKS if attack not in NEEDS_OWN and not attack.random]
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
every_attack = pytest.mark.parametrize("attack", ATTACKS, ids=str)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def everything_known(f, d, dtype=torch.float64, device="cpu"):
    context = {
        "own": normal(f, d, seed=1, dtype=dtype).to(device),
        "last_delta": normal(d, seed=2, dtype=dtype).to(device),
        "params": normal(d, seed=3, dtype=dtype).to(device),
    }
    return {**context, "round": 4, "client_ids": [2, 5, 6, 8, 11, 12]}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
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
    torch.testing.assert_close(attack(honest.flip(0), f=2), attack(honest, f=2), rtol=1e-12, atol=1e-12, equal_nan=True)


@every_attack
def test_the_same_call_gives_the_same_rows(attack):
    honest, context = normal(6, 5), everything_known(2, 5)
    first = attack(honest, 2, **context)
    for other in (attack, replace(attack), copy.deepcopy(attack), eval(repr(attack), {**vars(attacks)})):
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
        with_own, without = attack(honest, 2, own=normal(2, 5)), attack(honest, 2)
        torch.testing.assert_close(with_own, without, rtol=0, atol=0, equal_nan=True)


@every_attack
def test_an_attack_that_knows_only_its_own_looks_at_nothing_else(attack):
    seen = [attack(honest, 2, own=normal(2, 5, seed=1)) for honest in (normal(6, 5, seed=2), normal(4, 5, seed=3))]
    if attack.knowledge == "own":
        torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=0, equal_nan=True)
    else:
        assert not torch.equal(seen[0], seen[1])


@every_attack
def test_a_misspelt_keyword_is_no_keyword(attack):
    with pytest.raises(TypeError, match="onw"):
        attack(normal(6, 5), 2, onw=normal(2, 5))


def test_knowledge():
    declared = {cls: cls.knowledge for cls in (SignFlip, GaussianNoise, LabelFlip, ALIE, IPM, NaNAttack)}
    assert declared == {
        SignFlip: "honest",
        GaussianNoise: "own",
        LabelFlip: "own",
        ALIE: "honest",
        IPM: "honest",
        NaNAttack: "own",
    }
    assert [a.knowledge for a in (SignFlip(), SignFlip(of="own"), copy.deepcopy(SignFlip(of="own")))] == [
        "honest",
        "own",
        "own",
    ]
    assert SignFlip.knowledge == "honest"  # an instance that knows less does not change the class
    assert [cls.random for cls in (SignFlip, GaussianNoise, LabelFlip, ALIE, IPM, NaNAttack)] == [
        False,
        True,
        False,
        False,
        False,
        False,
    ]


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
        if hasattr(attack, "poison"):
            attack.poison(torch.zeros(2, 4), torch.tensor([0, 1]))


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
    ],
)
def test_impossible_settings(build, message):
    with pytest.raises(ValueError) as caught:
        build()
    assert message in str(caught.value)
