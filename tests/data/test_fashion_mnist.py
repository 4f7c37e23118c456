import gzip
import hashlib
import struct

import numpy as np
import pytest

from fedagg.data import fashion_mnist
from fedagg.data.fashion import ENVIRONMENT, FILES, read_idx
from fedagg.errors import DatasetUnavailable

INSTALL = "apt-get install dataset-fashion-mnist"


def idx(values, magic=b"\0\0\x08"):
    values = np.asarray(values, dtype=np.uint8)
    return magic + bytes([values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    monkeypatch.delenv(ENVIRONMENT, raising=False)


@pytest.fixture(scope="module")
def copy(fashion, tmp_path_factory):
    """A folder with the four files written anew: images compressed, labels not."""
    folder = tmp_path_factory.mktemp("fashion")
    arrays = (fashion.x_train[:, 0], fashion.y_train, fashion.x_test[:, 0], fashion.y_test)
    for name, array in zip(FILES, arrays, strict=True):
        if "images" in name:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array), compresslevel=1))
        else:
            (folder / name).write_bytes(idx(array))
    return folder


# The real set


def test_shapes_counts_and_first_labels(fashion):
    assert fashion.input_shape == (1, 28, 28)
    assert fashion.x_train.shape == (60000, 1, 28, 28)
    assert fashion.x_test.shape == (10000, 1, 28, 28)
    assert fashion.x_train.dtype == np.uint8
    assert fashion.y_train.dtype == np.int64
    assert fashion.y_train[:8].tolist() == [9, 0, 0, 3, 0, 2, 7, 2]
    assert fashion.y_test[:8].tolist() == [9, 2, 1, 1, 6, 1, 4, 6]
    assert np.bincount(fashion.y_train).tolist() == [6000] * 10
    assert np.bincount(fashion.y_test).tolist() == [1000] * 10
    assert len(fashion.class_names) == 10
    assert fashion.source


def test_values_are_the_published_ones(fashion):
    arrays = (fashion.x_train, fashion.y_train, fashion.x_test, fashion.y_test)
    for array, (_, digest) in zip(arrays, FILES.values(), strict=True):
        assert hashlib.sha256(array.astype(np.uint8).tobytes()).hexdigest() == digest


def test_features_are_standardised(fashion):
    """Mean and standard deviation of all 47 million pixels, from their histogram in exact arithmetic."""
    histogram = sum(np.bincount(part.ravel(), minlength=256) for part in np.split(fashion.x_train, 20))
    levels = fashion.features(np.arange(256, dtype=np.uint8)).double().numpy()
    mean = (histogram * levels).sum() / histogram.sum()
    variance = (histogram * levels**2).sum() / histogram.sum() - mean**2
    assert abs(mean) < 1e-6
    assert abs(variance - 1) < 1e-6
    assert abs(float(fashion.shift) / 255 - 0.2860) < 5e-5
    assert abs(float(fashion.scale) / 255 - 0.3530) < 5e-5


def test_a_folder_of_your_own(fashion, copy, monkeypatch):
    given = fashion_mnist(dir=str(copy))
    assert given.fingerprint == fashion.fingerprint
    assert given.source == str(copy)
    monkeypatch.setenv(ENVIRONMENT, str(copy))
    assert fashion_mnist().source == str(copy)


def test_the_argument_goes_before_the_environment(copy, tmp_path, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    assert fashion_mnist(dir=copy).source == str(copy)
    with pytest.raises(DatasetUnavailable, match=f"environment variable {ENVIRONMENT}"):
        fashion_mnist()


def test_other_values_of_the_right_shape_are_refused(copy, tmp_path):
    for path in copy.iterdir():
        (tmp_path / path.name).symlink_to(path)
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    raw = bytearray(labels.read_bytes())
    raw[8] ^= 1
    labels.unlink()
    labels.write_bytes(raw)
    with pytest.raises(DatasetUnavailable, match=r"does not hold the published Fashion-MNIST values.*SHA-256"):
        fashion_mnist(dir=tmp_path)


# What is missing or broken


def test_missing_files_are_named_with_the_fix(tmp_path):
    with pytest.raises(DatasetUnavailable) as caught:
        fashion_mnist(dir=tmp_path / "nowhere")
    message = str(caught.value)
    for part in ("train-images-idx3-ubyte", str(tmp_path / "nowhere"), "data.dir", "none is there", INSTALL, "data=digits"):
        assert part in message
    assert isinstance(caught.value, OSError)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx([1, 2]))
    with pytest.raises(DatasetUnavailable, match="missing: train-images-idx3-ubyte, t10k-images-idx3-ubyte, t10k-labels"):
        fashion_mnist(dir=tmp_path)


def test_the_debian_folder_is_where_one_looks_at_last(tmp_path, monkeypatch):
    monkeypatch.setattr("fedagg.data.fashion.DEBIAN_FOLDER", tmp_path)
    monkeypatch.setenv(ENVIRONMENT, "")
    with pytest.raises(DatasetUnavailable, match="Debian package"):
        fashion_mnist()


def test_wrong_shape_is_refused(tmp_path):
    for name in FILES:
        (tmp_path / name).write_bytes(idx(np.zeros((3, 28, 28))))
    with pytest.raises(DatasetUnavailable, match=r"must have shape \(60000, 28, 28\); it has \(3, 28, 28\)"):
        fashion_mnist(dir=tmp_path)


# IDX files


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("shape", [(5,), (2, 3), (4, 3, 2), (0,)])
def test_idx_is_read_whatever_its_name(tmp_path, pack, shape):
    values = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    path = tmp_path / "any.name"
    path.write_bytes(pack(idx(values)))
    np.testing.assert_array_equal(read_idx(path), values)


GOOD = idx(np.arange(200).reshape(2, 100))


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (GOOD[:-1], r"must hold 200 values, its header says \(2 x 100\); it holds 199"),
        (GOOD + b"x", "it holds 201"),
        (GOOD[:9], "IDX file of unsigned bytes"),
        (GOOD[:2], "it starts with '00 00'"),
        (b"", "it starts with ''"),
        (b"garbage that is no data", "it starts with '67 61 72 62'"),
        (idx([1, 2, 3], magic=b"\0\0\x0d"), "IDX file of unsigned bytes"),
        (gzip.compress(GOOD, mtime=0)[:-20], "cut short"),
        (b"\x1f\x8b" + b"no archive at all", "cannot be read"),
        (gzip.compress(GOOD, mtime=0)[:30] + b"\xff" * 60, "cannot be read"),
    ],
)
def test_broken_files_say_what_is_wrong(tmp_path, raw, says):
    path = tmp_path / "broken"
    path.write_bytes(raw)
    with pytest.raises(DatasetUnavailable, match=says) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)
    assert INSTALL in str(caught.value)
