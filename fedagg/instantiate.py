"""The only module that turns a config's ``_target_`` into an object, and that says clearly why it cannot."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

import hydra.utils
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedagg import resolvers
from fedagg.errors import ConfigError, FedaggError

resolvers.register()


def class_of(target: object, path: str) -> Callable[..., Any]:
    """Return what ``_target_`` names.

    Raises:
        ConfigError: when it cannot be imported.
    """
    module, _, name = str(target).rpartition(".")
    try:
        found: Callable[..., Any] = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{path}._target_={target} cannot be imported: {_first_line(error)}") from error
    return found


def make(cfg: DictConfig, path: str, drop: tuple[str, ...] = (), **arguments: Any) -> Any:
    """Instantiate the part of the config at ``path``.

    Args:
        cfg: the whole config, so that interpolations resolve.
        path: dotted.
        drop: keys of that part that are not arguments.
        arguments: further arguments that only the engine knows.

    Raises:
        ConfigError: with the config path, the class's signature and, for an unknown argument, the nearest name.
    """
    try:
        part = OmegaConf.select(cfg, path, throw_on_missing=True)
        if not isinstance(part, DictConfig) or "_target_" not in part:
            raise ConfigError(f"{path} must name a class under _target_; got {part}")
        resolved = OmegaConf.to_container(part, resolve=True)
        assert isinstance(resolved, dict)
        kept = {key: value for key, value in resolved.items() if key not in drop}
        # Arguments that are objects go to the factory directly: Hydra would turn a dataclass into a dict.
        factory = hydra.utils.instantiate({**kept, "_partial_": True}, _convert_="all")
    except InstantiationException as error:
        raise _explain(error, path) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: {_first_line(error)}") from error
    try:
        return factory(**arguments)
    except (TypeError, ValueError) as error:
        raise _wrong_call(error, path, factory.func, [*factory.keywords, *arguments]) from error


def _explain(error: InstantiationException, path: str) -> FedaggError:
    """Explain why a part inside the part could not be made; Hydra names it in its message."""
    cause = error.__cause__ or error
    inner = re.search(r"full_key: (\S+)", str(error))
    target = re.search(r"Error in call to target '([^']+)'", str(error))
    path = f"{path}.{inner.group(1)}" if inner else path
    lost = re.search(r"Error locating target '([^']+)'", str(error))
    if lost:
        class_of(lost.group(1), path)  # says what cannot be imported
    if isinstance(cause, FedaggError) or target is None:
        return cause if isinstance(cause, FedaggError) else ConfigError(f"{path}: {_first_line(error)}")
    return _wrong_call(cause, path, class_of(target.group(1), path), [])


def _wrong_call(error: BaseException, path: str, called: Callable[..., Any], arguments: list[str]) -> FedaggError:
    """Explain why ``called`` did not take its arguments."""
    if isinstance(error, FedaggError):
        return error
    name = getattr(called, "__qualname__", str(called))
    text = f"{path} ({name}): {error}"
    if isinstance(error, TypeError):
        known = inspect.signature(called).parameters
        text += f"\n  {name} takes {', '.join(known) or 'no arguments'}"
        unexpected = re.search(r"unexpected keyword argument '([^']+)'", str(error))
        wrong = [unexpected.group(1)] if unexpected else [argument for argument in arguments if argument not in known]
        for argument in wrong:
            near = difflib.get_close_matches(argument, known, n=1)
            text += f"; did you mean {near[0]} for {argument}?" if near else ""
    return ConfigError(text)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
