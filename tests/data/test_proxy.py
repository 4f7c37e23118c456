"""Examples that leave the test set for the server."""

import numpy as np
import pytest
import torch

from fedagg import ConfigError
from fedagg.data import Dataset
from fedagg.data.proxy import take_from_test


def test_as_many_of_each_class_and_the_rest_evaluates(dataset: Dataset) -> None:
    rest, (x, y) = take_from_test(dataset, 50, seed=3)
    assert torch.bincount(y).tolist() == [5] * 10
    assert x.shape == (50, 1, 8, 8)
    assert len(rest.y_test) == len(dataset.y_test) - 50
    whole = sorted(row.tobytes() for row in np.asarray(dataset.features(dataset.x_test)))
    parts = [*np.asarray(x), *np.asarray(rest.features(rest.x_test))]
    assert sorted(row.tobytes() for row in parts) == whole
    assert np.array_equal(rest.x_train, dataset.x_train)


def test_the_seed_decides_which(dataset: Dataset) -> None:
    one, again, other = (take_from_test(dataset, 50, seed)[1][0] for seed in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("size", "message"), [(0, "multiple of the 10 classes; got 0"), (55, "multiple of the 10"), (10**4, "lower")]
)
def test_impossible_numbers(dataset: Dataset, size: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        take_from_test(dataset, size, seed=0)
