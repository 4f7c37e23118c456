"""Overrides are written as Hydra's own parser reads them, whatever is in them."""

from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st

from fedagg import ConfigError
from fedagg.overrides import values_of, written

# No surrogates, which are no text, and no NUL, which no command line can hold
TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")) | st.text(" \\'\",=[]{}()$:\n\taé01")
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True).filter(
    lambda name: name not in ("null", "true", "false", "nan", "inf")
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)


def same(one: Any, other: Any) -> bool:
    """1 is not 1.0 is not True here, and -0.0 is not 0.0."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and repr(one) == repr(other)


def read(override: str) -> Any:
    (found,) = OverridesParser.create().parse_overrides([override])
    assert found.key_or_group == "local.lr"
    return found.value()


@given(VALUES)
@example("a\\b")
@example("\\'")
@example("\\")
@example("é")
@example("True")
@example("Infinity")
@example(float("inf"))
@example(float("-inf"))
@example([1e-5, -0.0, 1e300])
def test_there_and_back(value: Any) -> None:
    assert same(read(written("local.lr", value)), value)
    assert same(values_of(written("local.lr", value)), [value])


@given(st.lists(VALUES, min_size=2, max_size=3))
def test_several(values: list[Any]) -> None:
    text = ",".join(written("local.lr", value).partition("=")[2] for value in values)
    assert same(values_of(f"local.lr={text}"), values)


@pytest.mark.parametrize(
    ("override", "values"),
    [
        ("a=1e-3,1e-5", [0.001, 1e-5]),
        ("a=yes,on", ["yes", "on"]),
        ("a=12:30", ["12:30"]),
        ("a=", [""]),
        ("a='x,y','z'", ["x,y", "z"]),
        ("a=[1,2],{k:'v w'}", [[1, 2], {"k": "v w"}]),
        ("a=range(1,8,3)", [1, 4, 7]),
        ("a=choice(x,2)", ["x", 2]),
        ("+a=1,2", [1, 2]),
        ("a=x y", ["x y"]),
    ],
)
def test_read_as_hydra_does(override: str, values: list[Any]) -> None:
    assert same(values_of(override), values)


@pytest.mark.parametrize("text", ["", "a", "a=[", "a='", "a=1,"])
def test_no_override(text: str) -> None:
    with pytest.raises(ConfigError, match="is not key=value"):
        values_of(text)
