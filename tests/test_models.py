import random

import numpy as np
import pytest
import torch
from torch import nn

from fedagg.errors import ConfigError
from fedagg.models import build, cnn, logistic_regression, mlp


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


def flat(model):
    return b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())


@pytest.mark.parametrize(
    ("factory", "shape", "classes", "options", "parameters"),
    [
        (logistic_regression, (1, 28, 28), 10, {}, 784 * 10 + 10),
        (logistic_regression, (30,), 2, {}, 30 * 2 + 2),
        (mlp, (1, 28, 28), 10, {}, 199_210),
        (mlp, (1, 8, 8), 10, {}, 64 * 200 + 200 + 200 * 200 + 200 + 200 * 10 + 10),
        (mlp, (30,), 2, {"hidden": (7,)}, 30 * 7 + 7 + 7 * 2 + 2),
        (mlp, (5,), 3, {"hidden": []}, 5 * 3 + 3),
        (mlp, (5,), 3, {"hidden": [4], "bias": False}, 5 * 4 + 4 * 3),
        (cnn, (1, 28, 28), 10, {}, 80_202),
        (cnn, (1, 8, 8), 10, {}, 416 + 12_832 + (32 * 2 * 2 * 128 + 128) + 1_290),
        (cnn, (3, 32, 32), 10, {}, (3 * 25 * 16 + 16) + 12_832 + (32 * 5 * 5 * 128 + 128) + 1_290),
        (cnn, (1, 16, 16), 10, {}, 416 + 12_832 + (32 * 128 + 128) + 1_290),
        (cnn, (1, 4, 15), 2, {"channels": [2, 3], "hidden": 4}, (25 * 2 + 2) + (2 * 25 * 3 + 3) + (3 * 1 * 3 * 4 + 4) + 10),
    ],
)
def test_parameters_and_logits(factory, shape, classes, options, parameters):
    model = factory(list(shape), classes, **options)
    assert isinstance(model, nn.Sequential)
    assert size(model) == parameters
    logits = model(torch.zeros(3, *shape))
    assert logits.shape == (3, classes)
    assert model(torch.zeros(0, *shape)).shape == (0, classes)


def test_layers_are_what_the_docstrings_say():
    assert [type(layer).__name__ for layer in mlp((4,), 2)] == ["Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert [type(layer).__name__ for layer in logistic_regression((4,), 2)] == ["Flatten", "Linear"]
    features = ["Conv2d", "ReLU", "MaxPool2d"] * 2
    assert [type(layer).__name__ for layer in cnn((1, 28, 28), 10)] == [*features, "Flatten", "Linear", "ReLU", "Linear"]


@pytest.mark.parametrize("factory", [logistic_regression, mlp, cnn])
def test_the_seed_alone_decides_the_initial_values(factory):
    torch.manual_seed(1)
    first = flat(build(factory, (1, 8, 8), 10, seed=3))
    torch.manual_seed(2)
    assert flat(build(factory, (1, 8, 8), 10, seed=3)) == first
    assert flat(build(lambda: factory((1, 8, 8), 10), seed=3)) == first
    assert flat(build(factory, (1, 8, 8), num_classes=10, seed=4)) != first


def test_global_generators_are_untouched():
    def states():
        return random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()

    before = states()
    build(cnn, (1, 28, 28), 10, seed=0)
    assert states() == before
    with pytest.raises(ConfigError):
        build(cnn, (30,), 2, seed=0)
    assert states() == before


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: cnn((30,), 2), r"rows have shape \(30,\)\. Take model=mlp"),
        (lambda: cnn((1, 3, 28), 10), "at least 4 x 4"),
        (lambda: cnn((28, 28), 10), "needs pictures"),
        (lambda: cnn((1, 28, 28), 10, channels=(8,)), r"model\.channels needs two numbers"),
        (lambda: cnn((1, 28, 28), 10, hidden=0), r"model\.hidden must be integers >= 1; got \[0\]"),
        (lambda: mlp((30,), 0), r"model\.num_classes"),
        (lambda: mlp((30,), 2, hidden=(10, 2.5)), r"model\.hidden"),
        (lambda: mlp((0,), 2), r"model\.input_shape"),
        (lambda: mlp((30,), 2, hidden=(True,)), r"model\.hidden"),
    ],
)
def test_impossible_sizes_are_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()


def test_a_cnn_learns_something_from_digits():
    """Thirty full-batch steps from a fixed seed: the loss falls well below log 10, where guessing is."""
    from fedagg.data import digits

    data = digits()
    x, y = data.features(data.x_train[:300]), torch.tensor(data.y_train[:300])
    model = build(cnn, data.input_shape, data.num_classes, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    assert loss.item() < 1.0
