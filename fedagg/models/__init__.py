"""Models: small, plain ``nn.Module`` objects for the shapes that data sets have.

    >>> model = build(mlp, (1, 28, 28), 10, seed=0)
    >>> sum(parameter.numel() for parameter in model.parameters())
    199210

All of them map a batch [m, *input_shape] to logits [m, num_classes]. Sizes for 1 x 28 x 28 and ten classes; of those that read
token ids, for the 81 characters of Shakespeare, and for 10,000 words and twenty classes:

    logistic_regression      7,850 parameters
    mlp                    199,210                 the "2NN" of McMahan et al.
    cnn                     80,202
    cnn_fedau              211,690                 networks of papers
    cnn_fedlaw              93,322
    lenet                   44,426
    lenet_frl            1,625,632
    conv8                4,881,472
    resnet18            11,172,810
    lstm                   820,185                 token ids: the next one, or the class
    mean_embedding         641,300
    text_cnn               723,120
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from fedagg import rng
from fedagg.models.convolutional import cnn, cnn_fedau, cnn_fedlaw, conv8, lenet, lenet_frl
from fedagg.models.linear import logistic_regression, mlp
from fedagg.models.resnet import resnet18
from fedagg.models.supermask import supermask
from fedagg.models.text import lstm, mean_embedding, text_cnn

__all__ = [
    "build",
    "cnn",
    "cnn_fedau",
    "cnn_fedlaw",
    "conv8",
    "lenet",
    "lenet_frl",
    "logistic_regression",
    "lstm",
    "mean_embedding",
    "mlp",
    "resnet18",
    "supermask",
    "text_cnn",
]

Model = TypeVar("Model", bound=nn.Module)


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
