"""Convolutional networks for small pictures: a plain one, and those that papers trained."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from fedagg.errors import ConfigError
from fedagg.models.sizes import picture, probability, size, sizes


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
    shape, widths = picture("cnn", input_shape, smallest=4), sizes("channels", channels)
    if len(widths) != 2:
        raise ConfigError(f"model.channels needs two numbers, one a convolution; got {list(channels)}")
    padding = 0 if min(shape[1:]) >= 16 else 2
    layers, features = _convolutions(shape, widths, kernel=5, padding=padding)
    return nn.Sequential(*layers, *_dense([features, size("hidden", hidden), size("num_classes", num_classes)]))


def lenet(input_shape: Sequence[int], num_classes: int) -> nn.Sequential:
    """Return LeNet-5 as it is built today: 5 x 5 convolutions to 6 and 16 channels, then 120 and 84 hidden units.

    LeCun, Bottou, Bengio & Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998, with ReLU and max
    pooling; the network of FedDisco (Ye et al., ICML 2023) for 3 x 32 x 32 pixels, 62,006 parameters with ten classes.

    Args:
        input_shape: (channels, height, width).
        num_classes: C.

    Raises:
        ConfigError: rows that are no pictures, or smaller than 16 x 16.
    """
    layers, features = _convolutions(picture("lenet", input_shape, smallest=16), [6, 16], kernel=5)
    return nn.Sequential(*layers, *_dense([features, 120, 84, size("num_classes", num_classes)]))


def cnn_fedau(
    input_shape: Sequence[int], num_classes: int, hidden: Sequence[int] = (128,), dropout: float = 0.0
) -> nn.Sequential:
    """Return the network of FedAU (Wang & Ji, ICLR 2024): two padded 3 x 3 convolutions to 32 channels, then hidden layers.

    Its forms, by data set:

        SVHN, Fashion-MNIST     hidden=[128]                    273,706 parameters for 3 x 32 x 32 and ten classes
        CIFAR-10                hidden=[256, 64]                551,786
        CIFAR-100, CINIC-10     hidden=[512, 256] dropout=0.2   1,216,260 with a hundred classes

    Layers before a ReLU begin with Kaiming-normal weights and zero biases, the last one as torch makes it.

    Args:
        input_shape: (channels, height, width).
        num_classes: C.
        hidden: width of every hidden layer.
        dropout: share of features dropped before each dense layer; 0 has no such layers.

    Raises:
        ConfigError: rows that are no pictures, or smaller than 4 x 4; sizes that are no integers >= 1; a share outside [0, 1).
    """
    convolutions, features = _convolutions(picture("cnn_fedau", input_shape, smallest=4), [32, 32], kernel=3, padding=1)
    widths = [features, *sizes("hidden", hidden), size("num_classes", num_classes)]
    layers = [*convolutions, *_dense(widths, probability("dropout", dropout))]
    for layer in layers[:-1]:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


def cnn_fedlaw(input_shape: Sequence[int], num_classes: int) -> nn.Sequential:
    """Return the network of FedLAW (Li et al., ICML 2023): 3 x 3 convolutions to 32, 64 and 64 channels, then 64 hidden units.

    The first two are followed by pooling, nothing is padded; 122,570 parameters for 3 x 32 x 32 pixels and ten classes.

    Args:
        input_shape: (channels, height, width).
        num_classes: C.

    Raises:
        ConfigError: rows that are no pictures, or smaller than 18 x 18.
    """
    shape = picture("cnn_fedlaw", input_shape, smallest=18)
    layers, features = _convolutions(shape, [32, 64, 64], kernel=3, pooled=2)
    return nn.Sequential(*layers, *_dense([features, 64, size("num_classes", num_classes)]))


def lenet_frl(input_shape: Sequence[int], num_classes: int) -> nn.Sequential:
    """Return the "LeNet" of Federated Rank Learning (Mozaffari et al., USENIX Security 2023), without biases.

    3 x 3 convolutions to 32 and 64 channels, pooling, then 128 hidden units; its layers have 288, 18,432, 1,605,632 and 1,280
    edges for 1 x 28 x 28 pixels padded by 1, 1,625,632 in all.

    Args:
        input_shape: (channels, height, width).
        num_classes: C.

    Raises:
        ConfigError: rows that are no pictures, or smaller than 4 x 4.
    """
    shape = picture("lenet_frl", input_shape, smallest=4)
    return _without_biases(shape, [[32, 64]], [128, size("num_classes", num_classes)])


def conv8(input_shape: Sequence[int], num_classes: int) -> nn.Sequential:
    """Return Conv8 (Ramanujan et al., CVPR 2020), without biases, the CIFAR-10 network of Federated Rank Learning.

    Pairs of 3 x 3 convolutions to 64, 128, 256 and 512 channels, each pair with pooling, then 256 and 256 hidden units:
    5,275,840 edges for 3 x 32 x 32 pixels and ten classes.

    Args:
        input_shape: (channels, height, width).
        num_classes: C.

    Raises:
        ConfigError: rows that are no pictures, or smaller than 16 x 16.
    """
    shape = picture("conv8", input_shape, smallest=16)
    pairs = [[width, width] for width in (64, 128, 256, 512)]
    return _without_biases(shape, pairs, [256, 256, size("num_classes", num_classes)])


def _without_biases(shape: Sequence[int], blocks: Sequence[Sequence[int]], dense: Sequence[int]) -> nn.Sequential:
    """Return padded 3 x 3 convolutions with ReLU, each block of them with pooling, then linear layers; nothing has a bias."""
    layers: list[nn.Module] = []
    channels, height, width = shape
    for block in blocks:
        for outputs in block:
            layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.ReLU()]
            channels = outputs
        layers.append(nn.MaxPool2d(2))
        height, width = height // 2, width // 2
    return nn.Sequential(*layers, *_dense([channels * height * width, *dense], bias=False))


def _convolutions(
    shape: Sequence[int], widths: Sequence[int], kernel: int, padding: int = 0, pooled: int | None = None
) -> tuple[list[nn.Module], int]:
    """Return convolutions with ReLU, the first ``pooled`` (None: all) with 2 x 2 max pooling, and how many features they end
    in."""
    layers: list[nn.Module] = []
    edges = list(shape[1:])
    for number, (inputs, outputs) in enumerate(pairwise([shape[0], *widths])):
        layers += [nn.Conv2d(inputs, outputs, kernel, padding=padding), nn.ReLU()]
        edges = [edge + 2 * padding - kernel + 1 for edge in edges]
        if pooled is None or number < pooled:
            layers.append(nn.MaxPool2d(2))
            edges = [edge // 2 for edge in edges]
    return layers, widths[-1] * edges[0] * edges[1]


def _dense(widths: Sequence[int], dropout: float = 0.0, bias: bool = True) -> list[nn.Module]:
    """Return linear layers with ReLU between them, each after dropout if there is some."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [*([nn.Dropout(dropout)] if dropout else []), nn.Linear(inputs, outputs, bias=bias), nn.ReLU()]
    return layers[:-1]
