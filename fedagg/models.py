"""Models: small, plain ``nn.Module`` objects for the shapes that data sets have.

    >>> model = build(mlp, (1, 28, 28), 10, seed=0)
    >>> sum(parameter.numel() for parameter in model.parameters())
    199210

All of them map a batch [m, *input_shape] to logits [m, num_classes]. Sizes for 1 x 28 x 28 and ten classes:

    logistic_regression      7,850 parameters
    mlp                    199,210
    cnn                     80,202
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeVar

from torch import nn

from fedagg import rng
from fedagg.errors import ConfigError

KERNEL = 5
Model = TypeVar("Model", bound=nn.Module)


def logistic_regression(input_shape: Sequence[int], num_classes: int) -> nn.Sequential:
    """Return one linear layer: convex, so a good place to see what aggregation alone does.

    Args:
        input_shape: shape of one row, flattened here.
        num_classes: C.
    """
    return mlp(input_shape, num_classes, hidden=())


def mlp(input_shape: Sequence[int], num_classes: int, hidden: Sequence[int] = (200, 200)) -> nn.Sequential:
    """Return linear layers with ReLU between them; by default the "2NN" of McMahan et al., AISTATS 2017.

    Args:
        input_shape: shape of one row, flattened here.
        num_classes: C.
        hidden: width of every hidden layer; empty gives logistic regression.

    Raises:
        ConfigError: a size that is no integer >= 1.
    """
    widths = [math.prod(_sizes("input_shape", input_shape)), *_sizes("hidden", hidden), *_sizes("num_classes", [num_classes])]
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def cnn(input_shape: Sequence[int], num_classes: int, channels: Sequence[int] = (16, 32), hidden: int = 128) -> nn.Sequential:
    """Return two 5 x 5 convolutions, each with ReLU and 2 x 2 max pooling, then one hidden layer.

    Pictures of 16 x 16 pixels and more are not padded: 28 -> 24 -> 12 -> 8 -> 4 pixels, and with the default widths
    416 + 12,832 + 65,664 + 1,290 = 80,202 parameters for one channel and ten classes. Smaller ones would shrink to nothing, so
    they are padded by 2 and a convolution keeps their size: 8 -> 8 -> 4 -> 4 -> 2, and 31,050 parameters.

    Args:
        input_shape: (channels, height, width).
        num_classes: C.
        channels: output channels of the two convolutions.
        hidden: width of the hidden layer.

    Raises:
        ConfigError: rows that are no pictures, or smaller than 4 x 4; sizes that are no integers >= 1.
    """
    shape, widths = _sizes("input_shape", input_shape), _sizes("channels", channels)
    hidden, num_classes = _sizes("hidden", [hidden])[0], _sizes("num_classes", [num_classes])[0]
    if len(shape) != 3 or min(shape[1:]) < 4:
        raise ConfigError(
            f"model=cnn needs pictures (channels, height, width) of at least 4 x 4 pixels; this data set's rows have shape "
            f"{tuple(shape)}. Take model=mlp or model=logistic_regression"
        )
    if len(widths) != 2:
        raise ConfigError(f"model.channels needs two numbers, one a convolution; got {list(channels)}")
    padding = 0 if min(shape[1:]) >= 16 else KERNEL // 2
    layers: list[nn.Module] = []
    inputs, (height, width) = shape[0], shape[1:]
    for outputs in widths:
        layers += [nn.Conv2d(inputs, outputs, KERNEL, padding=padding), nn.ReLU(), nn.MaxPool2d(2)]
        inputs, height, width = outputs, _after(height, padding), _after(width, padding)
    layers += [nn.Flatten(), nn.Linear(inputs * height * width, hidden), nn.ReLU(), nn.Linear(hidden, num_classes)]
    return nn.Sequential(*layers)


def build(factory: Callable[..., Model], /, *args: Any, seed: int, **kwargs: Any) -> Model:
    """Return ``factory(*args, **kwargs)`` with initial values that depend on ``seed`` alone.

    Whatever the factory draws comes from the address ``(seed, "model")`` of the seed tree; the global generators are as they
    were when it returns.

    Args:
        factory: a function of this module, a class, or a lambda without arguments.
        args: handed on.
        seed: the run's seed.
        kwargs: handed on.
    """
    with rng.seeded_globals(seed, "model"):
        return factory(*args, **kwargs)


def _after(pixels: int, padding: int) -> int:
    """Return what one convolution and one pooling leave of an edge."""
    return (pixels + 2 * padding - KERNEL + 1) // 2


def _sizes(name: str, values: Sequence[int]) -> list[int]:
    if any(not isinstance(value, int) or isinstance(value, bool) or value < 1 for value in values):
        raise ConfigError(f"model.{name} must be integers >= 1; got {list(values)}")
    return list(values)
