"""A residual network for small pictures, with group normalisation: batch statistics would depend on who shares a batch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import relu

from fedagg.errors import ConfigError
from fedagg.models.sizes import picture, size, sizes


def resnet18(
    input_shape: Sequence[int], num_classes: int, widths: Sequence[int] = (64, 128, 256, 512), groups: int = 2
) -> nn.Sequential:
    """Return ResNet-18 for small pictures: a 3 x 3 stem of stride 1 without pooling, and group instead of batch normalisation.

    He, Zhang, Ren & Sun, "Deep Residual Learning for Image Recognition", CVPR 2016; Wu & He, "Group Normalization", ECCV 2018.
    With two groups the network of FedDisco (Ye et al., ICML 2023) for HAM10000. 11,173,962 parameters for three channels and
    ten classes, whatever the number of pixels.

    Args:
        input_shape: (channels, height, width).
        num_classes: C.
        widths: channels of each stage of two blocks; from the second on, a stage halves height and width.
        groups: of channels, normalised together; divides every width.

    Raises:
        ConfigError: rows that are no pictures, or smaller than 8 x 8; sizes that are no integers >= 1; groups that do not fit.
    """
    channels = picture("resnet18", input_shape, smallest=8)[0]
    stages, groups = sizes("widths", widths), size("groups", groups)
    if not stages or any(width % groups for width in stages):
        raise ConfigError(f"model.widths must be multiples of model.groups={groups}; got {stages}")
    layers: list[nn.Module] = [_convolution(channels, stages[0]), nn.GroupNorm(groups, stages[0]), nn.ReLU()]
    inputs = stages[0]
    for number, width in enumerate(stages):
        layers += [Block(inputs, width, groups, stride=2 if number else 1), Block(width, width, groups)]
        inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, size("num_classes", num_classes)))


class Block(nn.Module):
    """Two 3 x 3 convolutions, and a way around them.

    Args:
        inputs: channels that come in.
        width: channels that go out.
        groups: of channels, normalised together.
        stride: of the first convolution. Where the shape changes, the way around is a 1 x 1 convolution.
    """

    def __init__(self, inputs: int, width: int, groups: int, stride: int = 1) -> None:
        super().__init__()
        self.first, self.first_norm = _convolution(inputs, width, stride), nn.GroupNorm(groups, width)
        self.second, self.second_norm = _convolution(width, width), nn.GroupNorm(groups, width)
        self.around: nn.Module = nn.Identity()
        if stride > 1 or inputs != width:
            self.around = nn.Sequential(_convolution(inputs, width, stride, kernel=1), nn.GroupNorm(groups, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map [m, inputs, h, w] to [m, width, h / stride, w / stride], rounded up."""
        inside = self.second_norm(self.second(relu(self.first_norm(self.first(x)))))
        return relu(inside + self.around(x))


def _convolution(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
