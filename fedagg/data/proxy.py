"""Examples that the server takes out of the test set, which the rest then is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fedagg import rng
from fedagg.data.datasets import Dataset
from fedagg.errors import ConfigError


def take_from_test(dataset: Dataset, size: int, seed: int) -> tuple[Dataset, tuple[Tensor, Tensor]]:
    """Return ``dataset`` without some examples of its test set, and these: features [size, ...] and classes [size].

    Args:
        dataset: it stays as it is.
        size: how many, the same number of each class.
        seed: decides which.

    Raises:
        ConfigError: ``size`` is no multiple of the number of classes, or the test set would lose all of a class.
    """
    each, over = divmod(size, dataset.num_classes)
    if over or each < 1:
        raise ConfigError(
            f"with strategy.proxy=test trusted must be a multiple of the {dataset.num_classes} classes; got {size}"
        )
    fewest = int(np.bincount(dataset.y_test, minlength=dataset.num_classes).min())
    if each >= fewest:
        raise ConfigError(
            f"trusted={size} with strategy.proxy=test takes {each} examples of every class out of the test set, and one class "
            f"has {fewest}; lower trusted to {dataset.num_classes * (fewest - 1)} or less"
        )
    order = rng.numpy_generator(seed, "proxy").permutation(len(dataset.y_test))
    taken = np.sort(np.concatenate([order[dataset.y_test[order] == c][:each] for c in range(dataset.num_classes)]))
    x, y = dataset.features(dataset.x_test[taken]), torch.tensor(dataset.y_test[taken])
    kept = np.delete(np.arange(len(dataset.y_test)), taken)
    return replace(dataset, x_test=dataset.x_test[kept], y_test=dataset.y_test[kept]), (x, y)
