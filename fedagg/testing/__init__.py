"""Contract checks for plug-ins: what our own tests demand of every published method, for yours.

    >>> from fedagg.testing import check_attack, check_rule
    >>> from fedagg.attacks import IPM
    >>> check_attack(IPM())

A plug-in that breaks a promise gets the list, each with the input that shows it:

    >>> import torch
    >>> from dataclasses import dataclass
    >>> from fedagg import Rule
    >>> @dataclass(frozen=True)
    ... class Largest(Rule):
    ...     invariances = frozenset({"permutation", "translation"})
    ...     coordinatewise = True
    ...     def __call__(self, updates, weights=None):
    ...         return updates.abs().amax(dim=0)
    >>> [outcome.result for outcome in examine(Largest()) if outcome.name in ("permutation", "translation", "modest")]
    ['kept', 'broken', 'broken']

``check_rule``, ``check_pre_aggregator``, ``check_weighting``, ``check_attack`` and ``check_strategy`` raise
``BrokenContract``; ``parametrize_with_checks`` makes one pytest test of every promise; ``fedagg check my_pkg.MyRule f=1``
prints them. A promise that a plug-in does not make for a good reason is exempted with that reason, and told when the reason is
gone:

    check_rule(MyRule(), exempt={"equal_rows": "it returns signs"})

A class may state the same of itself, in an attribute ``exempt``: also what it promises at some settings only.

Inputs come from fixed seeds: ``rows(seed, n, d, ...)`` makes again what a message names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from fedagg.contracts import Attack, PreAggregator, Rule, Weighting
from fedagg.errors import ConfigError
from fedagg.testing import core
from fedagg.testing.attacks import ATTACK
from fedagg.testing.common import EVERYBODY
from fedagg.testing.core import BrokenContract, BrokenPromise, Check, Exempt, Outcome
from fedagg.testing.inputs import rows
from fedagg.testing.pre_aggregators import PRE_AGGREGATOR
from fedagg.testing.promises import PROMISES
from fedagg.testing.rules import RULE
from fedagg.testing.weightings import WEIGHTING

if TYPE_CHECKING:
    import pytest

__all__ = [
    "BrokenContract",
    "BrokenPromise",
    "Check",
    "Outcome",
    "check_attack",
    "check_pre_aggregator",
    "check_rule",
    "check_strategy",
    "check_weighting",
    "checks_of",
    "examine",
    "parametrize_with_checks",
    "rows",
]


def check_rule(rule: Rule, exempt: Exempt | None = None) -> None:
    """Raise ``BrokenContract`` unless ``rule`` keeps every promise that rules make and that its class declares.

    Args:
        rule: an object, not its class; stays as it is.
        exempt: check -> the reason why this rule does not make that promise.

    Raises:
        BrokenContract: with every broken promise and the input that shows it.
        ConfigError: this is no rule, or an exemption names no check or has no reason.
    """
    _check(rule, Rule, exempt)


def check_pre_aggregator(pre: PreAggregator, exempt: Exempt | None = None) -> None:
    """Do for a pre-aggregator what ``check_rule`` does for a rule."""
    _check(pre, PreAggregator, exempt)


def check_weighting(weighting: Weighting, exempt: Exempt | None = None) -> None:
    """Do for a weighting what ``check_rule`` does for a rule."""
    _check(weighting, Weighting, exempt)


def check_attack(attack: Attack, exempt: Exempt | None = None) -> None:
    """Do for an attack what ``check_rule`` does for a rule."""
    _check(attack, Attack, exempt)


def check_strategy(strategy: Any, exempt: Exempt | None = None) -> None:
    """Do for a strategy, ours or any of Flower's, what ``check_rule`` does for a rule: a few rounds of a tiny population."""
    from fedagg.strategy import AnyStrategy

    _check(strategy, AnyStrategy, exempt)


def examine(plugin: Any, exempt: Exempt | None = None) -> list[Outcome]:
    """Return what every check that applies to ``plugin``, of any kind, comes to; nothing is raised for a broken promise."""
    return core.examine(plugin, checks_of(plugin), exempt)


def checks_of(plugin: Any) -> Sequence[Check]:
    """Return all checks of the kind of plug-in that ``plugin`` is, whether they apply to it or not."""
    for kind, checks in _KINDS.items():
        if isinstance(plugin, kind):
            return checks
    from fedagg.strategy import AnyStrategy

    if isinstance(plugin, AnyStrategy):
        from fedagg.testing.strategies import STRATEGY

        return STRATEGY
    raise ConfigError(f"there are checks for a Rule, PreAggregator, Weighting, Attack or Strategy; got {_what(plugin)}")


def parametrize_with_checks(objects: Iterable[Any]) -> pytest.MarkDecorator:
    """Decorate a test of the arguments ``plugin`` and ``check`` so that it runs once for every object and check.

    The ids are like ``Krum-2-permutation``. An exempted check is a strict expected failure, so a stale exemption fails; one
    that the plug-in itself names is not strict.

    Args:
        objects: plug-ins of any kind; ``(plugin, exempt)`` for one with exemptions, as ``check_rule`` takes them.

    Example:
        >>> from fedagg.attacks import ALIE, LabelFlip
        >>> @parametrize_with_checks([ALIE(), (LabelFlip(num_classes=3), {"pickles": "an example of a reason"})])
        ... def test_contract(plugin, check):
        ...     check(plugin)
    """
    import pytest

    parameters = []
    for given in objects:
        plugin, exempt = given if isinstance(given, tuple) else (given, {})
        checks = checks_of(plugin)
        exempt, own, names = core.checked(exempt, checks), core.declared(plugin, checks), []
        for check in checks:
            if check.applies(plugin):
                names.append(check.name)
                reason, strict = exempt.get(check.name, own.get(check.name)), check.name in exempt
                marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=strict, raises=BrokenPromise)]
                parameters.append(pytest.param(plugin, check, marks=marks, id=f"{plugin}-{check.name}"))
        idle = sorted(exempt.keys() - set(names))
        if idle:
            raise ConfigError(f"stale exemption: {plugin} does not promise {', '.join(idle)} at all")
    return pytest.mark.parametrize(("plugin", "check"), parameters)


_KINDS: dict[type, Sequence[Check]] = {
    Rule: (*EVERYBODY, *RULE, *PROMISES),
    PreAggregator: (*EVERYBODY, *PRE_AGGREGATOR),
    Weighting: (*EVERYBODY, *WEIGHTING),
    Attack: (*EVERYBODY, *ATTACK),
}


def _check(plugin: Any, kind: type, exempt: Exempt | None) -> None:
    if not isinstance(plugin, kind):
        raise ConfigError(f"this checks a {kind.__name__}; got {_what(plugin)}")
    failed = [outcome for outcome in examine(plugin, exempt) if outcome.failed]
    if failed:
        raise BrokenContract(str(plugin), failed)


def _what(plugin: Any) -> str:
    name = getattr(plugin, "__name__", "")
    return f"the class {name}; give an object, {name}(...)" if isinstance(plugin, type) else repr(plugin)
