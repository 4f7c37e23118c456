"""A check is a small function that tries one promise on a plug-in; what is found out is collected and said at once."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from fedagg.console import suggest
from fedagg.errors import ConfigError

Exempt = Mapping[str, str]


class BrokenPromise(AssertionError):
    """One promise of one plug-in does not hold. The message says which, on which input, and what came out."""


class BrokenContract(AssertionError):
    """What ``check_rule`` and its like raise: every promise that does not hold.

    Args:
        plugin: the plug-in, in words.
        outcomes: the failed checks among what was tried.
    """

    def __init__(self, plugin: str, outcomes: Sequence[Outcome]) -> None:
        self.outcomes = tuple(outcomes)
        count = f"{len(outcomes)} promise{'s' if len(outcomes) > 1 else ''}"
        super().__init__("\n".join([f"{plugin} breaks {count}:", *(f"{o.name}: {o.detail}" for o in outcomes)]))


def always(plugin: Any) -> bool:
    """Whether a check that concerns everybody concerns ``plugin``."""
    return True


@dataclass(frozen=True)
class Check:
    """One promise of the contract, and the function that tries it.

    Its name is that of the function; the first line of the function's docstring is what the contract says.

    Args:
        function: called with a copy of the plug-in; raises ``BrokenPromise`` with the input that shows it.
        applies: whether a plug-in makes this promise, from what it declares.
    """

    function: Callable[[Any], None]
    applies: Callable[[Any], bool] = always

    @property
    def name(self) -> str:
        """The name that exemptions and test ids use."""
        return self.function.__name__

    @property
    def promise(self) -> str:
        """What the contract says."""
        return (inspect.getdoc(self.function) or self.name).splitlines()[0].replace("``", "")

    def __call__(self, plugin: Any) -> None:
        """Raise ``BrokenPromise`` where ``plugin`` does not keep the promise; it stays as it is."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a plug-in may warn of what it is given here
            try:
                self.function(copy.deepcopy(plugin))
            except Exception as error:
                found = str(error) if isinstance(error, BrokenPromise) else f"it raised {_said(error)}"
                raise BrokenPromise(f"{self.promise}\n    {found}") from error


@dataclass(frozen=True)
class Outcome:
    """What one check came to.

    Args:
        name: the check.
        result: "kept", "broken", "exempt" (broken, with a reason), or "stale" (exempt, and for nothing).
        detail: the promise, what was found, or the reason of the exemption.
    """

    name: str
    result: Literal["kept", "broken", "exempt", "stale"]
    detail: str

    @property
    def failed(self) -> bool:
        """Whether something must be done about it."""
        return self.result in ("broken", "stale")


def examine(plugin: Any, checks: Sequence[Check], exempt: Exempt | None = None) -> list[Outcome]:
    """Return what each check that applies to ``plugin`` comes to.

    Args:
        plugin: stays as it is.
        checks: those of its kind. Where the first does not hold, nothing else is tried: it would all come to the same.
        exempt: check -> why the plug-in does not make that promise. One that it keeps all the same is reported as stale, but
            not one that its own ``exempt`` names: that may concern another setting.

    Raises:
        ConfigError: an exemption of an unknown check, or without a reason.
    """
    exempt, own = checked(exempt or {}, checks), declared(plugin, checks)
    applying = [check for check in checks if check.applies(plugin)]
    outcomes = [
        Outcome(name, "stale", f"stale exemption: {plugin} does not promise this at all")
        for name in sorted(exempt.keys() - {check.name for check in applying})
    ]
    for check in applying:
        outcomes.append(_outcome(check, plugin, exempt.get(check.name), own.get(check.name)))
        if check is checks[0] and outcomes[-1].failed:
            break
    return outcomes


def _outcome(check: Check, plugin: Any, reason: str | None, own: str | None) -> Outcome:
    try:
        check(plugin)
    except BrokenPromise as broken:
        return Outcome(check.name, "exempt" if reason or own else "broken", reason or own or str(broken))
    if reason is None:
        return Outcome(check.name, "kept", check.promise)
    return Outcome(check.name, "stale", f"stale exemption: it is kept on every input tried. The reason given was: {reason}")


def checked(exempt: Exempt, checks: Sequence[Check]) -> dict[str, str]:
    """Return ``exempt`` if every name is that of a check and every reason says something; ``ConfigError`` otherwise."""
    names = [check.name for check in checks]
    for name, reason in exempt.items():
        if name not in names:
            raise ConfigError(f"exempt: no check {name}{suggest(name, names)}. Checks: {', '.join(names)}")
        if not isinstance(reason, str) or not reason.strip():
            raise ConfigError(f"exempt: {name} needs a reason, a sentence for whoever reads it; got {reason!r}")
    return dict(exempt)


def declared(plugin: Any, checks: Sequence[Check]) -> dict[str, str]:
    """Return the exemptions that ``plugin`` itself names, as ``checked`` does."""
    return checked(getattr(plugin, "exempt", {}), checks)


# What checks are made of


def demand(kept: bool, found: str) -> None:
    """Raise ``BrokenPromise`` saying what was ``found`` unless the promise was kept."""
    if not kept:
        raise BrokenPromise(found)


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors agree to the bit, NaN with NaN."""
    if (one.shape, one.dtype, one.device) != (other.shape, other.dtype, other.device):
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())


def demand_same(got: Tensor, wanted: Tensor, what: str) -> None:
    """Demand equal bits."""
    demand(same(got, wanted), f"{what}: {shown(got)} and {shown(wanted)}")


def demand_close(got: Tensor, wanted: Tensor, allowed: float, what: str) -> None:
    """Demand that no entry is further off than ``allowed``."""
    demand(got.shape == wanted.shape, f"{what}: shape {list(got.shape)} instead of {list(wanted.shape)}")
    off = (got.double() - wanted.double()).abs()
    far = f"{what}: {shown(got)} instead of {shown(wanted)}, off by up to {float(off.max()) if off.numel() else 0:.3g}"
    demand(bool((off <= allowed).all()), f"{far}; {allowed:.3g} is allowed")


def shown(tensor: Tensor) -> str:
    """Return a few values of a tensor in words."""
    values = [f"{value:.6g}" for value in tensor.detach().double().flatten()[:8].tolist()]
    return f"[{', '.join(values)}{', ...' if tensor.numel() > 8 else ''}]"


def refusal(call: Callable[..., object], *arguments: Any) -> ValueError | None:
    """Return the ``ValueError`` that a call raises, None where it raises nothing; other errors pass."""
    try:
        call(*arguments)
    except ValueError as error:
        return error
    return None


def devices() -> list[str]:
    """Return where tensors can be."""
    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
