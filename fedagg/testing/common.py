"""What every plug-in promises, whatever its kind."""

from __future__ import annotations

import copy
import dataclasses
import io
import pickle
import re
import sys
from collections.abc import Iterable, Iterator
from random import getstate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedagg import rng
from fedagg.testing.core import Check, demand, demand_same, same
from fedagg.testing.inputs import cases_of, fewest_of, series_of

STATE = ("state_dict", "load_state_dict", "reset")
LONGEST_TAG = 80


def answers(plugin: Any) -> None:
    """There is a number of rows, from 1 to 64, that it takes."""
    fewest_of(plugin)


def inputs_untouched(plugin: Any) -> None:
    """Inputs are never modified, and the result is no view of them."""
    for case in cases_of(plugin):
        with case:
            handed = case.tensors()
            before = {name: tensor.clone() for name, tensor in handed.items()}
            results = case.outputs(plugin)
            for name, tensor in handed.items():
                demand(same(tensor, before[name]), f"the call changed {name}")
            for result in results:
                result.fill_(7)
            for name, tensor in handed.items():
                demand(same(tensor, before[name]), f"the result is a view of {name}: writing to one changes the other")


def repeatable(plugin: Any) -> None:
    """Equal plug-ins give equal bits on equal inputs; one without state also does when it is called again."""
    for case in cases_of(plugin):
        with case:
            once, again = case.outputs(plugin), case.outputs(plugin)
            for got, wanted in zip(again, once, strict=True):
                demand_same(got, wanted, "two equal plug-ins disagree")
            if not has_state(plugin) and not hasattr(plugin, "generator"):
                used = copy.deepcopy(plugin)
                case.call(used)
                demand_same(case.call(used), once[0], "the second call gives something else, and there is no state")


def global_generators_untouched(plugin: Any) -> None:
    """The generators of random, NumPy and torch that the whole process shares are neither drawn from nor seeded."""
    for seed, case in enumerate(cases_of(plugin)):
        with rng.seeded_globals(seed, "check"), case:  # or seeding them always alike would go unnoticed
            before = _global_generators()
            case.outputs(plugin)
            moved = [name for name, now in _global_generators().items() if now != before[name]]
            demand(not moved, f"the call moved the global generator of {' and '.join(moved)}")


def generator(plugin: Any) -> None:
    """A random plug-in draws from ``generator`` alone, from one with seed 0 while that is None; repr leaves it out."""
    demand(hasattr(plugin, "generator"), "it says random = True but has no attribute generator")
    demand("generator" not in repr(plugin), f"repr shows the generator: {plugin!r}")
    for case in cases_of(plugin):
        with case:
            one, other = (case.outputs(_drawing(plugin, 5)) for _ in range(2))
            for got, wanted in zip(other, one, strict=True):
                demand_same(got, wanted, "with equal generators it gives different results")
            if plugin.generator is None:
                for got, wanted in zip(case.outputs(plugin), case.outputs(_drawing(plugin, 0)), strict=True):
                    demand_same(got, wanted, "without a generator it gives something else than with one of seed 0")


def draws(plugin: Any) -> None:
    """A random plug-in gives different results with different generators, on some input."""
    for case in cases_of(plugin):
        with case:
            first, *others = (case.outputs(_drawing(plugin, seed)) for seed in range(8))
            if not all(same(got, wanted) for other in others for got, wanted in zip(other, first, strict=True)):
                return
    demand(False, "it says random = True, but eight generators gave one and the same result on every input tried")


def no_generator(plugin: Any) -> None:
    """A plug-in that is not random has no attribute ``generator``."""
    demand(not hasattr(plugin, "generator"), "it has an attribute generator, but its class does not say random = True")


def state(plugin: Any) -> None:
    """State can be saved between two calls and loaded into an equal plug-in, which goes on bit by bit; reset forgets it.

    It is made of tensors and plain containers, and of copies: nobody else's tensor is in it, and it is nobody else's.
    """
    missing = [name for name in STATE if not hasattr(plugin, name)]
    demand(not missing, f"it has some of {', '.join(STATE)} but not {', '.join(missing)}")
    first, second, *rest = series_of(plugin)

    def trained() -> Any:
        """Return a plug-in after two rounds, whose results and inputs have been overwritten since."""
        fresh = copy.deepcopy(plugin)
        for case in (first, second):
            handed = copy.deepcopy(case)
            handed.call(fresh).fill_(7)
            for tensor in handed.tensors().values():
                tensor.fill_(7)
        return fresh

    undisturbed = copy.deepcopy(plugin)
    with first:
        first.call(undisturbed)
    with second:
        second.call(undisturbed)
    saved = undisturbed.state_dict()
    written = _through_a_file(saved)
    wanted = [case.call(undisturbed) for case in rest]
    demand(_equal(saved, written), "the state that was handed out changed with the next call; hand out copies")

    loaded = copy.deepcopy(plugin)
    given = copy.deepcopy(written)
    loaded.load_state_dict(given)
    _overwrite(given)
    handed_out = trained()
    _overwrite(handed_out.state_dict())
    for what, other in {
        "an equal plug-in that loaded its state": loaded,
        "one whose results and inputs were overwritten later": trained(),
        "one whose handed out state was overwritten": handed_out,
    }.items():
        for case, value in zip(rest, wanted, strict=True):
            with case:
                demand_same(case.call(other), value, f"after two rounds, {what} goes on differently")

    undisturbed.reset()
    demand(
        _equal(undisturbed.state_dict(), copy.deepcopy(plugin).state_dict()),
        f"after reset() the state is not that of a new object: {undisturbed.state_dict()}",
    )
    with first:
        demand_same(first.call(undisturbed), first.call(copy.deepcopy(plugin)), "after reset() it is not like a new one")


def pastes_back(plugin: Any) -> None:
    """``repr()`` can be pasted back into Python."""
    text = repr(plugin)
    try:
        made = eval(text, dict(_names(plugin)))
    except Exception as error:
        demand(False, f"{text} cannot be pasted back, {type(error).__name__}: {error}")
    equal = made == plugin if dataclasses.is_dataclass(plugin) else repr(made) == text
    demand(type(made) is type(plugin) and bool(equal), f"{text} pasted back is another: {made!r}")


def tag(plugin: Any) -> None:
    """``str()`` is a short tag that begins with the name of the class."""
    text = str(plugin)
    demand(text.startswith(type(plugin).__name__), f"str() is {text!r}, which does not begin with {type(plugin).__name__}")
    short = len(text) <= LONGEST_TAG and "\n" not in text
    demand(short, f"str() must fit into one line of {LONGEST_TAG} characters; got {text!r}")
    demand("generator" not in text and not re.search(r" at 0x|tensor\(", text), f"str() shows what is no setting: {text!r}")


def pickles(plugin: Any) -> None:
    """It can be pickled and copied, as workers and the engine do, and the copy gives equal bits."""
    try:
        other = pickle.loads(pickle.dumps(plugin))
    except Exception as error:
        demand(False, f"pickle: {type(error).__name__}: {error}. Its class must stand at the top of a module, without lambdas")
    for case in cases_of(plugin):
        with case:
            for got, wanted in zip(case.outputs(other), case.outputs(plugin), strict=True):
                demand_same(got, wanted, "the unpickled one disagrees")


def has_state(plugin: Any) -> bool:
    """Whether a plug-in says that it has state."""
    return any(hasattr(plugin, name) for name in STATE)


def is_random(plugin: Any) -> bool:
    """Whether a plug-in says that it draws."""
    return bool(getattr(plugin, "random", False))


EVERYBODY = (
    Check(answers),
    Check(inputs_untouched),
    Check(repeatable),
    Check(global_generators_untouched),
    Check(generator, is_random),
    Check(draws, is_random),
    Check(no_generator, lambda plugin: not is_random(plugin)),
    Check(state, has_state),
    Check(pastes_back),
    Check(tag),
    Check(pickles),
)


def _drawing(plugin: Any, seed: int) -> Any:
    other = copy.deepcopy(plugin)
    object.__setattr__(other, "generator", torch.Generator().manual_seed(seed))  # as the engine lends it
    return other


def _global_generators() -> dict[str, Any]:
    numpy = np.random.get_state()  # noqa: NPY002
    found = {
        "random": getstate(),
        "NumPy": repr([np.asarray(part).tolist() for part in numpy]),
        "torch": torch.get_rng_state().tolist(),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        found["torch.cuda"] = torch.cuda.get_rng_state().tolist()
    return found


def _names(plugin: Any) -> Iterator[tuple[str, Any]]:
    """Yield what somebody who pastes has imported: the plug-in's module, and the classes of what it is made of."""
    yield from vars(sys.modules[type(plugin).__module__]).items()
    yield type(plugin).__name__, type(plugin)
    for part in dataclasses.fields(plugin) if dataclasses.is_dataclass(plugin) else ():
        value = getattr(plugin, part.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from _names(value)


def _through_a_file(saved: Any) -> Any:
    """Return ``saved`` after a trip through the format of checkpoints, which loads tensors and plain containers only."""
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    try:
        return torch.load(file, weights_only=True)
    except pickle.UnpicklingError as error:
        demand(False, f"state_dict() holds more than tensors and plain containers: {str(error).splitlines()[0]}")


def _tensors(saved: Any) -> Iterator[Tensor]:
    if isinstance(saved, Tensor):
        yield saved
    elif isinstance(saved, dict | list | tuple):
        parts: Iterable[Any] = saved.values() if isinstance(saved, dict) else saved
        for part in parts:
            yield from _tensors(part)


def _overwrite(saved: Any) -> None:
    for tensor in _tensors(saved):
        tensor.fill_(7)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and same(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)
