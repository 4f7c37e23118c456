"""What a rule promises: the shape of the call, bounds, robustness, weights. Invariances are in ``promises``."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fedagg.console import suggest
from fedagg.testing.core import Check, demand, demand_close, demand_same, devices, refusal
from fedagg.testing.inputs import CROWD, Rows, cases_of, fewest_of, rule_rows, series_of

INVARIANCES = ("permutation", "translation", "scale", "orthogonal")
NEEDS = ("client_ids", "root_update", "loss")
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
ROUNDINGS = 32  # errors of that many machine epsilons are rounding
FAR = 1e30


def fresh(plugin: Any) -> Any:
    """Return a copy, so that one call does not see the state of another."""
    return copy.deepcopy(plugin)


def declarations(rule: Any) -> None:
    """What a class states of itself is spelt as the contract spells it."""
    for attribute, known in (("invariances", INVARIANCES), ("needs", NEEDS)):
        for name in getattr(rule, attribute):
            demand(name in known, f"{attribute}: no {name!r}{suggest(str(name), known)}; there are {', '.join(known)}")
    for flag in ("associative", "coordinatewise", "uses_weights", "random", "follows_clients"):
        demand(isinstance(getattr(rule, flag), bool), f"{flag} must be True or False; got {getattr(rule, flag)!r}")


def shape(rule: Any) -> None:
    """[n, d] gives [d], finite, with the rows' dtype and on their device, however they lie in memory."""
    for case in cases_of(rule):
        with case:
            result = case.call(fresh(rule))
            demand(isinstance(result, Tensor), f"the call returned {type(result).__name__}, not a tensor")
            by_column = replace(case, updates=case.updates.T.contiguous().T).call(fresh(rule))
            size = float(case.updates.abs().max())
            demand_close(by_column, result, 1e-9 * size, "rows that lie column by column in memory")
            for device in devices():
                for dtype in DTYPES if case.updates.abs().max() > 0.1 else DTYPES[:2]:
                    got = case.to(device, dtype).call(fresh(rule))
                    found, wanted = (got.dtype, got.device.type, list(got.shape)), (dtype, device, [case.updates.shape[1]])
                    demand(found == wanted, f"it returned {_words(*found)} instead of {_words(*wanted)}")
                    demand(bool(got.isfinite().all()), f"the result is not finite with {dtype}: {got.tolist()}")


def precision(rule: Any) -> None:
    """In every dtype the result is that of the same values in float64, up to 32 machine epsilons of the largest entry."""
    for case in cases_of(rule):
        with case:
            for dtype in DTYPES[1:] if case.updates.abs().max() > 0.1 else DTYPES[1:2]:
                _demand_precise(rule, case, dtype, ROUNDINGS)


def common_part(rule: Any) -> None:
    """Rows that differ by 1e-5 on a common part of 1 give in float32 what the same values give in float64, up to 2e-6."""
    for seed in (20, 21):
        with rule_rows(seed, fewest_of(rule) + CROWD, 40, scale=1e-5, common=1.0) as case:
            _demand_precise(rule, case, torch.float32, 16)


def bounds(rule: Any) -> None:
    """Too few rows and an impossible f raise ``ValueError`` with ``n=`` and ``f=``."""
    fewest = fewest_of(rule)
    for n in range(fewest):
        with rule_rows(0, n, 4) as case:
            _named(refusal(case.call, fresh(rule)), rule, n, f"n={n}")
    if isinstance(getattr(rule, "f", None), int):
        n = fewest + CROWD
        for f in (n, -1):
            other = fresh(rule)
            object.__setattr__(other, "f", f)  # as the engine lowers it
            with rule_rows(0, n, 4) as case:
                _named(refusal(case.call, other), other, n, f"n={n} and f={f}")


def non_finite(rule: Any) -> None:
    """A row with NaN or infinity is refused by its number, or left out."""
    for case in cases_of(rule):
        for value in (float("nan"), float("inf"), float("-inf")):
            for place in (0, len(case.updates) - 1):
                updates = case.updates.clone()
                updates[place, 0] = value
                with replace(case, updates=updates) as broken:
                    error = refusal(_demand_finite, rule, broken)
                    told = error is None or re.search(rf"\b{place}\b", str(error))
                    demand(bool(told), f"it refuses without naming row {place}: {error}")


def equal_rows(rule: Any) -> None:
    """Clients that all send the same row get that row, up to rounding."""
    for case in cases_of(rule):
        row = case.updates[0]
        with replace(case, updates=row.repeat(len(case.updates), 1)) as equal:
            demand_close(equal.call(fresh(rule)), row, 1e-12 * float(row.abs().max()), "equal rows")


def bounded(rule: Any) -> None:
    """While f rows are far out, the result is no longer than sqrt(d) times the longest honest row; at 1e200 it may refuse."""
    for attacked, honest in _attacked(rule):
        with attacked:
            limit = attacked.updates.shape[1] ** 0.5 * float(torch.linalg.vector_norm(honest, dim=1).max())
            for case in (attacked, attacked.to("cpu", torch.float32)):
                _demand_short(rule, case, limit)
            huge = replace(attacked, updates=torch.where(attacked.updates.abs() > 1e20, 1e200, attacked.updates))
            refusal(_demand_short, rule, huge, limit)


def hull(rule: Any) -> None:
    """Where f rows are far out in a coordinate, a coordinate-wise rule stays between two honest values there."""
    for case, honest in _attacked(rule):
        with case:
            result, slack = case.call(fresh(rule)), 1e-12 * float(honest.abs().max())
            far = (case.updates.abs() >= FAR).sum(dim=0) == tolerates(rule)
            left = (result < honest.amin(0) - slack) | (result > honest.amax(0) + slack)
            outside = (left & far).nonzero().flatten().tolist()
            demand(not outside, f"coordinates {outside} of {result.tolist()} lie outside of the honest values")


def columns(rule: Any) -> None:
    """A coordinate-wise rule may be given blocks of columns."""
    for case in cases_of(rule):
        with case:
            demand_close(cut(rule, case, 2), case.call(fresh(rule)), 1e-12 * float(case.updates.abs().max()), "cut in columns")


def parts(rule: Any) -> None:
    """An associative rule may be added up over parts of the rows."""
    for case in cases_of(rule):
        weights = torch.linspace(0.1, 1.0, len(case.updates), dtype=torch.float64)
        with replace(case, weights=weights) as whole:
            total = torch.zeros_like(case.updates[0])
            for block in torch.arange(len(weights)).tensor_split(2):
                if len(block):
                    ids = [case.client_ids[i] for i in block]
                    part = replace(case, updates=case.updates[block], weights=weights[block], client_ids=ids)
                    total += part.call(fresh(rule))
            demand_close(total, whole.call(fresh(rule)), 1e-12 * float(case.updates.abs().max()) * len(weights), "two parts")


def weights_count(rule: Any) -> None:
    """A rule that uses weights lets them count, and takes None for 1/n."""
    differences = []
    for case in cases_of(rule):
        n, size = len(case.updates), float(case.updates.abs().max())
        with case:
            equal = replace(case, weights=torch.full((n,), 1.0 / n, dtype=torch.float64))
            uneven = replace(case, weights=torch.softmax(3.0 * torch.arange(n, dtype=torch.float64), dim=0))
            plain = case.call(fresh(rule))
            demand_close(equal.call(fresh(rule)), plain, 1e-9 * size, "weights of 1/n against None")
            differences.append(float((uneven.call(fresh(rule)) - plain).abs().max()) / size)
    demand(max(differences) > 1e-9, "it says uses_weights = True, but other weights gave the same on every input tried")


def weights_ignored(rule: Any) -> None:
    """A rule that uses no weights gives the same bits whatever clients claim."""
    for case in cases_of(rule):
        claims = torch.ones(len(case.updates), dtype=torch.float64)
        claims[-1] = 1e9
        with replace(case, weights=claims) as claimed:
            demand_same(claimed.call(fresh(rule)), case.call(fresh(rule)), f"weights {claims.tolist()} change the result")


def client_weights(rule: Any) -> None:
    """``client_weights`` [n] times the rows is the result; a call leaves it in ``last_info``; asking changes no state."""
    for case in cases_of(rule):
        asked, called = fresh(rule), fresh(rule)
        with case:
            weights, result = case.client_weights(asked), case.call(called)
            found, wanted = (weights.dtype, list(weights.shape)), (case.updates.dtype, [len(case.updates)])
            demand(found == wanted, f"client_weights has {found} instead of {wanted}")
            size = float(case.updates.abs().max())
            demand_close(weights @ case.updates, result, 1e-9 * size, "client_weights @ updates against the call")
            noted = called.last_info.get("client_weights")
            demand(noted is not None, 'the call leaves nothing in last_info["client_weights"]')
            demand_same(noted, weights, 'last_info["client_weights"] and client_weights')
    first, second, *_ = series_of(rule)
    asked, called = fresh(rule), fresh(rule)
    with second:
        for other in (asked, called):
            first.call(other)
        second.client_weights(asked)
        demand_same(second.call(asked), second.call(called), "asking for client_weights changed what the next call gives")


def needs(rule: Any) -> None:
    """Called without the context that it needs, a rule raises ``ValueError`` or does as its class says."""
    for case in cases_of(rule):
        with case:
            error = refusal(fresh(rule), case.updates)
            result = None if error else fresh(rule)(case.updates)
            demand(result is None or result.shape == case.updates.shape[1:], "without its context it gives no [d]")


def cut(rule: Any, case: Rows, width: int) -> Tensor:
    """Return the results for blocks of ``width`` columns, beside each other."""
    return torch.cat([replace(case, updates=block).call(fresh(rule)) for block in torch.split(case.updates, width, dim=1)])


def tolerates(rule: Any) -> int:
    """Return how many Byzantine rows a rule says that it tolerates."""
    f = getattr(rule, "f", 0)
    return f if isinstance(f, int) else 0


RULE = (
    Check(declarations),
    Check(shape),
    Check(precision),
    Check(common_part),
    Check(bounds),
    Check(non_finite),
    Check(equal_rows),
    Check(bounded, lambda rule: tolerates(rule) > 0),
    Check(hull, lambda rule: tolerates(rule) > 0 and rule.coordinatewise),
    Check(columns, lambda rule: rule.coordinatewise),
    Check(parts, lambda rule: rule.associative),
    Check(weights_count, lambda rule: rule.uses_weights),
    Check(weights_ignored, lambda rule: not rule.uses_weights),
    Check(client_weights, lambda rule: hasattr(rule, "client_weights")),
    Check(needs, lambda rule: bool(rule.needs)),
)


def _attacked(rule: Any) -> Iterator[tuple[Rows, Tensor]]:
    """Yield inputs with ``f`` rows far out, at the end and at the front, and the honest rows."""
    f = tolerates(rule)
    for case in cases_of(rule):
        honest, d = case.updates[f:], case.updates.shape[1]
        signs = torch.ones(f, d, dtype=torch.float64)
        signs[1::2] = -1
        axes = torch.eye(f, d, dtype=torch.float64)
        for name, rows in (("equal rows", torch.ones_like(signs)), ("opposite rows", signs), ("axes", axes)):
            for last in (True, False):
                order = (honest, FAR * rows) if last else (FAR * rows, honest)
                made = f"{case.made}, {f} of them replaced by {name} at {FAR:g} {'at the end' if last else 'in front'}"
                yield replace(case, made=made, updates=torch.cat(order)), honest


def _demand_precise(rule: Any, case: Rows, dtype: torch.dtype, roundings: int) -> None:
    rounded = case.to("cpu", dtype)
    exact = rounded.to("cpu", torch.float64).call(fresh(rule))
    size = max(float(case.updates.abs().max()), float(exact.abs().max()))
    allowed = roundings * torch.finfo(dtype).eps * size
    demand_close(rounded.call(fresh(rule)), exact, allowed, f"{dtype} against float64 with the same values")


def _demand_finite(rule: Any, case: Rows) -> None:
    result = case.call(fresh(rule))
    demand(bool(result.isfinite().all()), f"the result is not finite: {result.tolist()}")


def _demand_short(rule: Any, case: Rows, limit: float) -> None:
    length = float(torch.linalg.vector_norm(case.call(fresh(rule)).double()))
    far = f"rows at up to {float(case.updates.abs().max()):g} in {case.updates.dtype}"
    demand(length <= limit * (1 + 1e-5), f"with {far} the result has length {length:.4g}; honest rows allow {limit:.4g}")


def _named(error: ValueError | None, rule: Any, n: int, what: str) -> None:
    demand(error is not None, f"{what} is accepted; it must raise ValueError")
    wanted = [f"n={n}", *([f"f={rule.f}"] if isinstance(getattr(rule, "f", None), int) else [])]
    missing = [part for part in wanted if part not in str(error)]
    demand(not missing, f"{what} is refused, but the message lacks {' and '.join(missing)}: {error}")


def _words(dtype: object, device: object, shape: object) -> str:
    return f"{dtype} {shape} on {device}"
