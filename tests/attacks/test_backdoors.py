"""Backdoors: which pixels and labels change, and what carries them."""

import copy
import pickle

import pytest
import torch

from fedagg import ConfigError, rng
from fedagg.attacks import DBA, Backdoor, LabelFlip, ModelReplacement, Neurotoxin, SignFlip
from fedagg.experiment import build
from fedagg.hydra_app import compose

from .inputs import normal

OFFICIAL = [(0, 0), (0, 9), (4, 0), (4, 9)]  # where the strips of six pixels begin


def examples(n=64, shape=(3, 32, 32), dtype=torch.float32):
    return normal(n, *shape).to(dtype), torch.arange(n) % 10


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (28, 28), (3, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
def test_the_square_is_in_the_corner_of_every_channel(shape, dtype):
    x = torch.full((5, *shape), 7, dtype=dtype)
    stamped = Backdoor(size=3, value=2.0).trigger(x)
    for image in stamped.reshape(-1, *shape[-2:]):
        for row in range(shape[-2]):
            for column in range(shape[-1]):
                inside = row >= shape[-2] - 3 and column >= shape[-1] - 3
                assert image[row, column] == (2 if inside else 7)
    assert (x == 7).all()


@pytest.mark.parametrize(
    ("n", "fraction", "count"), [(64, 0.3, 19), (64, 0.0, 0), (64, 1.0, 64), (100, 0.29, 29), (3, 0.3, 0)]
)
@pytest.mark.parametrize("label", [torch.int64, torch.uint8])
def test_a_share_of_the_examples_is_stamped_and_relabelled(n, fraction, count, label):
    x, y = examples(n, (1, 8, 8))
    y = y.to(label)
    before = x.clone(), y.clone()
    attack = Backdoor(target=11, fraction=fraction, value=9.0)
    x2, y2 = attack.poison(x, y)
    changed = (x2 != x).flatten(1).any(dim=1)
    assert int(changed.sum()) == count
    assert y2.dtype == label
    assert torch.equal(changed, y2 == 11)
    assert torch.equal(x2[changed], attack.trigger(x[changed]))
    assert torch.equal(y2[~changed], y[~changed])
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])
    x2.zero_()
    y2.zero_()
    assert torch.equal(x, before[0])


def test_which_examples_is_drawn():
    x, y = examples(200, (1, 8, 8))
    chosen = [
        (Backdoor(target=11, generator=g).poison(x, y)[1] == 11).nonzero().flatten().tolist()
        for g in (None, None, torch.Generator().manual_seed(0), torch.Generator().manual_seed(1))
    ]
    assert chosen[0] == chosen[1] == chosen[2] != chosen[3]
    assert chosen[0] == sorted(torch.randperm(200, generator=torch.Generator().manual_seed(0))[:60].tolist())


def pixels(stamped):
    """The set pixels of one channel, and whether every image and channel has the same ones."""
    first = stamped.reshape(-1, *stamped.shape[-2:])
    assert (first == first[0]).all()
    return {tuple(p) for p in first[0].nonzero().tolist()}


@pytest.mark.parametrize("shape", [(3, 32, 32), (28, 28), (1, 5, 15)])
def test_the_official_strips(shape):
    x = torch.zeros(4, *shape)
    strips = [{(row, column + i) for i in range(6)} for row, column in OFFICIAL]
    for attacker in range(9):
        assert pixels(DBA().trigger(x, attacker=attacker)) == strips[attacker % 4]
    assert pixels(DBA().trigger(x)) == set().union(*strips)
    assert set(DBA(value=0.25).trigger(x).unique().tolist()) == {0.0, 0.25}
    assert not x.any()


def test_strips_on_digits_of_8_x_8():
    """2/5 of 8 pixels are 3; the right ones end at the border."""
    x = torch.zeros(1, 1, 8, 8)
    wanted = [{(r, c) for c in cs} for r in (0, 4) for cs in ((0, 1, 2), (5, 6, 7))]
    assert [pixels(DBA().trigger(x, attacker=k)) for k in range(4)] == wanted


@pytest.mark.parametrize("width", range(3, 20))
@pytest.mark.parametrize("height", [2, 3, 5, 6])
def test_strips_never_overlap_or_fall_off(height, width):
    strips = [pixels(DBA().trigger(torch.zeros(1, height, width), attacker=k)) for k in range(4)]
    lengths = {len(strip) for strip in strips}
    assert len(lengths) == 1
    assert min(lengths) >= 1
    assert len(set().union(*strips)) == 4 * lengths.pop()


def test_each_attacker_poisons_with_its_strip_alone():
    x, y = examples()
    for attacker in range(4):
        attack = DBA(target=11, value=9.0)
        x2, y2 = attack.poison(x, y, attacker=attacker)
        chosen = y2 == 11
        assert int(chosen.sum()) == 5  # 5 of 64
        assert torch.equal(x2[chosen], attack.trigger(x[chosen], attacker=attacker))
        assert torch.equal(x2[~chosen], x[~chosen])


@pytest.mark.parametrize(
    ("attack", "shape", "needs"),
    [
        (Backdoor(size=4), (1, 3, 8), "at least 4 x 4 pixels"),
        (Backdoor(), (30,), r"images \[B, C, H, W\] or \[B, H, W\]"),
        (DBA(), (1, 1, 8), "at least 2 x 3 pixels"),
        (DBA(), (30,), "got shape"),
    ],
    ids=str,
)
def test_what_is_no_image(attack, shape, needs):
    with pytest.raises(ValueError, match=rf"{type(attack).__name__} needs images .*{needs}|{needs}"):
        attack.poison(*examples(8, shape))


def test_what_is_sent():
    own, honest = normal(2, 5), normal(6, 5)
    assert torch.equal(Backdoor()(honest, 2, own=own), own)
    assert torch.equal(DBA(gamma=100.0)(honest, 2, own=own), 100.0 * own)
    assert torch.equal(ModelReplacement()(honest, 2, own=own), 4.0 * own)  # n / f = 8 / 2
    assert torch.equal(ModelReplacement(gamma=-2.0)(honest, 2, own=own), -2.0 * own)


def test_the_mean_becomes_the_replaced_model():
    """Honest updates that add up to nothing, and equal own ones: the mean is the attackers' update."""
    honest, wanted = normal(6, 5), normal(5, seed=4)
    honest -= honest.mean(dim=0)
    rows = ModelReplacement()(honest, 3, own=wanted.expand(3, 5))
    torch.testing.assert_close(torch.cat([honest, rows]).mean(dim=0), wanted)


@pytest.mark.parametrize("carrier", [ModelReplacement, Neurotoxin])
@pytest.mark.parametrize("backdoor", [Backdoor(target=7, value=9.0), DBA(target=7, value=9.0)], ids=str)
def test_a_carrier_passes_the_backdoor_on(carrier, backdoor):
    x, y = examples()
    attack = carrier(backdoor=backdoor)
    for carried in (attack, copy.deepcopy(attack), pickle.loads(pickle.dumps(attack))):
        assert (carried.target, carried.random, carried.distributed) == (7, True, isinstance(backdoor, DBA))
        assert torch.equal(carried.trigger(x), backdoor.trigger(x))
        share = {"attacker": 3} if carried.distributed else {}
        for got, wanted in zip(carried.poison(x, y, **share), backdoor.poison(x, y, **share), strict=True):
            assert torch.equal(got, wanted)
    assert (carrier.random, carrier.distributed) == (False, False)


@pytest.mark.parametrize("carrier", [ModelReplacement, Neurotoxin])
def test_a_carrier_without_a_backdoor_leaves_data_alone(carrier):
    attack = carrier()
    assert (attack.poison, attack.trigger, attack.target, attack.random, attack.distributed) == (
        None,
        None,
        None,
        False,
        False,
    )
    with rng.lend_generator(attack, rng.generator(0, "attack", 1)):
        assert attack(normal(4, 3), 1, own=normal(1, 3)).shape == (1, 3)


@pytest.mark.parametrize("carrier", [ModelReplacement, Neurotoxin])
def test_a_carrier_of_flipped_labels_has_no_trigger(carrier):
    attack = carrier(backdoor=LabelFlip(num_classes=10))
    assert attack.poison(*examples())[1].tolist() == [9 - i % 10 for i in range(64)]
    assert (attack.trigger, attack.target, attack.random) == (None, None, False)
    with rng.lend_generator(attack, rng.generator(0, "attack", 1)):
        attack.poison(*examples())


@pytest.mark.parametrize("carrier", [ModelReplacement, Neurotoxin])
def test_a_lent_generator_reaches_the_backdoor(carrier):
    x, y = examples()
    attack = carrier(backdoor=Backdoor(target=11))
    drawn = []
    for address in (2, 2, 3):
        with rng.lend_generator(attack, rng.generator(5, "poison", address)):
            drawn.append(attack.poison(x, y)[1])
        assert attack.backdoor.generator is None
    alone = Backdoor(target=11, generator=rng.generator(5, "poison", 2)).poison(x, y)[1]
    assert torch.equal(drawn[0], alone)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_generator_of_ones_own_is_not_replaced():
    x, y = examples()
    attack = ModelReplacement(backdoor=Backdoor(target=11, generator=torch.Generator().manual_seed(3)))
    with rng.lend_generator(attack, rng.generator(5, "poison", 2)):
        drawn = attack.poison(x, y)[1]
    assert torch.equal(drawn, Backdoor(target=11, generator=torch.Generator().manual_seed(3)).poison(x, y)[1])
    assert attack.backdoor.generator is not None


def test_an_attack_without_data_is_no_backdoor():
    with pytest.raises(ValueError, match=r"Neurotoxin needs a backdoor with poison\(x, y\), or None; got SignFlip"):
        Neurotoxin(backdoor=SignFlip())
    with pytest.raises(ValueError, match="ModelReplacement needs a backdoor"):
        ModelReplacement(backdoor=Neurotoxin())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["attack=backdoor", "attack.method.target=12"],
            r"attack.method.target must be one of the 10 classes 0 \.\. 9 of digits; got 12",
        ),
        (["attack=dba", "attack.method.target=10"], r"attack\.method\.target must be one of .* 0 \.\. 9 of digits; got 10"),
        (
            ["attack=neurotoxin", "attack.method.backdoor.target=10"],
            r"attack\.method\.backdoor\.target must be one .*; got 10",
        ),
        (
            ["attack=label_flip", "attack.method.num_classes=12"],
            r"makes labels from 2 to 11, and digits has 10 classes, 0 \.\. 9;",
        ),
        (["attack=label_flip", "attack.method.num_classes=5"], r"needs labels in 0 \.\. 4; got labels from 0 to 9"),
    ],
)
def test_a_class_that_the_data_do_not_have_is_refused_at_the_start(overrides, message):
    with pytest.raises(ConfigError, match=message):
        build(compose([*overrides, "population=10", "attack.fraction=0.2", "model=logistic_regression"]))
