import numpy as np
import pytest

from fedagg.data import Dataset, fashion_mnist
from fedagg.errors import DatasetUnavailable


@pytest.fixture(scope="session")
def fashion() -> Dataset:
    """Fashion-MNIST, or a skip that says how to get it; a broken copy is no reason to skip."""
    try:
        return fashion_mnist()
    except DatasetUnavailable as error:
        if "none is there" not in str(error):
            raise
        pytest.skip("Fashion-MNIST is not on this machine: apt-get install dataset-fashion-mnist")


@pytest.fixture
def toy() -> Dataset:
    """120 rows that carry their own number, 4 classes; made in the test so that every value is known."""
    numbers = np.arange(130)
    x = np.stack([numbers, numbers % 7], axis=1).astype(np.uint8)
    return Dataset("toy", x[:120], numbers[:120] % 4, x[120:], numbers[120:] % 4, 4, "made here", shift=1.0, scale=2.0)
