"""Data sets: arrays kept small, and the rule that turns their rows into what a model reads."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedagg import rng
from fedagg.errors import ConfigError

Array = npt.NDArray[Any]

SPLIT_SEED = 0
"""Decides which rows of the scikit-learn sets are the test set. Not the run's seed: every run is measured on the same rows."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training set, a test set, and how raw values become features: ``(x - shift) / scale``.

    Raw values stay in their own small type (one byte a pixel); floats exist only for the rows somebody asks for. The arrays
    are read-only from here on.

    Args:
        name: short, as in tables and titles.
        x_train: [M, *input_shape], real numbers of any type.
        y_train: [M] integers, classes 0 .. num_classes - 1.
        x_test: [T, *input_shape], the same type as ``x_train``.
        y_test: [T].
        num_classes: C.
        source: where the values came from: a package and its version, or a path.
        shift: subtracted from raw values; one number, or anything that broadcasts to ``input_shape``.
        scale: divides what is left; never zero.
        class_names: what the classes are called; empty means that their numbers are their names.
        owners: [M] integers >= 0, who each training row comes from: the clients that nature made, for the partition
            ``Natural``. None where the rows do not say.
        owner_names: what the owners 0, 1, ... are called; empty means that their numbers are their names.
        tokens: whether the values are numbers of characters or words, for a model to look up, and no measurements.

    Raises:
        ConfigError: arrays that do not belong together, labels outside the classes, values that are not finite.

    Example:
        >>> x = np.array([[0], [2], [4]], dtype=np.uint8)
        >>> toy = Dataset("toy", x, [0, 1, 1], x[:1], [0], num_classes=2, source="typed in", shift=2, scale=2)
        >>> toy.features(toy.x_train[1:])
        tensor([[0.],
                [1.]])
    """

    name: str
    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    num_classes: int
    source: str
    shift: Array | float = 0.0
    scale: Array | float = 1.0
    class_names: Sequence[str] = ()
    owners: Array | None = None
    owner_names: Sequence[str] = ()
    tokens: bool = False

    def __post_init__(self) -> None:
        for field in ("x_train", "x_test"):
            self._keep(field, np.asarray(getattr(self, field)))
        for field in ("y_train", "y_test") if self.owners is None else ("y_train", "y_test", "owners"):
            labels = np.asarray(getattr(self, field))
            if labels.dtype.kind not in "iu":
                raise ConfigError(f"data set {self.name}: {field} must be integers; got {labels.dtype}")
            self._keep(field, labels.astype(np.int64))
        for field in ("shift", "scale"):
            self._keep(field, np.array(getattr(self, field), dtype=np.float32))
        for field in ("class_names", "owner_names"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        self._check()

    def _keep(self, field: str, array: Array) -> None:
        view = array.view()
        view.flags.writeable = False
        object.__setattr__(self, field, view)

    def _check(self) -> None:
        def require(possible: bool, needs: str, found: object) -> None:
            if not possible:
                raise ConfigError(f"data set {self.name}: {needs}; got {found}")

        for part in ("train", "test"):
            x, y = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
            require(x.dtype.kind in "iufb", f"x_{part} must hold real numbers", x.dtype)
            require(y.ndim == 1 and x.shape[:1] == y.shape, f"{part} needs one label a row", f"{x.shape} and {y.shape}")
            inside = y.size == 0 or (y.min() >= 0 and y.max() < self.num_classes)
            require(inside, f"y_{part} must lie in 0 .. {self.num_classes - 1}", f"{min(y, default=0)} .. {max(y, default=0)}")
            require(x.dtype.kind != "f" or bool(np.isfinite(x).all()), f"x_{part} must be finite", "NaN or infinity")
        same = (self.x_train.shape[1:], self.x_train.dtype) == (self.x_test.shape[1:], self.x_test.dtype)
        require(same, "train and test rows must be alike", f"{self.x_train.shape[1:]} and {self.x_test.shape[1:]}")
        require(len(self.y_train) > 0, "at least one training row is needed", "none")
        require(bool(np.all(self.scale)) and bool(np.all(np.isfinite(self.scale))), "scale must not be 0", self.scale)
        named = len(self.class_names) in (0, self.num_classes)
        require(named, f"class_names needs {self.num_classes} names or none", len(self.class_names))
        if self.owners is not None:
            require(self.owners.shape == self.y_train.shape, "owners needs one number a training row", self.owners.shape)
            require(int(self.owners.min()) >= 0, "owners must be integers >= 0", self.owners.min())
        known = 0 if self.owners is None else int(self.owners.max()) + 1
        count = len(self.owner_names)
        require(count == 0 or count >= known > 0, f"owner_names needs {known} names or none", count)

    def features(self, x: Array) -> Tensor:
        """Turn raw rows into what a model reads.

        Args:
            x: [m, *input_shape], some rows of ``x_train`` or ``x_test``.

        Returns:
            float32 [m, *input_shape], a new tensor.
        """
        values = np.array(x, dtype=np.float32)
        values -= self.shift
        values /= self.scale
        return torch.from_numpy(values)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one row: channels, height and width of an image, or the number of columns of a table."""
        return tuple(self.x_train.shape[1:])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of the arrays (owners only where there are some): each one's name, type, shape and bytes."""
        digest = hashlib.sha256()
        fields = ["x_train", "y_train", "x_test", "y_test", "shift", "scale"]
        for field in fields if self.owners is None else [*fields, "owners"]:
            array = np.asarray(getattr(self, field))
            little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
            digest.update(f"{field} {little.dtype.str} {list(array.shape)}\n".encode())
            digest.update(little.data)
        return digest.hexdigest()

    def __repr__(self) -> str:
        return (
            f"<Dataset {self.name}: {len(self.y_train)} + {len(self.y_test)} rows of shape {self.input_shape}, "
            f"{self.num_classes} classes, from {self.source}>"
        )


def digits(test_fraction: float = 0.2, dir: str | Path | None = None) -> Dataset:
    """1,797 handwritten digits of 8 x 8 pixels with 17 grey levels, which come with scikit-learn.

    Alpaydin & Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998 (its test half).
    Features are the grey levels divided by 16.

    Args:
        test_fraction: share of every class, rounded, that becomes the test set. Which rows is fixed, see ``SPLIT_SEED``.
        dir: must be None; there is nothing to read from a folder.

    Shapes: 1,438 + 359 rows of [1, 8, 8], stored as uint8; 10 classes.

    Raises:
        ConfigError: ``test_fraction`` leaves a class without training or test rows; ``dir`` is given.

    Example:
        >>> digits().input_shape
        (1, 8, 8)
    """
    _needs_no_folder("digits", dir)
    from sklearn import __version__ as version
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    test = stratified_test_rows(y, test_fraction)
    x = x.astype(np.uint8).reshape(-1, 1, 8, 8)
    return Dataset("digits", x[~test], y[~test], x[test], y[test], 10, f"scikit-learn {version}", scale=16.0)


def breast_cancer(test_fraction: float = 0.2, dir: str | Path | None = None) -> Dataset:
    """569 tumours, each described by 30 measurements of its cell nuclei; malignant (0) or benign (1). From scikit-learn.

    Street, Wolberg & Mangasarian, "Nuclear feature extraction for breast tumor diagnosis", 1993 (the Wisconsin diagnostic
    set). Features are standardised, column by column, with mean and standard deviation of the training rows.

    Args:
        test_fraction: share of both classes, rounded, that becomes the test set. Which rows is fixed, see ``SPLIT_SEED``.
        dir: must be None; there is nothing to read from a folder.

    Shapes: 456 + 113 rows of [30], stored as float32; 2 classes.

    Raises:
        ConfigError: ``test_fraction`` leaves a class without training or test rows; ``dir`` is given.
    """
    _needs_no_folder("breast_cancer", dir)
    from sklearn import __version__ as version
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    test = stratified_test_rows(y, test_fraction)
    shift, scale = x[~test].mean(axis=0), x[~test].std(axis=0)
    x, names = x.astype(np.float32), ("malignant", "benign")
    return Dataset(
        "breast_cancer", x[~test], y[~test], x[test], y[test], 2, f"scikit-learn {version}", shift, scale, class_names=names
    )


def _needs_no_folder(name: str, dir: str | Path | None) -> None:
    if dir is not None:
        raise ConfigError(f"data={name} is inside scikit-learn and reads no folder; got data.dir={dir}. Leave data.dir out")


def stratified_test_rows(labels: Array, fraction: float) -> npt.NDArray[np.bool_]:
    """Mark the test rows, a share of every class, chosen by ``SPLIT_SEED`` alone.

    Args:
        labels: [M] integers.
        fraction: the share; each class gives this much of its rows, rounded.

    Returns:
        [M] booleans, true for test rows.

    Raises:
        ConfigError: a fraction that leaves a class without training or test rows.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"data.test_fraction must be between 0 and 1; got {fraction}")
    test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = int(fraction * len(rows) + 0.5)
        if not 0 < count < len(rows):
            raise ConfigError(
                f"data.test_fraction must leave training and test rows of every class; {fraction} takes {count} of the "
                f"{len(rows)} rows of class {label}"
            )
        test[rng.numpy_generator(SPLIT_SEED, "test rows", int(label)).permutation(rows)[:count]] = True
    return test
