"""The supermask: fixed weights, drawn scores, the gradient that passes the mask, and models that are refused."""

import math

import pytest
import torch
from torch import nn

from fedagg.errors import ConfigError
from fedagg.models import build, cnn, lstm, mlp, resnet18, supermask

SEED = 4


def net() -> nn.Sequential:
    return build(lambda: mlp((1, 8, 8), 10, hidden=(7,), bias=False), seed=2)


def convolutional() -> nn.Module:
    def make() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 3, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 36, 10, bias=False))

    return build(make, seed=2)


def test_weights_are_signs_and_scores_are_drawn() -> None:
    plain, masked = convolutional(), supermask(convolutional(), seed=SEED)
    for place, fan_in in ((0, 9), (3, 108)):
        signs = masked[place].layer.weight  # type: ignore[index]
        assert torch.equal(signs, plain[place].weight.sign())  # type: ignore[index]
        assert masked[place].scale == pytest.approx(math.sqrt(2) / math.sqrt(fan_in))  # type: ignore[index]
        scores = masked[place].scores.detach()  # type: ignore[index]
        assert scores.abs().max() <= 1 / math.sqrt(fan_in)
        assert 0.2 < float((scores > 0).float().mean()) < 0.8
    assert list(masked.state_dict()) == ["0.scores", "3.scores"]
    assert isinstance(plain[0], nn.Conv2d)  # type: ignore[index]


def test_scores_depend_on_the_seed_alone() -> None:
    before = torch.get_rng_state()
    one, again, other = (supermask(net(), seed=seed)[1].scores for seed in (1, 1, 2))  # type: ignore[index]
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_forward_by_hand() -> None:
    """Two of four edges count, and each has weight sqrt(2 / 2) = 1."""
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.tensor([[0.3, -0.2], [-0.1, 0.4]])
    x = torch.tensor([[2.0, 3.0]])
    masked = supermask(nn.Sequential(layer))
    masked[0].scores.data = torch.tensor([[0.1, -0.9], [0.5, -0.2]])  # type: ignore[index]
    assert masked(x).tolist() == [[-3.0, -2.0]]
    signed = supermask(nn.Sequential(layer), mask_by="signed")
    signed[0].scores.data = masked[0].scores.data  # type: ignore[index]
    assert signed(x).tolist() == [[2.0, -2.0]]


@pytest.mark.parametrize("mask_by", ["abs", "signed"])
def test_gradient_by_hand(mask_by: str) -> None:
    """L = 5 z_1 + 7 z_2: dL/d(w mask) = [[5 x_1, 5 x_2], [7 x_1, 7 x_2]] for x = (2, 3), whether an edge counts or not."""
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.tensor([[0.3, -0.2], [-0.1, 0.4]])
    masked = supermask(nn.Sequential(layer), mask_by=mask_by)
    scores = masked[0].scores  # type: ignore[index]
    scores.data = torch.tensor([[0.1, -0.9], [0.5, -0.2]])
    (masked(torch.tensor([[2.0, 3.0]])) * torch.tensor([5.0, 7.0])).sum().backward()
    through = torch.tensor([[10.0, -15.0], [-14.0, 21.0]])  # w is 1 -1 -1 1
    wanted = through * torch.tensor([[1.0, -1.0], [1.0, -1.0]]) if mask_by == "abs" else through
    assert torch.allclose(scores.grad, wanted)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: cnn((1, 8, 8), 10), r"layer 0 \(Conv2d\) has bias: .* Take one without biases, such as model=mlp_no_bias"),
        (lambda: resnet18((1, 8, 8), 10, widths=[4]), r"layer 1 \(GroupNorm\) has weight, bias"),
        (lambda: lstm((5,), 9), r"layer embedding \(Embedding\) has weight"),
        (
            lambda: nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2, affine=False)),
            r"\(BatchNorm2d\) has running",
        ),
        (nn.Flatten, "Flatten has no layer with weights"),
    ],
)
def test_models_that_are_more_than_weights(model: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        supermask(build(model, seed=0))  # type: ignore[arg-type]


def test_tied_layers() -> None:
    one = nn.Linear(4, 4, bias=False)
    masked = supermask(nn.Sequential(one, nn.ReLU(), one))
    assert masked[0] is masked[2]  # type: ignore[index]
    other = nn.Linear(4, 4, bias=False)
    other.weight = one.weight
    with pytest.raises(ConfigError, match="two layers of Sequential share their weights"):
        supermask(nn.Sequential(one, other))


def test_a_supermask_stays_as_it_is() -> None:
    masked = supermask(net(), 0.3)
    assert supermask(masked, 0.3, seed=9) is masked
    with pytest.raises(ConfigError, match=r"was made with \(sparsity, mask_by\) = {\(0.3, 'abs'\)}; got \(0.3, 'signed'\)"):
        supermask(masked, 0.3, "signed")


def test_one_layer_alone() -> None:
    masked = supermask(nn.Linear(3, 2, bias=False))
    assert list(masked.state_dict()) == ["scores"]
    assert masked(torch.ones(5, 3)).shape == (5, 2)
