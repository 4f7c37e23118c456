"""Linear layers, with or without something between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from fedagg.models.sizes import size, sizes


def logistic_regression(input_shape: Sequence[int], num_classes: int) -> nn.Sequential:
    """Return one linear layer: convex, so a good place to see what aggregation alone does.

    Args:
        input_shape: shape of one row, flattened here.
        num_classes: C.
    """
    return mlp(input_shape, num_classes, hidden=())


def mlp(input_shape: Sequence[int], num_classes: int, hidden: Sequence[int] = (200, 200), bias: bool = True) -> nn.Sequential:
    """Return linear layers with ReLU between them; by default the "2NN" of McMahan et al., AISTATS 2017.

    Args:
        input_shape: shape of one row, flattened here.
        num_classes: C.
        hidden: width of every hidden layer; empty gives logistic regression.
        bias: whether layers have biases.

    Raises:
        ConfigError: a size that is no integer >= 1.
    """
    widths = [math.prod(sizes("input_shape", input_shape)), *sizes("hidden", hidden), size("num_classes", num_classes)]
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
