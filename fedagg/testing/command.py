"""``fedagg check``: one line per promise of a plug-in, from the command line."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedagg.console import suggest
from fedagg.errors import ConfigError
from fedagg.instantiate import make
from fedagg.testing import examine


def check(path: str, arguments: Sequence[str], exempt: Sequence[str] = ()) -> int:
    """Print what every check of a plug-in comes to; return 1 if one failed, otherwise 0.

    Args:
        path: its class, like ``my_pkg.MyRule``.
        arguments: ``key=value`` for its constructor, the value as YAML. Where ``f`` is required and not given, it is 1.
        exempt: ``check=reason``.

    Raises:
        ConfigError: no such class, wrong arguments, no plug-in, or an exemption of no check or without a reason.
    """
    plugin = build(path, arguments)
    reasons = dict(_pair(word, "check=reason") for word in exempt)
    outcomes = examine(plugin, reasons)
    print(f"{plugin!r}")
    width = max(len(outcome.name) for outcome in outcomes)
    for outcome in outcomes:
        print(f"  {outcome.result:<6}  {outcome.name:<{width}}  {outcome.detail}")
    failed = sum(outcome.failed for outcome in outcomes)
    print(f"{len(outcomes)} checks, {f'{failed} failed' if failed else 'all kept'}")
    return 1 if failed else 0


def build(path: str, arguments: Sequence[str]) -> Any:
    """Return the object that ``path`` and ``arguments`` describe; see ``check``."""
    cls = find(path)
    pairs = [_pair(word, "key=value") for word in arguments]
    f = inspect.signature(cls).parameters.get("f")
    if f is not None and f.default is f.empty and not any(key == "f" for key, _ in pairs):
        pairs.append(("f", "1"))
    try:
        given = OmegaConf.from_dotlist([f"{key}={value}" for key, value in pairs])
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(f"{' '.join(arguments)}: {' '.join(str(error).split())}") from error
    return make(OmegaConf.create({"check": {"_target_": path, **given}}), "check")


def find(path: str) -> type:
    """Return the class at a dotted path; ``ConfigError`` names the nearest one of its module."""
    module, _, name = path.rpartition(".")
    if not module:
        raise ConfigError(f"{path} has no module; write it as in an import, like my_pkg.{path}")
    try:
        home = import_module(module)
    except ImportError as error:
        raise ConfigError(f"{path}: {error}. It must be in this folder, in PYTHONPATH, or installed") from error
    classes = [known for known in dir(home) if inspect.isclass(getattr(home, known, None))]
    found = getattr(home, name, None)
    if not inspect.isclass(found):
        what = "is no class" if found is not None else "does not exist"
        raise ConfigError(f"{path} {what}{suggest(name, classes)}. Classes there: {', '.join(classes) or 'none'}")
    return found


def _pair(word: str, form: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not key or not equals:
        raise ConfigError(f"{word} is not {form}")
    return key, value
