"""What an attack promises: shapes, no more knowledge than declared, and manners with other people's data."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor

from fedagg.console import suggest
from fedagg.contracts import Knowledge, Payload
from fedagg.rankings import is_permutation
from fedagg.testing.core import Check, demand, demand_same, devices, refusal, same
from fedagg.testing.inputs import CLASSES, cases_of

KNOWLEDGE = get_args(Knowledge)  # from least to most
PAYLOADS = frozenset(get_args(Payload))


def knowledge_declared(attack: Any) -> None:
    """``knowledge`` is one of own, corrupted, honest, aggregator, history; random and distributed are True or False."""
    level = attack.knowledge
    demand(level in KNOWLEDGE, f"no knowledge {level!r}{suggest(str(level), KNOWLEDGE)}; there are {', '.join(KNOWLEDGE)}")
    payloads = attack.payloads
    demand(bool(payloads) and payloads <= PAYLOADS, f"payloads must be some of {sorted(PAYLOADS)}; got {payloads}")
    for flag in ("random", "distributed"):
        demand(isinstance(getattr(attack, flag), bool), f"{flag} must be True or False; got {getattr(attack, flag)!r}")


def byzantine_rows(attack: Any) -> None:
    """[h, d] and f give [f, d], with the honest rows' dtype and on their device, also in the first round."""
    for case in cases_of(attack):
        first = replace(case, made=f"{case.made}, as in round 1", round=1, last_delta=None)
        for chance in (case, first):
            with chance:
                for device in devices():
                    for dtype in (torch.float32, torch.float64):
                        got = chance.to(device, dtype).call(copy.deepcopy(attack))
                        demand(isinstance(got, Tensor), f"the call returned {type(got).__name__}, not a tensor")
                        found = (got.dtype, got.device.type, list(got.shape))
                        kept = dtype if case.honest.is_floating_point() else case.honest.dtype
                        wanted = (kept, device, [case.f, case.honest.shape[1]])
                        demand(found == wanted, f"it returned {found} instead of {wanted}")
                        ranked = "updates" in attack.payloads or all(map(is_permutation, got))
                        demand(ranked, "a row it returned is no ranking")


def nobody(attack: Any) -> None:
    """f = 0 gives [0, d], with or without ``own``."""
    for case in cases_of(attack):
        for own in (None, case.honest[:0]):
            with replace(case, made=f"{case.made}, but f=0", f=0, own=own) as empty:
                got = empty.call(copy.deepcopy(attack))
                demand(list(got.shape) == [0, case.honest.shape[1]], f"it returned shape {list(got.shape)}")


def impossible(attack: Any) -> None:
    """f < 0 and no row to look at raise ``ValueError``."""
    for case in cases_of(attack):
        d = case.honest.shape[1]
        nobody_there = replace(case, made="honest of shape [0, d]", honest=case.honest[:0], client_ids=[])
        with replace(case, made=f"{case.made}, but f=-1", f=-1) as negative:
            error = refusal(negative.call, copy.deepcopy(attack))
            demand(error is not None, "f=-1 is accepted; it must raise ValueError")
            demand("f=-1" in str(error), f"f=-1 is refused, but the message lacks f=-1: {error}")
        with nobody_there:
            error = refusal(nobody_there.call, copy.deepcopy(attack))
            demand(error is not None, f"honest of shape [0, {d}] is accepted; it must raise ValueError")


def missing(attack: Any) -> None:
    """An attack that needs ``own`` raises ``ValueError`` naming it where it is missing; none needs ids or the round."""
    for case in cases_of(attack):
        with replace(case, made=f"{case.made}, without own", own=None) as without:
            error = refusal(without.call, copy.deepcopy(attack))
            demand(error is None or "own" in str(error), f"the message does not name own: {error}")
        with case:
            own, last_delta = case.own, case.last_delta
            copy.deepcopy(attack)(case.honest, case.f, own=own, last_delta=last_delta)


def knowledge(attack: Any) -> None:
    """An attack uses no more than its ``knowledge`` grants, and gets by with it."""
    level = KNOWLEDGE.index(attack.knowledge)
    aggregator = level >= KNOWLEDGE.index("aggregator")
    demand(aggregator or not hasattr(attack, "aggregator"), f"it has an aggregator, which {attack.knowledge!r} is never lent")
    for case in cases_of(attack):
        with case:
            seen = case.call(copy.deepcopy(attack))
        if attack.knowledge == "own":
            nothing = float("nan") if case.honest.is_floating_point() else -1
            unknown = torch.full_like(case.honest, nothing)  # how many there are is no secret
            with replace(case, made=f"{case.made}, then honest rows of NaN", honest=unknown, client_ids=None) as other:
                demand_same(other.call(copy.deepcopy(attack)), seen, "it knows its own, but looks at honest rows")
            for i, own in enumerate(case.own):
                others = case.own.flip(1)
                others[i] = own
                with replace(case, made=f"{case.made}, then all of own but row {i} reversed", own=others) as other:
                    found = other.call(copy.deepcopy(attack))
                    demand_same(found[i], seen[i], f"it knows its own, but row {i} depends on other rows of own")
        if attack.knowledge != "history":
            with replace(case, made=f"{case.made}, then without last_delta", last_delta=None) as other:
                demand_same(other.call(copy.deepcopy(attack)), seen, "it knows no history, but uses last_delta")
            later = replace(case, made=f"{case.made}, after a round whose params were others", round=case.round + 1)
            with later:
                found = []
                for params in (case.params, case.params.flip(0)):
                    one = copy.deepcopy(attack)
                    replace(case, params=params).call(one)
                    found.append(later.call(one))
                demand_same(found[1], found[0], "it knows no history, but uses params of an earlier round")


def poison(attack: Any) -> None:
    """``poison`` keeps shapes and dtypes, gives finite examples with labels of the task, and leaves its inputs alone."""
    classes = getattr(attack, "num_classes", CLASSES)
    for case in cases_of(attack):
        for attacker in range(5 if attack.distributed else 1):
            with replace(case, made=f"poison of 64 images, {classes} classes, attacker {attacker}") as chance:
                for some in (64, 1):
                    fewer = replace(chance, x=case.x[:some].clone(), y=case.y[:some].clone())
                    x, y = fewer.poisoned(copy.deepcopy(attack), attacker)
                    found = (x.shape, x.dtype, y.shape, y.dtype)
                    wanted = (fewer.x.shape, fewer.x.dtype, fewer.y.shape, fewer.y.dtype)
                    demand(found == wanted, f"x and y became {found} instead of {wanted}")
                    demand(bool(x.isfinite().all()), "x is not finite")
                    demand(bool(((y >= 0) & (y < classes)).all()), f"labels {y.tolist()} are not all in 0 .. {classes - 1}")
                    x.fill_(7)
                    y.fill_(7)
                    kept = same(fewer.x, case.x[:some]) and same(fewer.y, case.y[:some])
                    demand(kept, "poison changed x or y, or returned a view of them")


def sends_own(attack: Any) -> None:
    """An attack on the data sends what its clients learnt: the call returns ``own``, in memory of its own."""
    for case in cases_of(attack):
        with case:
            demand_same(case.call(copy.deepcopy(attack)), case.own, "it poisons data, but sends something else than own")


def trigger(attack: Any) -> None:
    """``trigger`` stamps a copy of test examples, twice alike, and ``target`` is a class."""
    target = getattr(attack, "target", None)
    demand(isinstance(target, int) and 0 <= target < CLASSES, f"target must be one of the {CLASSES} classes; got {target!r}")
    for case in cases_of(attack):
        with replace(case, made="trigger of 64 images of 3 x 16 x 16") as chance:
            before = chance.x.clone()
            stamped, again = (copy.deepcopy(attack).trigger(chance.x) for _ in range(2))
            kept = (stamped.shape, stamped.dtype) == (before.shape, before.dtype)
            demand(kept, f"x became {stamped.dtype} {list(stamped.shape)}")
            demand_same(again, stamped, "it stamps differently when it is asked again")
            demand(not same(stamped, before), "it leaves the examples as they are")
            stamped.fill_(7)
            demand(same(chance.x, before), "trigger changed x, or returned a view of it")


def poisons(attack: Any) -> bool:
    """Whether an attack has a ``poison`` that is not None."""
    return getattr(attack, "poison", None) is not None


ATTACK = (
    Check(knowledge_declared),
    Check(byzantine_rows),
    Check(nobody),
    Check(impossible),
    Check(missing),
    Check(knowledge, lambda attack: attack.knowledge in KNOWLEDGE),
    Check(poison, poisons),
    Check(sends_own, poisons),
    Check(trigger, lambda attack: getattr(attack, "trigger", None) is not None),
)
