"""The seed tree: an address decides a draw, and nothing else does."""

import hashlib
import itertools
import random

import numpy as np
import pytest
import torch

from fedagg import rng


def by_hand(address):
    digest = hashlib.blake2b(address.encode("ascii"), digest_size=8).digest()
    number = sum(byte * 256**place for place, byte in enumerate(digest))
    return number // 2


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ((0, "batches"), "0/batches"),
        ((0, "batches", 3, 17), "0/batches/3/17"),
        ((123456789, "sample", 1), "123456789/sample/1"),
        ((-1, "attack", 0, 2), "-1/attack/0/2"),
    ],
)
def test_an_address_has_the_same_seed_for_ever(address, text):
    assert rng.derive(*address) == by_hand(text)
    assert 0 <= rng.derive(*address) < 2**63


def test_integers_of_any_kind_are_the_same_address():
    assert rng.derive(np.int64(3), "batches", np.int32(4), torch.tensor(5)) == rng.derive(3, "batches", 4, 5)


def test_different_addresses_have_different_seeds():
    addresses = [
        (seed, purpose, *path)
        for seed in (0, 1, 12)
        for purpose in ("batches", "sample")
        for path in itertools.chain([()], itertools.product(range(13)), itertools.product(range(13), range(13)))
    ]
    assert len({rng.derive(*address) for address in addresses}) == len(addresses)


def test_draws_at_neighbouring_addresses_are_uncorrelated():
    """Correlations of 100,000 independent draws have a standard error of 0.0032; a bound of six of them, for ten pairs."""
    draws = torch.stack([torch.randn(100_000, generator=rng.generator(0, "batches", 1, client)) for client in range(5)])
    off_diagonal = torch.corrcoef(draws) - torch.eye(5)
    assert off_diagonal.abs().max() < 6 / 100_000**0.5


def test_the_same_address_gives_the_same_draws():
    for make, draw in (
        (rng.generator, lambda source: torch.randn(4, generator=source).tolist()),
        (rng.numpy_generator, lambda source: source.random(4).tolist()),
    ):
        assert draw(make(3, "sample", 2)) == draw(make(3, "sample", 2))
        assert draw(make(3, "sample", 2)) != draw(make(3, "sample", 3))


def global_states():
    numpy = np.random.get_state()
    return random.getstate(), [np.asarray(part).tolist() for part in numpy], torch.get_rng_state().tolist()


def global_draws():
    return random.random(), np.random.random(), torch.rand(3).tolist()


def test_generators_leave_the_global_ones_alone():
    before = global_states()
    rng.generator(0, "batches", 1)
    rng.numpy_generator(0, "batches", 1)
    assert global_states() == before


def test_seeded_globals_seed_and_restore():
    before = global_states()
    drawn = []
    for path in ((4,), (4,), (5,)):
        with rng.seeded_globals(0, "flower", *path):
            drawn.append(global_draws())
    assert drawn[0] == drawn[1]
    assert all(a != b for a, b in zip(drawn[0], drawn[2], strict=True))  # each of the three generators is seeded
    assert global_states() == before


def test_seeded_globals_restore_after_an_error():
    def draw_and_fail():
        with rng.seeded_globals(0, "flower"):
            global_draws()
            raise KeyError

    before = global_states()
    with pytest.raises(KeyError):
        draw_and_fail()
    assert global_states() == before


class Plugin:
    def __init__(self, generator=None):
        self.generator = generator


def test_a_generator_is_lent_and_taken_back():
    plugin, source = Plugin(), rng.generator(0, "rule", 1)
    with rng.lend_generator(plugin, source):
        assert plugin.generator is source
    assert plugin.generator is None
    with pytest.raises(KeyError), rng.lend_generator(plugin, source):
        raise KeyError
    assert plugin.generator is None


def test_a_generator_of_its_own_is_kept():
    own = torch.Generator()
    plugin = Plugin(own)
    with rng.lend_generator(plugin, rng.generator(0, "rule", 1)):
        assert plugin.generator is own
    assert plugin.generator is own


def test_a_plugin_that_is_not_random_gets_nothing():
    plugin = object()
    with rng.lend_generator(plugin, rng.generator(0, "rule", 1)):
        assert not hasattr(plugin, "generator")


def test_a_purpose_cannot_pose_as_a_path():
    with pytest.raises(ValueError, match="no slash; got 'a/1'"):
        rng.derive(0, "a/1")
