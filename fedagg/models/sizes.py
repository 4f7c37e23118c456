"""What models refuse."""

from __future__ import annotations

from collections.abc import Sequence

from fedagg.errors import ConfigError


def sizes(name: str, values: Sequence[int]) -> list[int]:
    """Return ``values`` as a list.

    Raises:
        ConfigError: one that is no integer >= 1.
    """
    if any(not isinstance(value, int) or isinstance(value, bool) or value < 1 for value in values):
        raise ConfigError(f"model.{name} must be integers >= 1; got {list(values)}")
    return list(values)


def size(name: str, value: int) -> int:
    """Return ``value``.

    Raises:
        ConfigError: it is no integer >= 1.
    """
    return sizes(name, [value])[0]


def probability(name: str, value: float) -> float:
    """Return ``value``.

    Raises:
        ConfigError: it does not lie in [0, 1).
    """
    if not isinstance(value, int | float) or not 0 <= value < 1:
        raise ConfigError(f"model.{name} must lie in [0, 1); got {value}")
    return value


def picture(model: str, input_shape: Sequence[int], smallest: int) -> list[int]:
    """Return (channels, height, width).

    Raises:
        ConfigError: rows of another form, or pictures smaller than ``smallest`` x ``smallest``.
    """
    shape = sizes("input_shape", input_shape)
    if len(shape) != 3 or min(shape[1:]) < smallest:
        raise ConfigError(
            f"model={model} needs pictures (channels, height, width) of at least {smallest} x {smallest} pixels; this data "
            f"set's rows have shape {tuple(shape)}. Take model=mlp or model=logistic_regression"
        )
    return shape
