"""Overrides as Hydra's command line reads them, and what they come to."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException

from fedagg.console import config_dir
from fedagg.errors import ConfigError

WORDS = ("null", "true", "false", "nan", "inf")  # that are no strings unless they are quoted


def written(key: str, value: Any) -> str:
    """Return one override as Hydra reads it.

    Example:
        >>> written("local.lr", 0.1), written("data.dir", "/a b"), written("model.hidden", [64, 32])
        ('local.lr=0.1', "data.dir='/a b'", 'model.hidden=[64,32]')
    """
    return f"{key}={_grammar(value)}"


def _grammar(value: Any) -> str:
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z_][\w.:/@+-]*", value, re.ASCII) and value.lower() not in WORDS
        return value if plain else "'" + re.sub(r"(\\*)('|\Z)", _escaped, value) + "'"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_grammar(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_grammar, value)) + "]"
    return repr(value) if isinstance(value, float) else json.dumps(value)  # JSON's Infinity is a string to Hydra


def _escaped(found: re.Match[str]) -> str:
    """Double the backslashes before a quote; elsewhere they mean themselves."""
    return 2 * found[1] + ("\\'" if found[2] else "")


def choices_of(group: str, *roots: Path) -> list[str]:
    """Return the choices of a config group, of ours and of other folders with groups; those with a _ in front are parts."""
    found = {file.stem for root in (config_dir(), *roots) for file in (root / group).glob("*.yaml")}
    return sorted(name for name in found if not name.startswith("_"))


def matching(text: str, group: str, *roots: Path) -> list[str]:
    """Return the choices of a config group that Hydra's ``glob(...)`` picks.

    Raises:
        ConfigError: it is no glob, or picks nothing.
    """
    pattern: Any = parsed(f"{group}={text}").value()
    if not isinstance(pattern, Glob):
        raise ConfigError(f"{group} must be a list, or glob(*) for all its choices; got {text}")
    known = choices_of(group, *roots)
    picked: list[str] = pattern.filter(known)
    if not picked:
        raise ConfigError(f"{group}: {text} picks none of {', '.join(known) or 'no choices: it is no config group'}")
    return picked


@cache
def parsed(override: str) -> Override:
    """Return an override as Hydra understands it. Its parser takes milliseconds, and sweeps repeat themselves.

    Raises:
        ConfigError: it is none.
    """
    try:
        (found,) = OverridesParser.create().parse_overrides([override])
    except HydraException as error:
        raise ConfigError(f"{override} is not key=value: {' '.join(str(error).split())}") from None
    return found


def values_of(override: str, *roots: Path) -> list[Any]:
    """Return the values of an override, several where they are separated by commas as in a Hydra sweep.

    Args:
        override: ``key=value``, or what Hydra sweeps over: ``key=1,2``, ``key=range(3)``, ``group=glob(*)``.
        roots: folders beside ours whose config groups a glob looks through.

    Raises:
        ConfigError: it is none of these, or picks nothing.

    Example:
        >>> values_of("seed=0,1"), values_of("strategy=krum"), values_of("model.hidden=[64,32]")
        ([0, 1], ['krum'], [[64, 32]])
    """
    found = parsed(override)
    if isinstance(found.value(), Glob):
        return list(matching(override.partition("=")[2], found.key_or_group, *roots))
    if not found.is_sweep_override():
        return [found.value()]
    if not found.is_discrete_sweep():
        raise ConfigError(f"{override} has no list of values; write them out, or use range(...)")
    return [parsed(f"{found.key_or_group}={text}").value() for text in found.sweep_string_iterator()]
