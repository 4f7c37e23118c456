import hashlib
import pickle
import socket

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits

from fedagg.data import Dataset, breast_cancer, digits
from fedagg.errors import ConfigError


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a loader opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)


# digits


def test_digits_shapes_and_types():
    data = digits()
    assert data.input_shape == (1, 8, 8)
    assert data.num_classes == 10
    assert data.x_train.dtype == np.uint8
    assert data.y_train.dtype == np.int64
    assert len(data.x_train) == len(data.y_train) == 1438
    assert len(data.x_test) == len(data.y_test) == 359
    assert data.source.startswith("scikit-learn ")
    assert "digits" in repr(data)


def test_digits_holds_the_whole_set_once():
    x, y = load_digits(return_X_y=True)
    assert hashlib.sha256(x.astype(np.uint8).tobytes()).hexdigest() == (
        "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"
    )
    data = digits()
    whole = sorted((int(label), row.tobytes()) for label, row in zip(y, x.astype(np.uint8), strict=True))
    split = [*zip(data.y_train, data.x_train, strict=True), *zip(data.y_test, data.x_test, strict=True)]
    assert sorted((int(label), row.tobytes()) for label, row in split) == whole


def test_digits_features_are_grey_levels_over_16():
    data = digits()
    x = data.features(data.x_train[5:9])
    assert x.dtype == torch.float32
    np.testing.assert_array_equal(x.numpy() * 16, data.x_train[5:9])
    assert data.features(data.x_train).max() == 1


def test_test_rows_are_a_fixed_share_of_every_class():
    expected = [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]  # a fifth of 178 182 177 183 181 182 181 179 174 180
    assert np.bincount(digits().y_test).tolist() == expected
    assert np.bincount(digits(test_fraction=0.5).y_test).tolist() == [89, 91, 89, 92, 91, 91, 91, 90, 87, 90]
    assert np.bincount(breast_cancer().y_test).tolist() == [42, 71]
    torch.manual_seed(1)
    first = digits().x_test.tobytes()
    torch.manual_seed(2)
    assert digits().x_test.tobytes() == first


@pytest.mark.parametrize("loader", [digits, breast_cancer])
@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, 1e-4, 0.9999])
def test_a_test_fraction_that_leaves_nothing_is_refused(loader, fraction):
    with pytest.raises(ConfigError, match=r"data\.test_fraction"):
        loader(test_fraction=fraction)


@pytest.mark.parametrize("loader", [digits, breast_cancer])
def test_built_in_sets_read_no_folder(loader, tmp_path):
    with pytest.raises(ConfigError, match=r"inside scikit-learn.*data\.dir="):
        loader(dir=tmp_path)


# breast cancer


def test_breast_cancer_is_standardised_by_training_rows():
    data = breast_cancer()
    assert data.input_shape == (30,)
    assert data.num_classes == 2
    assert data.x_train.dtype == np.float32
    assert data.class_names == ("malignant", "benign")
    assert np.bincount(np.concatenate([data.y_train, data.y_test])).tolist() == [212, 357]
    x = data.features(data.x_train).double()
    assert x.shape == (456, 30)
    assert x.mean(dim=0).abs().max() < 1e-5
    assert (x.std(dim=0, correction=0) - 1).abs().max() < 1e-5
    raw = load_breast_cancer().data
    assert {row.tobytes() for row in data.x_test} <= {row.astype(np.float32).tobytes() for row in raw}


# the Dataset itself


def test_features_are_new_and_leave_the_arrays_alone(toy):
    rows = toy.x_train[:3]
    x = toy.features(rows)
    np.testing.assert_array_equal(x, [[-0.5, -0.5], [0.0, 0.0], [0.5, 0.5]])
    x.zero_()
    np.testing.assert_array_equal(rows, [[0, 0], [1, 1], [2, 2]])
    with pytest.raises(ValueError, match="read-only"):
        toy.x_train[0] = 1
    assert toy.features(toy.x_train[:0]).shape == (0, 2)


def test_shift_and_scale_may_differ_by_column():
    x = np.array([[1.0, 10.0], [3.0, 30.0]], dtype=np.float32)
    data = Dataset("d", x, [0, 1], x, [0, 1], 2, "here", shift=[1, 10], scale=[2, 20])
    np.testing.assert_array_equal(data.features(x), [[0, 0], [1, 1]])


def test_fingerprint_hears_every_change(toy):
    def variant(**changes):
        fields = ("name", "x_train", "y_train", "x_test", "y_test", "num_classes", "source", "shift", "scale")
        return Dataset(**{**{field: getattr(toy, field) for field in fields}, **changes}).fingerprint

    assert variant() == toy.fingerprint
    assert variant(name="other", source="elsewhere") == toy.fingerprint
    other = toy.x_train.copy()
    other[7, 1] += 1
    labels = toy.y_train.copy()
    labels[[0, 1]] = labels[[1, 0]]
    changed = [
        variant(x_train=other),
        variant(y_train=labels),
        variant(x_test=toy.x_test[:-1], y_test=toy.y_test[:-1]),
        variant(x_train=toy.x_train.astype(np.int16), x_test=toy.x_test.astype(np.int16)),
        variant(x_train=toy.x_train.reshape(120, 1, 2), x_test=toy.x_test.reshape(10, 1, 2)),
        variant(shift=2.0),
        variant(scale=3.0),
    ]
    assert len({*changed, toy.fingerprint}) == 8


def test_fingerprint_by_hand():
    data = Dataset("d", np.array([[1], [2]], np.uint8), [0, 1], np.array([[3]], np.uint8), [1], 2, "here")
    one = b"x_train |u1 [2, 1]\n\1\2y_train <i8 [2]\n" + bytes(8) + b"\1" + bytes(7)
    two = b"x_test |u1 [1, 1]\n\3y_test <i8 [1]\n\1" + bytes(7) + b"shift <f4 []\n" + bytes(4) + b"scale <f4 []\n\0\0\x80\x3f"
    assert data.fingerprint == hashlib.sha256(one + two).hexdigest()


def test_owners_are_kept_and_join_the_fingerprint():
    x, y = np.array([[1], [2]], np.uint8), np.array([0, 1])

    def variant(**more):
        return Dataset("d", x, y, x, y, 2, "here", **more)

    data = variant(owners=np.array([1, 0], np.int8), owner_names=["ann", "bob"])
    assert data.owners.tolist() == [1, 0]
    assert data.owner_names == ("ann", "bob")
    with pytest.raises(ValueError, match="read-only"):
        data.owners[0] = 0
    fingerprints = {variant().fingerprint, data.fingerprint, variant(owners=[0, 1]).fingerprint}
    assert len(fingerprints) == 3
    assert variant(owners=[1, 0]).fingerprint == data.fingerprint  # names do not decide


def test_a_data_set_survives_pickling(toy):
    copy = pickle.loads(pickle.dumps(toy))
    assert copy.fingerprint == toy.fingerprint
    assert torch.equal(copy.features(copy.x_test), toy.features(toy.x_test))


X, Y = np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"y_train": Y[:3]}, "one label a row"),
        ({"y_test": Y + 1}, r"y_test must lie in 0 .. 1; got 1 .. 2"),
        ({"y_train": Y - 1}, "y_train must lie in"),
        ({"y_train": Y.astype(float)}, "must be integers"),
        ({"x_test": X[:, :1]}, "must be alike"),
        ({"x_test": X.astype(np.uint8)}, "must be alike"),
        ({"x_train": np.full_like(X, np.nan)}, "x_train must be finite"),
        ({"x_train": X.astype(str)}, "real numbers"),
        ({"x_train": X[:0], "y_train": Y[:0]}, "at least one training row"),
        ({"scale": 0.0}, "scale must not be 0"),
        ({"class_names": ["a"]}, "class_names needs 2"),
        ({"owners": Y[:3]}, r"owners needs one number a training row; got \(3,\)"),
        ({"owners": Y - 1}, "owners must be integers >= 0; got -1"),
        ({"owners": Y.astype(float)}, "owners must be integers; got float64"),
        ({"owners": Y, "owner_names": ["ann"]}, "owner_names needs 2 names or none; got 1"),
        ({"owner_names": ["ann"]}, "owner_names needs 0 names or none; got 1"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(changes, says):
    fields = {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y}
    with pytest.raises(ConfigError, match=f"data set d: .*{says}|data set d: {says}"):
        Dataset("d", num_classes=2, source="here", **{**fields, **changes})
