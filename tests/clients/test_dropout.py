"""Dropout from the seed tree: published numbers, shapes, shares of what is kept, independence of everything but the address.

Counts are compared with their binomial distribution at 4.9 standard deviations: a right generator fails such a check for one
seed in a million. The seeds are fixed.
"""

from __future__ import annotations

import copy
import math
from itertools import combinations, islice

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fedagg import Clients, LocalSGD, Population
from fedagg.clients.dropout import Noise, SeededDropout, mix, pass_keys, seed_dropout
from fedagg.params import Layout
from tests.clients.reference import splitmix64

SIGMAS = 4.9
# The first numbers of SplitMix64 after the seed 1234567, as published with the generator's test programs.
PUBLISHED = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]


def noise_at(seed: int, step: int = 0) -> Noise:
    noise = Noise(torch.device("cpu"))
    noise.begin_pass(pass_keys(torch.tensor(seed), step))
    return noise


def unsigned(numbers: Tensor) -> list[int]:
    return [number % 2**64 for number in numbers.flatten().tolist()]


def test_the_numbers_are_those_of_splitmix64() -> None:
    assert list(islice(splitmix64(1234567), 5)) == PUBLISHED  # the reference itself
    for step, number in enumerate(PUBLISHED):
        assert unsigned(pass_keys(torch.tensor(1234567), step)) == [number]
    key = PUBLISHED[2]
    first_call = list(islice(splitmix64(key), 2))[1]
    signed = (first_call + 2**63) % 2**64 - 2**63
    elements = [signed + (i * 0x9E3779B97F4A7C15) for i in range(12)]
    expected = [next(splitmix64((element - 0x9E3779B97F4A7C15) % 2**64)) for element in elements]
    assert unsigned(noise_at(1234567, 2).bits([3, 4])) == expected


def test_mixing_never_merges_two_numbers() -> None:
    assert len(set(mix(torch.arange(-5000, 5000)).tolist())) == 10_000


def test_an_element_does_not_depend_on_how_many_follow() -> None:
    assert torch.equal(noise_at(3).bits([5, 4, 2])[:2], noise_at(3).bits([2, 4, 2]))


def masks() -> dict[str, Tensor]:
    """Masks at addresses that differ in one step each, [200, 500], with p = 0.3."""
    first = noise_at(seed=17)
    shape = [200, 500]
    drawn = {"first call": first.bits(shape), "second call": first.bits(shape)}
    drawn |= {"next pass": noise_at(17, 1).bits(shape), "next client": noise_at(18).bits(shape)}
    return {name: bits >> 11 >= round(0.3 * 2**53) - 2**52 for name, bits in drawn.items()}


def test_each_mask_keeps_its_share() -> None:
    for kept in masks().values():
        n = kept.numel()
        assert abs(int(kept.sum()) - 0.7 * n) < SIGMAS * math.sqrt(n * 0.7 * 0.3)


def test_masks_of_different_addresses_are_independent() -> None:
    agreement = 0.7**2 + 0.3**2
    for a, b in combinations(masks().values(), 2):
        n = a.numel()
        assert abs(int((a == b).sum()) - agreement * n) < SIGMAS * math.sqrt(n * agreement * (1 - agreement))


def test_neighbours_in_a_mask_are_independent() -> None:
    kept = masks()["first call"]
    agreement = 0.7**2 + 0.3**2
    for a, b in ((kept[:, 1:], kept[:, :-1]), (kept[1:], kept[:-1])):
        n = a.numel()
        assert abs(int((a == b).sum()) - agreement * n) < SIGMAS * math.sqrt(n * agreement * (1 - agreement))


def test_values_and_gradients_are_scaled_or_zero() -> None:
    layer = SeededDropout(0.25, 0, noise_at(5))
    x = torch.full((40, 50), 3.0, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert set(y.unique().tolist()) == {0.0, 4.0}
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach() / 3)


@pytest.mark.parametrize(
    ("make", "shape", "dropped"),
    [
        (nn.Dropout, (6, 7), (6, 7)),
        (nn.Dropout1d, (6, 7, 5), (6, 7, 1)),
        (nn.Dropout2d, (6, 7, 5, 4), (6, 7, 1, 1)),
        (nn.Dropout2d, (6, 7, 5), (6, 7, 1)),
        (nn.Dropout3d, (6, 7, 5, 4, 3), (6, 7, 1, 1, 1)),
    ],
)
def test_what_is_dropped_together_is_what_torch_drops_together(
    make: type[nn.Module], shape: tuple[int, ...], dropped: tuple[int, ...]
) -> None:
    model = nn.Sequential(make(0.5))
    noise = seed_dropout(model)
    assert noise is not None
    noise.begin_pass(pass_keys(torch.tensor(1), 0))
    ours = model(torch.ones(shape))
    wholes = ours.reshape(*dropped, -1) if len(dropped) == 2 else ours.flatten(2)
    assert ((wholes == 0).all(-1) | (wholes == 2).all(-1)).all()
    dropped_channels = (wholes[..., 0] == 0).sum(dim=1)
    assert any(0 < count < 7 for count in dropped_channels.tolist())  # within an example, some of them


def test_the_limits() -> None:
    x = torch.randn(8, 9, requires_grad=True)
    assert SeededDropout(0.0, 0, noise_at(1))(x) is x
    assert SeededDropout(0.5, 0, noise_at(1)).eval()(x) is x
    nothing = SeededDropout(1.0, 0, noise_at(1))(x)
    nothing.sum().backward()
    assert not nothing.any()
    assert x.grad is not None
    assert not x.grad.any()  # and not NaN
    assert SeededDropout(0.5, 0, noise_at(1))(torch.ones(2, 2, dtype=torch.float64)).dtype == torch.float64


def test_every_layer_of_torchs_is_replaced_and_no_other() -> None:
    class Mine(nn.Dropout):
        pass

    shared = nn.Dropout(0.1)
    model = nn.Sequential(
        shared, nn.ModuleDict({"a": nn.Dropout2d(0.2), "b": shared}), shared, nn.AlphaDropout(0.3), Mine(0.4)
    )
    noise = seed_dropout(model)
    assert noise is not None
    assert isinstance(model[0], SeededDropout)
    assert model[0] is model[2] is model[1]["b"]
    assert (model[0].p, model[1]["a"].p) == (0.1, 0.2)
    assert [type(layer) for layer in model[3:]] == [nn.AlphaDropout, Mine]
    assert seed_dropout(nn.Sequential(nn.Linear(2, 2))) is None


def test_the_users_model_keeps_its_layers(uneven: Population) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout(0.5))
    before = copy.deepcopy(model.state_dict())
    Clients(uneven, model).fit(Layout.of_model(model).gather(model), [0], 1)
    assert type(model[2]) is nn.Dropout
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_part_of_a_pass_cannot_be_made_again(uneven: Population) -> None:
    """It would see another mask, and the gradient would be that of no function."""

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Sequential(nn.Linear(64, 10), nn.Dropout(0.5))

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.part, x.flatten(1), use_reentrant=False)  # type: ignore[no-any-return]

    model = Checkpointed()
    done = Clients(uneven, model, LocalSGD()).fit(Layout.of_model(model).gather(model), [0], 1)
    assert "leave activation checkpointing out" in str(done.errors[0])
