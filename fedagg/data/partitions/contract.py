"""What a partition is, and what partitions share: looking at their arguments, and cutting rows into pieces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fedagg.compact import Integers
from fedagg.errors import ConfigError

Indices = list[npt.NDArray[np.int64]]
Labels = npt.NDArray[Any] | Tensor


class Partition(Protocol):
    """Anything that shares samples out by their labels.

    Three attributes are read where a partition has them:

        reads       name of the array of ``Dataset`` that it is called with, one entry a training row; by default ``y_train``
        min_size    0 says that empty clients are meant
        transform   ``(x [m, ...], dataset, client, seed) -> [m, ...]``, what becomes of the features of a client's samples;
                    see ``FeatureSkew``
    """

    def __call__(self, labels: Labels, num_clients: int, seed: int, /) -> Sequence[Integers]:
        """Return one integer index array a client, for labels [M]."""
        ...


def reads(partition: object) -> str:
    """Return the name of the array of a data set that a partition is called with."""
    return str(getattr(partition, "reads", "y_train"))


def is_integer(value: object) -> bool:
    """Whether a value is a whole number; True and 2.0 are not."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether a value is a number; True is not."""
    return is_integer(value) or isinstance(value, float | np.floating)


def require_integer(partition: object, name: str, least: int) -> None:
    """Raise a ConfigError unless the attribute ``name`` is an integer of at least ``least``."""
    value = getattr(partition, name)
    if not (is_integer(value) and value >= least):
        raise ConfigError(f"{type(partition).__name__} needs an integer {name} >= {least}; got {name}={value}")


def require_positive(partition: object, name: str, hint: str = "") -> None:
    """Raise a ConfigError, with a hint, unless the attribute ``name`` is a finite number above 0."""
    value = getattr(partition, name)
    if not (is_number(value) and value > 0 and math.isfinite(value)):
        raise ConfigError(f"{type(partition).__name__} needs a finite {name} > 0; got {name}={value}{hint}")


def require_between(partition: object, name: str, least: float, most: float) -> None:
    """Raise a ConfigError unless the attribute ``name`` is a number from ``least`` to ``most``."""
    value = getattr(partition, name)
    if not (is_number(value) and least <= value <= most):
        raise ConfigError(f"{type(partition).__name__} needs a {name} between {least} and {most}; got {name}={value}")


def require_enough(partition: object, num_clients: int, min_size: int, samples: int) -> None:
    """Raise a ConfigError where there are fewer samples than the clients must have."""
    if num_clients * min_size > samples:
        raise ConfigError(
            f"{partition} needs num_clients * min_size <= samples; got {num_clients} * {min_size} > {samples}. "
            "Lower the number of clients or min_size"
        )


def too_small(partition: object, knob: str, num_clients: int, samples: int, draws: int, smallest: int) -> ConfigError:
    """Return the error of a partition that drew ``draws`` times and never gave every client its ``min_size``."""
    least = getattr(partition, "min_size", 0)
    return ConfigError(
        f"{partition} needs samples >= {least} on each of {num_clients} clients; in {draws} draws from {samples} samples the "
        f"smallest client never had more than {smallest}. Raise {knob}, lower the number of clients or lower min_size; "
        "min_size=0 allows empty clients, which then take part in no round"
    )


def checked_numbers(partition: object, num_clients: int, seed: int) -> None:
    """Raise a ConfigError for a number of clients or a seed that is none."""
    if not (is_integer(num_clients) and num_clients >= 1):
        raise ConfigError(f"{partition} needs an integer number of clients >= 1; got {num_clients}")
    if not (is_integer(seed) and seed >= 0):
        raise ConfigError(f"{partition} needs an integer seed >= 0; got {seed}")


def checked_labels(partition: object, labels: Labels) -> npt.NDArray[np.int64]:
    """Return the labels as an int64 array, or raise a ConfigError."""
    values = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise ConfigError(f"{partition} needs integer labels [M]; got {values.dtype} {list(values.shape)}")
    return values.astype(np.int64)


def checked(partition: object, labels: Labels, num_clients: int, seed: int, *, disjoint: bool = True) -> npt.NDArray[np.int64]:
    """Return the labels as an int64 array, or raise a ConfigError that names which argument is wrong."""
    values = checked_labels(partition, labels)
    checked_numbers(partition, num_clients, seed)
    if disjoint and num_clients > len(values):
        raise ConfigError(
            f"{partition} needs at most as many clients as samples; got {num_clients} clients, {len(values)} samples. "
            "Lower the number of clients"
        )
    return values


def by_class(labels: npt.NDArray[np.int64]) -> Indices:
    """Return, for each class in ascending order, where it occurs in ascending order."""
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]


def pieces(rows: npt.NDArray[np.int64], count: int) -> Indices:
    """Cut into ``count`` pieces whose sizes differ by one at most, the longer ones first."""
    return list(np.array_split(rows, count))


def dirichlet(partition: object, alpha: float, count: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw [count] proportions from the symmetric Dirichlet distribution; a ConfigError where floating point cannot."""
    proportions = generator.dirichlet(np.full(count, float(alpha)))
    if not abs(proportions.sum() - 1) < 1e-6:  # NaN, or all zero where alpha * count overflows
        raise ConfigError(f"{partition} is beyond what floating point can draw; take a concentration between 1e-3 and 1e6")
    return proportions
