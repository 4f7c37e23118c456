"""What a strategy promises, over a few rounds of a tiny population in this process."""

from __future__ import annotations

import copy
import logging
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from fedagg.checkpoint import Checkpoints
from fedagg.clients import Clients, LocalSGD
from fedagg.clients.local import LocalTraining
from fedagg.cohort import Trusted
from fedagg.data import IID, Dataset, Population
from fedagg.grid import Faults, LocalGrid
from fedagg.loop import Result, run
from fedagg.models import build, mlp
from fedagg.params import State
from fedagg.strategy import Strategy
from fedagg.testing.core import BrokenPromise, Check, demand
from fedagg.testing.inputs import MOST

ROUNDS = 4
FOREIGN = 10  # clients behind a strategy that cannot be asked how many it needs


def finishes(strategy: Any) -> None:
    """Every round ends with a finite model of the shapes and dtypes it began with."""
    model, result = _local(strategy).trains(_model(strategy), seed=0), _run(strategy)
    demand(result.rounds == ROUNDS, f"{result.rounds} rounds of {ROUNDS} were finished")
    wanted = {name: (tuple(tensor.shape), tensor.numpy().dtype) for name, tensor in model.state_dict().items()}
    arrays = _arrays(result)
    found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    demand(found == wanted, f"the model's arrays are {found} instead of {wanted}")
    demand(all(np.isfinite(array).all() for array in arrays.values()), "the model is not finite")


def same_bits_twice(strategy: Any) -> None:
    """Equal strategies give the same model and the same metrics, to the bit."""
    _demand_equal(_run(strategy), _run(strategy), "two equal runs differ")


def resumes(strategy: Any) -> None:
    """A run that goes on from a checkpoint after half of its rounds ends with the bits of one that was not stopped."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(folder, every=1)
        _run(strategy, rounds=ROUNDS // 2, checkpoints=checkpoints)
        demand(checkpoints.latest() is not None, "its state cannot be saved: no checkpoint was written")
        resumed = _run(strategy, checkpoints=checkpoints)
    _demand_equal(resumed, _run(strategy), "the run that was resumed ends differently")


def no_replies(strategy: Any) -> None:
    """A round without replies keeps the model."""
    model = _local(strategy).trains(_model(strategy), seed=0)
    before = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    after = _arrays(_run(strategy, lambda grid: Faults(grid, drop=1.0)))
    changed = [name for name in before if name not in after or not np.array_equal(before[name], after[name])]
    demand(not changed, f"without a single reply {', '.join(changed)} changed")


def not_finite(strategy: Any) -> None:
    """A reply that holds NaN does not reach the model."""
    arrays = _arrays(_run(strategy, lambda grid: Faults(grid, nan=0.25)))
    demand(all(np.isfinite(array).all() for array in arrays.values()), "with NaN in a quarter of the replies so is the model")


STRATEGY = (
    Check(finishes),
    Check(same_bits_twice),
    Check(resumes),
    Check(no_replies),
    Check(not_finite, lambda strategy: isinstance(strategy, Strategy)),
)


def _run(
    strategy: Any, world: Callable[[LocalGrid], Any] = lambda grid: grid, rounds: int = ROUNDS, checkpoints: Any = None
) -> Result:
    """Return a run of a copy of ``strategy`` with a few more clients than it needs."""
    chosen = copy.deepcopy(strategy)
    if isinstance(chosen, Strategy) and chosen.trusted is None and {"root_update", "loss"} & chosen.rule.needs:
        chosen.trusted = _trusted
    model = _model(chosen)
    population = _population(_clients(chosen) + 2)
    clients = Clients(population, model, _local(chosen), seed=0)
    if isinstance(chosen, Strategy):
        if "proxy" in chosen.needs and not (getattr(chosen, "model", None) and getattr(chosen, "proxy", None)):
            chosen.model, chosen.proxy = model, population.test()  # type: ignore[attr-defined]
        chosen.reachability = torch.ones(len(population), dtype=torch.float64)
    grid = LocalGrid(clients)
    with _quiet():
        return run(world(grid), chosen, model, rounds, seed=0, checkpoints=checkpoints)


def _local(strategy: Any) -> LocalTraining:
    """Return the other half of a strategy, wherever it is defined; plain SGD where there is none."""
    half = getattr(strategy, "client_half", "")
    shared = {name: getattr(strategy, name) for name in getattr(strategy, "shared", ())}
    waiting: list[type[LocalTraining]] = [LocalSGD, *LocalTraining.__subclasses__()]
    for kind in waiting:
        if half in ("", kind.__name__):
            return kind(lr=0.1, **shared)  # type: ignore[call-arg]
        waiting += kind.__subclasses__()
    raise BrokenPromise(f"no local training is called {half}, the other half of this strategy")


def _clients(strategy: Any) -> int:
    """Return how many clients a strategy needs: its cohort, or the fewest that it does not refuse."""
    if not isinstance(strategy, Strategy):
        return FOREIGN
    if strategy.cohort is not None:
        return strategy.cohort
    for n in range(1, MOST):
        try:
            strategy.check(n)
        except ValueError:
            continue
        return n
    return MOST


def _population(clients: int) -> Population:
    draw = np.random.default_rng(0)
    y = draw.integers(0, 3, 4 * clients)
    x = draw.normal(size=(len(y), 2)) + y[:, None]
    data = Dataset("three clouds", x, y, x[:30], y[:30], num_classes=3, source="drawn")
    return Population.split(data, IID(), num_clients=clients, seed=0)


def _model(strategy: Any) -> nn.Module:
    biased = getattr(strategy, "payload", "updates") == "updates"  # rankings are of edges alone
    return build(mlp, (2,), 3, hidden=(), bias=biased, seed=0)


def _trusted(state: State, round: int) -> Trusted:
    """Return what a server would learn that wants every parameter to grow a little."""
    wanted = torch.full_like(state.params, 0.01)
    return Trusted(lambda: wanted.clone(), lambda step: float((step.double() - wanted).square().sum()))


def _arrays(result: Result) -> dict[str, Any]:
    return {name: result.arrays[name].numpy() for name in result.arrays}


def _demand_equal(one: Result, other: Result, what: str) -> None:
    left, right = _arrays(one), _arrays(other)
    apart = [name for name in right if name not in left or left[name].tobytes() != right[name].tobytes()]
    demand(not apart, f"{what} in {', '.join(apart)}")
    rows = [
        (a, b) for a, b in zip(one.rows, other.rows, strict=True) if a[:4] != b[:4] or not (a[4] == b[4] or math.isnan(a[4]))
    ]
    demand(not rows, f"{what}: {rows[:3]}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the engine from telling of rounds that are meant to fail."""
    logger = logging.getLogger("fedagg")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
