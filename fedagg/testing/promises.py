"""What a rule declares about itself holds on every input tried; and what holds everywhere is declared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fedagg.testing.core import BrokenPromise, Check, demand, demand_close
from fedagg.testing.inputs import CROWD, Rows, cases_of, fewest_of, rule_rows
from fedagg.testing.rules import cut, fresh

ALLOWED = 1e-7  # of the largest entry: iterations and eigenvectors end a little differently in other coordinates
SCALES = (1e-8, 1e-3, 2.5, 1e6)


def permutation(rule: Any) -> None:
    """The order of the rows does not matter."""
    _everywhere(rule, _permuted)


def translation(rule: Any) -> None:
    """Moving all rows moves the result as far."""
    _everywhere(rule, _translated)


def scale(rule: Any) -> None:
    """Multiplying all rows by a positive number multiplies the result by it."""
    _everywhere(rule, _scaled)


def orthogonal(rule: Any) -> None:
    """Rotating all rows rotates the result."""
    _everywhere(rule, _rotated)


def modest(rule: Any) -> None:
    """What holds on every input tried is declared: invariances, and coordinatewise."""
    tries: dict[str, Callable[[Any, Rows], None]] = {**_TRIES, "coordinatewise": _cut}
    declared = {*rule.invariances, *(["coordinatewise"] if rule.coordinatewise else [])}
    n = fewest_of(rule) + CROWD
    more = [rule_rows(seed, n, 12) for seed in range(40, 60)]  # what fails at ties only needs some luck to be seen
    missed = [name for name in tries if name not in declared and _holds(rule, tries[name], more)]
    demand(not missed, f"{' and '.join(missed)} held on every input tried, and the class does not declare it")


def _everywhere(rule: Any, trial: Callable[[Any, Rows], None], more: Sequence[Rows] = ()) -> None:
    n = fewest_of(rule) + CROWD
    large = [rule_rows(seed, n, 6, scale=1e4, common=0.0) for seed in (30, 31)]  # rows that disagree, and that meet any radius
    for case in (*cases_of(rule), *large, *more):
        with case:
            trial(rule, case)


def _holds(rule: Any, trial: Callable[[Any, Rows], None], more: Sequence[Rows]) -> bool:
    try:
        _everywhere(rule, trial, more)
    except BrokenPromise:
        return False
    return True


def _permuted(rule: Any, case: Rows) -> None:
    n = len(case.updates)
    if n <= 3:
        return  # every distance is that of the other, of three two are each other's nearest, and ties go by place
    for order in (torch.arange(n).flip(0), torch.randperm(n, generator=torch.Generator().manual_seed(n))):
        other = case.moved(lambda rows: rows[order] if rows.ndim == 2 else rows, lambda step: step)  # noqa: B023
        demand_close(other.call(fresh(rule)), case.call(fresh(rule)), _slack(case.updates), f"rows in order {order.tolist()}")


def _translated(rule: Any, case: Rows) -> None:
    d, size = case.updates.shape[1], float(case.updates.abs().max())
    shift = size * torch.linspace(-3.0, 5.0, d, dtype=torch.float64)
    other = case.moved(lambda rows: rows + shift, lambda step: step - shift)
    wanted = case.call(fresh(rule)) + shift
    demand_close(other.call(fresh(rule)), wanted, _slack(other.updates), f"rows moved by {shift.tolist()}")


def _scaled(rule: Any, case: Rows) -> None:
    for factor in SCALES:
        other = case.moved(lambda rows: factor * rows, lambda step: step / factor)  # noqa: B023
        wanted = factor * case.call(fresh(rule))
        demand_close(other.call(fresh(rule)), wanted, _slack(other.updates), f"rows times {factor:g}")


def _rotated(rule: Any, case: Rows) -> None:
    d = case.updates.shape[1]
    square = torch.randn(d, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64)
    turn = torch.linalg.qr(square).Q
    other = case.moved(lambda rows: rows @ turn, lambda step: step @ turn.T)
    wanted = case.call(fresh(rule)) @ turn
    demand_close(other.call(fresh(rule)), wanted, _slack(case.updates), f"rows @ {turn.tolist()}")


def _cut(rule: Any, case: Rows) -> None:
    demand_close(cut(rule, case, 1), case.call(fresh(rule)), _slack(case.updates), "column by column")


def _slack(rows: Tensor) -> float:
    return ALLOWED * float(rows.abs().max())


_TRIES: dict[str, Callable[[Any, Rows], None]] = {
    "permutation": _permuted,
    "translation": _translated,
    "scale": _scaled,
    "orthogonal": _rotated,
}


def _moves_with_context(rule: Any) -> bool:
    """Whether a rule hears of more than the rows: what does not hold for the rows alone may hold for both."""
    return bool({"root_update", "loss"} & set(rule.needs))


def _leaves_out_nobody(rule: Any) -> bool:
    """Whether f = 0 makes a rule, mostly, the mean, of which more holds than the class can say."""
    return getattr(rule, "f", None) == 0


PROMISES = (
    Check(permutation, lambda rule: "permutation" in rule.invariances),
    Check(translation, lambda rule: "translation" in rule.invariances),
    Check(scale, lambda rule: "scale" in rule.invariances),
    Check(orthogonal, lambda rule: "orthogonal" in rule.invariances),
    Check(modest, lambda rule: not _moves_with_context(rule) and not _leaves_out_nobody(rule)),
)
