"""The networks of papers: layers, sizes and initial values as published, and both executors train them."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fedagg import LocalSGD, Population
from fedagg.clients.choice import choose
from fedagg.data import IID, Dataset
from fedagg.errors import ConfigError
from fedagg.models import (
    build,
    cnn,
    cnn_fedau,
    cnn_fedlaw,
    conv8,
    lenet,
    lenet_frl,
    lstm,
    mean_embedding,
    mlp,
    resnet18,
    text_cnn,
)


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


def blocks(inputs, width, first=True):
    """Parameters of one stage of ResNet-18: four convolutions and norms, and a way around where the width changes."""
    around = inputs * width + 2 * width if inputs != width else 0
    return 9 * width * (inputs + 3 * width) + 4 * 2 * width + around


STAGES = blocks(64, 64) + blocks(64, 128) + blocks(128, 256) + blocks(256, 512) + 512 * 10 + 10


@pytest.mark.parametrize(
    ("factory", "shape", "classes", "options", "parameters"),
    [
        (cnn_fedau, (3, 32, 32), 10, {}, 896 + 9_248 + (32 * 8 * 8 * 128 + 128) + 1_290),
        (cnn_fedau, (1, 28, 28), 10, {}, 320 + 9_248 + (32 * 7 * 7 * 128 + 128) + 1_290),
        (cnn_fedau, (3, 32, 32), 10, {"hidden": [256, 64]}, 896 + 9_248 + (2048 * 256 + 256) + (256 * 64 + 64) + 650),
        (
            cnn_fedau,
            (3, 32, 32),
            100,
            {"hidden": [512, 256], "dropout": 0.2},
            896 + 9_248 + (2048 * 512 + 512) + (512 * 256 + 256) + 25_700,
        ),
        (lenet, (3, 32, 32), 10, {}, (75 * 6 + 6) + (150 * 16 + 16) + (400 * 120 + 120) + (120 * 84 + 84) + 850),
        (lenet, (1, 28, 28), 10, {}, (25 * 6 + 6) + (150 * 16 + 16) + (256 * 120 + 120) + (120 * 84 + 84) + 850),
        (lenet, (1, 16, 16), 2, {}, 156 + 2_416 + (16 * 120 + 120) + 10_164 + 170),
        (cnn_fedlaw, (3, 32, 32), 10, {}, 896 + (288 * 64 + 64) + (576 * 64 + 64) + (64 * 4 * 4 * 64 + 64) + 650),
        (cnn_fedlaw, (1, 18, 18), 10, {}, 320 + 18_496 + 36_928 + (64 * 64 + 64) + 650),
        (lenet_frl, (1, 28, 28), 10, {}, 288 + 18_432 + 1_605_632 + 1_280),
        (lenet_frl, (3, 4, 6), 2, {}, 27 * 32 + 18_432 + 64 * 2 * 3 * 128 + 256),
        (conv8, (3, 32, 32), 10, {}, 5_275_840),
        (conv8, (1, 28, 28), 10, {}, 4_881_472),
        (resnet18, (1, 28, 28), 10, {}, 9 * 64 + 2 * 64 + STAGES),
        (resnet18, (1, 9, 11), 3, {"widths": [4]}, 36 + 8 + blocks(4, 4) + 15),
        (lstm, (80,), 81, {}, 81 * 8 + (1024 * (8 + 256) + 2048) + (1024 * 512 + 2048) + (256 * 81 + 81)),
        (lstm, (5,), 2, {"vocabulary": 9, "embedding": 3, "hidden": 4, "layers": 1}, 27 + (16 * 7 + 32) + 10),
        (mean_embedding, (256,), 20, {"vocabulary": 10_000}, 640_000 + 64 * 20 + 20),
        (text_cnn, (256,), 20, {"vocabulary": 10_000}, 640_000 + 100 * (64 * 12 + 3) + 300 * 20 + 20),
    ],
)
def test_parameters_and_logits(factory, shape, classes, options, parameters):
    model = build(factory, list(shape), classes, seed=0, **options)
    assert size(model) == parameters
    assert model(torch.zeros(2, *shape)).shape == (2, classes)


def test_resnet18_has_the_size_that_is_known_of_it():
    assert size(resnet18((3, 32, 32), 10)) == 11_173_962


def kinds(model):
    return [type(layer).__name__ for layer in model]


def test_layers_are_what_the_docstrings_say():
    convolution = ["Conv2d", "ReLU", "MaxPool2d"]
    assert kinds(lenet((1, 28, 28), 10)) == convolution * 2 + ["Flatten"] + ["Linear", "ReLU"] * 2 + ["Linear"]
    assert kinds(cnn_fedlaw((1, 28, 28), 10)) == convolution * 2 + ["Conv2d", "ReLU", "Flatten", "Linear", "ReLU", "Linear"]
    dense = ["Dropout", "Linear", "ReLU"]
    model = cnn_fedau((3, 32, 32), 100, hidden=[512, 256], dropout=0.2)
    assert kinds(model) == convolution * 2 + ["Flatten", *dense, *dense, "Dropout", "Linear"]
    assert [layer.p for layer in model if isinstance(layer, nn.Dropout)] == [0.2] * 3
    assert "Dropout" not in kinds(cnn_fedau((3, 32, 32), 10))
    halves = [layer.first.stride[0] for layer in resnet18((3, 32, 32), 10, widths=[4, 8, 12, 16])[3:11]]
    assert halves == [1, 1, 2, 1, 2, 1, 2, 1]


def test_fedau_begins_as_its_authors_do():
    """Variance 2 / inputs and zero biases before a ReLU; the last layer is torch's: uniform within 1 / sqrt(inputs)."""
    layers = [layer for layer in build(cnn_fedau, (3, 32, 32), 10, seed=0) if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer, inputs in zip(layers[:-1], (27, 288, 2048), strict=True):
        assert not layer.bias.any()
        count = layer.weight.numel()
        assert abs(layer.weight.var().item() * inputs / 2 - 1) < 5 * math.sqrt(2 / count)
    assert layers[-1].bias.any()
    assert 0.9 < layers[-1].weight.abs().max() * math.sqrt(128) <= 1


def test_a_block_adds_what_its_convolutions_make_to_what_came_in():
    model = build(resnet18, (1, 8, 8), 3, seed=0, widths=[4, 8])
    plain, halving = model[3], model[5]
    with torch.no_grad():
        for norm in (plain.second_norm, halving.second_norm):
            norm.weight.zero_()
            norm.bias.fill_(-1)
        x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(plain(x), (x - 1).clamp(min=0))
        around = halving.around[1](nn.functional.conv2d(x[:, :, ::2, ::2], halving.around[0].weight))
        torch.testing.assert_close(halving(x), (around - 1).clamp(min=0))


def test_padding_does_not_count_in_a_mean():
    model = mean_embedding((4,), 2, vocabulary=5, embedding=2)
    with torch.no_grad():
        model.embedding.weight.copy_(torch.tensor([[9.0, 9], [1, 0], [0, 1], [4, 4], [7, 7]]))
        model.classifier.weight.copy_(torch.eye(2))
        model.classifier.bias.zero_()
        logits = model(torch.tensor([[1.0, 2, 3, 0], [3, 0, 0, 0], [0, 0, 0, 0]]))
    torch.testing.assert_close(logits, torch.tensor([[5 / 3, 5 / 3], [4, 4], [0, 0]]))


def test_a_text_cnn_finds_neighbours_wherever_they_are():
    model = build(text_cnn, (6,), 2, seed=0, vocabulary=9, channels=3, kernels=[2]).eval()
    here, there = torch.tensor([[1.0, 4, 5, 1, 1, 1]]), torch.tensor([[1.0, 1, 1, 1, 4, 5]])
    pairs = [[1, 4], [4, 5], [5, 1], [1, 1]]
    with torch.no_grad():
        found = [model.convolutions[0](model.embedding(torch.tensor([pair])).transpose(1, 2))[0, :, 0] for pair in pairs]
        features = torch.stack(found).amax(dim=0).clamp(min=0)
        torch.testing.assert_close(model(here)[0], model.classifier(features))
        features = torch.stack([found[0], found[1], found[3]]).amax(dim=0).clamp(min=0)
        torch.testing.assert_close(model(there)[0], model.classifier(features))


def test_an_lstm_says_what_follows_by_the_order_of_what_it_read():
    model = build(lstm, (3,), 4, seed=0, hidden=5, layers=1)
    read = torch.tensor([[0.0, 1, 2], [1, 0, 2]])
    logits = model(read)
    assert not torch.allclose(logits[0], logits[1])
    weights = model.lstm
    hidden = cell = torch.zeros(5)
    for token in (0, 1, 2):  # the equations of Hochreiter & Schmidhuber with a forget gate, gates in torch's order
        gates = weights.weight_ih_l0 @ model.embedding.weight[token] + weights.bias_ih_l0
        gates = gates + weights.weight_hh_l0 @ hidden + weights.bias_hh_l0
        inward, forget, new, outward = gates.split(5)
        cell = forget.sigmoid() * cell + inward.sigmoid() * new.tanh()
        hidden = outward.sigmoid() * cell.tanh()
    torch.testing.assert_close(logits[0], model.classifier(hidden))


def test_large_token_ids_are_exact():
    model = mean_embedding((1,), 2, vocabulary=2**17, embedding=1)
    with torch.no_grad():
        model.embedding.weight.copy_(torch.arange(2**17)[:, None].float())
        model.classifier.weight.fill_(1)
        model.classifier.bias.zero_()
    assert model(torch.tensor([[2.0**17 - 1]]))[0, 0] == 2**17 - 1


@pytest.mark.parametrize(
    ("factory", "shape", "tokens", "options"),
    [
        (cnn_fedau, (1, 8, 8), 0, {"hidden": [8, 4], "dropout": 0.2}),
        (lenet, (1, 16, 16), 0, {}),
        (cnn_fedlaw, (1, 18, 18), 0, {}),
        (resnet18, (1, 9, 11), 0, {"widths": [4, 8]}),
        (mean_embedding, (7,), 11, {"vocabulary": 11}),
        (text_cnn, (7,), 11, {"vocabulary": 11, "channels": 4}),
        pytest.param(
            lstm,
            (7,),
            3,
            {"hidden": 5},
            marks=pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning"),  # torch loops over clients
        ),
    ],
)
def test_both_executors_train_it_alike(factory, shape, tokens, options):
    """Executors are compared before clients are batched: a difference, or an error in either, names a layer instead."""
    draw = np.random.default_rng(0)
    x = draw.integers(0, tokens, (60, *shape)) if tokens else draw.normal(size=(60, *shape)).astype(np.float32)
    population = Population.split(Dataset("made here", x, np.arange(60) % 3, x[:3], [0, 1, 2], 3, "here"), IID(), 4)
    model = build(factory, shape, 3, seed=0, **options)
    engine = choose(population, model, LocalSGD(batch_size=4), torch.device("cpu"), "batched")
    assert (engine.name, engine.why) == ("batched", "as asked")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: lenet((1, 8, 8), 10), r"model=lenet needs pictures .* at least 16 x 16 pixels; .* \(1, 8, 8\)"),
        (lambda: lenet((1, 15, 28), 10), "at least 16 x 16"),
        (lambda: cnn_fedlaw((1, 17, 17), 10), "model=cnn_fedlaw needs pictures .* at least 18 x 18"),
        (lambda: cnn_fedau((30,), 2), "model=cnn_fedau needs pictures"),
        (lambda: cnn_fedau((1, 8, 8), 2, hidden=[0]), r"model\.hidden"),
        (lambda: cnn_fedau((1, 8, 8), 2, dropout=1), r"model\.dropout must lie in \[0, 1\); got 1"),
        (lambda: resnet18((1, 7, 7), 2), "at least 8 x 8"),
        (
            lambda: resnet18((1, 8, 8), 2, groups=3),
            r"model\.widths must be multiples of model\.groups=3; got \[64, 128",
        ),
        (lambda: resnet18((1, 8, 8), 2, widths=[]), r"model\.widths"),
        (lambda: lstm((1, 8, 8), 10), r"model=lstm needs rows of token ids .* \(1, 8, 8\)"),
        (lambda: lstm((8,), 10, hidden=0), r"model\.hidden"),
        (lambda: lstm((8,), 10, vocabulary=2.5), r"model\.vocabulary"),
        (lambda: mean_embedding((1, 8, 8), 10, 5), "model=mean_embedding needs rows of token ids"),
        (lambda: text_cnn((4,), 2, 5), r"model\.kernels must be 1 .. 4, the number of tokens; got \[3, 4, 5\]"),
        (lambda: text_cnn((4,), 2, 5, kernels=[]), r"model\.kernels"),
        (lambda: cnn((30,), 2), "model=cnn needs pictures"),
        (lambda: mlp((30,), True), r"model\.num_classes"),
    ],
)
def test_impossible_sizes_are_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()
