"""The loaders of shipped data sets, on small files of their formats whose every value is known; nothing need be installed."""

import gzip
import hashlib
import sys
from dataclasses import replace
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest

from fedagg.data import mlbench as mlbench_module
from fedagg.data import mnist as mnist_module
from fedagg.data import newsgroups, reuters_r8, shakespeare, vowel, watch_activity
from fedagg.data import plays as plays_module
from fedagg.data import texts as texts_module
from fedagg.data import watch as watch_module
from fedagg.data.mnist import mnist_5k
from fedagg.errors import ConfigError, DatasetUnavailable

# Shakespeare


PLAY = b"""# A Play

## ACT I

_Enter ANN and BOB_

Lost words before anybody speaks
**ANN**
abcde

**BOB**
*Aside*
xy

**ANN**
_(kneels)_
fg
"""  # ANN says "abcde\nfg\n", 9 characters; BOB says "xy\n"


@pytest.fixture
def plays(tmp_path, monkeypatch):
    (tmp_path / "comedies").mkdir()
    (tmp_path / "comedies" / "a-play.md").write_bytes(PLAY)
    monkeypatch.setattr(plays_module, "FILES", replace(plays_module.FILES, sha256=hashlib.sha256(PLAY).hexdigest()))
    return tmp_path


def windows(data, part="train"):
    """What is read and what is asked for, as text."""
    names = data.class_names
    return [
        ("".join(names[number] for number in row), names[label])
        for row, label in zip(getattr(data, f"x_{part}"), getattr(data, f"y_{part}"), strict=True)
    ]


def test_a_role_is_one_text_without_headings_and_directions(plays):
    data = shakespeare(window=1, stride=1, test_stride=1, test_fraction=1e-9, min_characters=1, dir=plays)
    assert data.owner_names == ("a-play: ANN", "a-play: BOB")
    assert "".join(data.class_names) == "\nabcdefgxy"
    assert "".join(asked for _, asked in windows(data)) == "bcde\nfg\n" + "y\n"
    assert data.owners.tolist() == [0] * 8 + [1] * 2
    assert data.source == str(plays)


def test_the_end_of_a_role_is_asked_for_in_tests_alone(plays):
    """A third of the 9 characters of "abcde|fg|" (| is a line break): f, g and the last line break."""
    options = {"window": 2, "test_fraction": 1 / 3, "min_characters": 4, "dir": plays}
    data = shakespeare(stride=1, test_stride=1, **options)
    assert windows(data) == [("ab", "c"), ("bc", "d"), ("cd", "e"), ("de", "\n")]
    assert windows(data, "test") == [("e\n", "f"), ("\nf", "g"), ("fg", "\n")]
    assert data.owner_names == ("a-play: ANN",)
    assert data.num_classes == 10  # BOB is left out, his characters are not
    data = shakespeare(stride=3, test_stride=2, **options)
    assert windows(data) == [("ab", "c"), ("de", "\n")]
    assert windows(data, "test") == [("e\n", "f"), ("fg", "\n")]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"min_characters": 3, "window": 2, "test_fraction": 1 / 3},
            "a-play: BOB, 3 characters long, has 2. Raise",
        ),
        ({"min_characters": 10}, "data.min_characters=10 leaves no role; the longest has 9"),
        ({"window": 0}, "data.window must be an integer >= 1; got 0"),
        ({"stride": 1.5}, "data.stride must be an integer"),
        ({"test_stride": 0}, "data.test_stride must be an integer"),
        ({"test_fraction": 1}, "data.test_fraction must be between 0 and 1"),
    ],
)
def test_impossible_windows_are_refused(plays, options, says):
    with pytest.raises(ConfigError, match=says):
        shakespeare(dir=plays, **options)


# Texts


TABLES = {
    "reuters-r8-train.tab": b"Category\tText\nd\tstring\nclass\n\nwheat\tb a b c\ngold\ta b d \n\t\n",
    "reuters-r8-test.tab": b"Category\tText\nd\tstring\nclass\n\ngold\td z b a a b c\n",
}


@pytest.fixture
def tables(tmp_path, monkeypatch):
    for name, content in TABLES.items():
        (tmp_path / name).write_bytes(content)
    digest = hashlib.sha256(b"".join(TABLES[name] for name in sorted(TABLES))).hexdigest()
    monkeypatch.setitem(texts_module.SHA256, "reuters-r8", digest)
    return tmp_path


def test_words_are_numbered_by_how_often_they_occur_in_training_texts(tables):
    """b three times, a twice, then c before d; z was never seen."""
    data = reuters_r8(vocabulary=6, length=5, dir=tables)
    assert data.class_names == ("gold", "wheat")
    assert data.y_train.tolist() == [1, 0]
    assert data.y_test.tolist() == [0]
    assert data.x_train.tolist() == [[2, 3, 2, 4, 0], [3, 2, 5, 0, 0]]
    assert data.x_test.tolist() == [[5, 1, 2, 3, 3]]
    assert reuters_r8(vocabulary=4, length=3, dir=tables).x_train.tolist() == [[2, 3, 2], [3, 2, 1]]


def test_numbers_of_words_arrive_as_they_are(tables):
    data = reuters_r8(vocabulary=2**20, length=2, dir=tables)
    assert data.tokens
    assert data.x_train.dtype == np.int32
    assert data.features(np.array([[2**20 - 1, 0]], np.int32)).tolist() == [[2**20 - 1, 0]]


@pytest.mark.parametrize("options", [{"vocabulary": 2}, {"vocabulary": 10.0}, {"length": 0}])
def test_a_vocabulary_without_words_is_refused(options):
    with pytest.raises(ConfigError, match=f"data.{next(iter(options))} must be an integer >= "):
        newsgroups(**options)


# Watch activity


@pytest.fixture
def series(tmp_path, monkeypatch):
    """Three people with a series each; sample t of series s has the value 100 s + t in all six axes."""
    lengths = [7, 5, 4]
    x = [np.repeat(100.0 * s + np.arange(length)[:, None], 6, axis=1) for s, length in enumerate(lengths)]
    file = BytesIO()
    np.save(file, {"X": x, "y": np.array([0, 6, 3]), "subject": np.array([1, 2, 5])}, allow_pickle=True)
    (tmp_path / "watch_dataset.npy").write_bytes(file.getvalue())
    digest = hashlib.sha256(file.getvalue()).hexdigest()
    monkeypatch.setattr(watch_module, "FILES", replace(watch_module.FILES, sha256=digest))
    return tmp_path


def test_series_are_cut_into_windows_of_one_person(series):
    data = watch_activity(test_subjects=[2], window=3, stride=2, dir=series)
    assert data.x_train[:, 0].tolist() == [[0, 1, 2], [2, 3, 4], [4, 5, 6], [200, 201, 202]]
    assert (data.x_train == data.x_train[:, :1]).all()
    assert data.y_train.tolist() == [0, 0, 0, 3]
    assert data.owners.tolist() == [0, 0, 0, 1]
    assert data.owner_names == ("subject 1", "subject 5")
    assert data.x_test[:, 5].tolist() == [[100, 101, 102], [102, 103, 104]]
    assert data.y_test.tolist() == [6, 6]
    values = [0, 1, 2, 2, 3, 4, 4, 5, 6, 200, 201, 202]
    np.testing.assert_allclose(data.shift, np.full((6, 1), np.mean(values)), rtol=1e-6)
    np.testing.assert_allclose(data.scale, np.full((6, 1), np.std(values)), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"test_subjects": []}, r"must be some of \[1, 2, 5\], not all; got \[\]"),
        ({"test_subjects": [1, 2, 5]}, "not all"),
        ({"test_subjects": [1, 3]}, r"got \[1, 3\]"),
        ({"test_subjects": [1], "window": 5}, "data.window must be at most 4, the shortest series; got 5"),
        ({"window": 0}, "data.window must be an integer >= 1"),
        ({"stride": "2"}, "data.stride must be an integer >= 1"),
    ],
)
def test_impossible_cuts_are_refused(series, options, says):
    with pytest.raises(ConfigError, match=says):
        watch_activity(dir=series, **options)


# A pickle is read only once its content is known


def test_a_pickle_of_somebody_else_is_not_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("a pickle was opened",)

    np.save(tmp_path / "watch_dataset.npy", Trap(), allow_pickle=True)
    with pytest.raises(DatasetUnavailable, match="with SHA-256"):
        watch_activity(dir=tmp_path)


# MNIST-5k


def test_mnist_5k_has_the_label_last_and_every_class_in_both_parts(tmp_path, monkeypatch):
    rows = [[label * 20 + number] * 784 + [label] for label in range(10) for number in range(5)]
    text = "".join(",".join(map(str, row)) + "\n" for row in rows).encode()
    (tmp_path / "mnist_5k.csv.gz").write_bytes(gzip.compress(text))
    monkeypatch.setattr(mnist_module, "FILES", replace(mnist_module.FILES, sha256=hashlib.sha256(text).hexdigest()))
    data = mnist_5k(dir=tmp_path)
    assert data.x_train.shape == (40, 1, 28, 28)
    assert np.bincount(data.y_train).tolist() == [4] * 10
    assert np.bincount(data.y_test).tolist() == [1] * 10
    assert (data.x_train[:, 0, 3, 4] // 20 == data.y_train).all()
    assert data.features(np.full((1, 1, 28, 28), 51, np.uint8)).flatten()[0] == np.float32(51) / 255


# Tables of mlbench


@pytest.fixture
def speakers(tmp_path, monkeypatch):
    """Three speakers with two rows each, handed over as ``rdata`` would."""
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(
        {
            "V1": pandas.Categorical([0, 0, 1, 1, 2, 2]),
            "V2": [1.0, 3.0, 50.0, 60.0, 5.0, 7.0],
            "V3": [0.0, 2.0, 70.0, 80.0, 2.0, 0.0],
            "Class": pandas.Categorical(["hid", "had", "hid", "had", "hid", "had"], categories=["hid", "had"]),
        }
    )
    (tmp_path / "Vowel.rda").write_bytes(b"")
    monkeypatch.setitem(mlbench_module.SHA256, "Vowel", hashlib.sha256(b"").hexdigest())
    reader = SimpleNamespace(read_rda=lambda file, default_encoding: {"Vowel": table})
    monkeypatch.setitem(sys.modules, "rdata", reader)
    return tmp_path


def test_columns_are_standardised_by_those_who_train(speakers):
    data = vowel(test_speakers=[1], dir=speakers)
    assert data.x_train.tolist() == [[1, 0], [3, 2], [5, 2], [7, 0]]
    assert data.x_test.tolist() == [[50, 70], [60, 80]]
    assert data.shift.tolist() == [4, 1]
    np.testing.assert_allclose(data.scale, [5**0.5, 1], rtol=1e-6)
    assert data.class_names == ("hid", "had")
    assert data.y_train.tolist() == [0, 1, 0, 1]
    assert data.owners.tolist() == [0, 0, 1, 1]
    assert data.owner_names == ("speaker 0", "speaker 2")


@pytest.mark.parametrize("chosen", [[], [0, 1, 2], [0, 3]])
def test_impossible_speakers_are_refused(speakers, chosen):
    with pytest.raises(ConfigError, match=r"data\.test_speakers must be some of \[0, 1, 2\], not all"):
        vowel(test_speakers=chosen, dir=speakers)


def test_a_reader_that_is_missing_is_named(tmp_path, monkeypatch):
    (tmp_path / "Vowel.rda").write_bytes(b"")
    monkeypatch.setitem(mlbench_module.SHA256, "Vowel", hashlib.sha256(b"").hexdigest())
    monkeypatch.setitem(sys.modules, "rdata", None)
    with pytest.raises(DatasetUnavailable, match="'pip install rdata'"):
        vowel(dir=tmp_path)
