"""What plug-ins are tried on: drawn from fixed seeds, so that a failure can be made again from what its message says."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from fedagg.cohort import Cohort
from fedagg.contracts import Attack, PreAggregator, Rule, Weighting
from fedagg.testing.core import BrokenPromise

MOST = 64  # a plug-in that refuses fewer rows than these refuses everything
CLASSES = 10
METRICS = ("train_loss", "loss_before", "a_norm")  # what clients report to whom it may concern


def rows(seed: int, n: int, d: int, scale: float = 1.0, common: float = 1.0) -> Tensor:
    """Return [n, d] float64: ``scale`` times standard normal draws, plus ``common``."""
    return scale * torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + common


class Case(ABC):
    """One input. ``with case:`` adds it to the message of whatever goes wrong inside."""

    made: str

    @abstractmethod
    def call(self, plugin: Any) -> Tensor:
        """Return what ``plugin`` makes of this input."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return what the plug-in is handed."""

    def outputs(self, plugin: Any) -> list[Tensor]:
        """Return everything that a copy of ``plugin`` makes of this input."""
        return [self.call(copy.deepcopy(plugin))]

    def __str__(self) -> str:
        first = next(iter(self.tensors().values()))
        values = "" if first.numel() > 64 else f" = {[[float(f'{v:.6g}') for v in row] for row in first.tolist()]}"
        return f"{self.made}{values}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, Exception):
            found = str(error) if isinstance(error, BrokenPromise) else f"it raised {type(error).__name__}: {error}"
            raise BrokenPromise(f"{found}\n    with {self}") from error


@dataclass(frozen=True)
class Rows(Case):
    """Input of a rule or a pre-aggregator, and whatever rules may ask for by keyword."""

    made: str
    updates: Tensor
    weights: Tensor | None = None
    client_ids: Sequence[int] = ()
    root_update: Tensor | None = None
    loss: Callable[[Tensor], float] | None = None

    def call(self, plugin: Any) -> Tensor:
        if isinstance(plugin, PreAggregator):
            return plugin(self.updates)
        result: Tensor = plugin(self.updates, self.weights, **self.context(plugin))
        return result

    def client_weights(self, rule: Any) -> Tensor:
        """Return what the rule gives each client."""
        weights = {"weights": self.weights} if rule.uses_weights else {}
        result: Tensor = rule.client_weights(self.updates, **weights, **self.context(rule))
        return result

    def context(self, rule: Rule) -> dict[str, Any]:
        """Return what the rule needs by keyword."""
        return {name: getattr(self, name) for name in ("client_ids", "root_update", "loss") if name in rule.needs}

    def tensors(self) -> dict[str, Tensor]:
        found = {"updates": self.updates, "weights": self.weights, "root_update": self.root_update}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def moved(self, forth: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> Rows:
        """Return the same in other coordinates: rows, root update and loss alike."""
        assert self.root_update is not None
        assert self.loss is not None
        loss = self.loss
        return replace(
            self, updates=forth(self.updates), root_update=forth(self.root_update), loss=lambda step: loss(back(step))
        )

    def to(self, device: str, dtype: torch.dtype) -> Rows:
        """Return the same elsewhere."""
        assert self.root_update is not None
        weights = None if self.weights is None else self.weights.to(device)
        return replace(
            self, updates=self.updates.to(device, dtype), root_update=self.root_update.to(device, dtype), weights=weights
        )


@dataclass(frozen=True)
class Facts(Case):
    """Input of a weighting."""

    made: str
    cohort: Cohort

    def call(self, plugin: Any) -> Tensor:
        result: Tensor = plugin(self.cohort)
        return result

    def tensors(self) -> dict[str, Tensor]:
        cohort = self.cohort
        found = {"num_examples": cohort.num_examples, "updates": cohort.updates, "params": cohort.params, **cohort.metrics}
        told = {"label_counts": cohort.label_counts, "reachability": cohort.reachability}
        return found | {name: tensor for name, tensor in told.items() if tensor is not None}


@dataclass(frozen=True)
class Chance(Case):
    """Input of an attack: what there is to know, and the data of a Byzantine client."""

    made: str
    honest: Tensor
    f: int
    own: Tensor | None
    last_delta: Tensor | None
    params: Tensor
    round: int
    client_ids: Sequence[int]
    x: Tensor = field(repr=False)
    y: Tensor = field(repr=False)

    def call(self, plugin: Any) -> Tensor:
        result: Tensor = plugin(
            self.honest,
            self.f,
            own=self.own,
            last_delta=self.last_delta,
            params=self.params,
            round=self.round,
            client_ids=self.client_ids,
        )
        return result

    def outputs(self, plugin: Any) -> list[Tensor]:
        return [*super().outputs(plugin), *self.poisoned(copy.deepcopy(plugin))]

    def poisoned(self, attack: Any, attacker: int = 0) -> Sequence[Tensor]:
        """Return the data after ``poison``, nothing where the attack has none."""
        if getattr(attack, "poison", None) is None:
            return ()
        share = {"attacker": attacker} if attack.distributed else {}
        pair: tuple[Tensor, Tensor] = attack.poison(self.x, self.y, **share)
        return pair

    def tensors(self) -> dict[str, Tensor]:
        found = {name: getattr(self, name) for name in ("honest", "own", "last_delta", "params", "x", "y")}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def to(self, device: str, dtype: torch.dtype) -> Chance:
        """Return the same elsewhere."""
        names = ("honest", "own", "last_delta", "params")
        tensors = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if not self.honest.is_floating_point():
            dtype = self.honest.dtype  # rankings have one
        return replace(self, **{name: tensor.to(device, dtype) for name, tensor in tensors.items()})


SHAPES = ((0, 3, 1.0), (1, 5, 1.0), (3, 2, 1e-5), (6, 8, 1.0))  # rows beyond the fewest possible, columns, scale
CROWD = 5


def cases_of(plugin: Any) -> Iterator[Any]:
    """Yield inputs for a plug-in, from the fewest rows that it takes upward."""
    make, fewest = _maker(plugin), fewest_of(plugin)
    for seed, (more, d, scale) in enumerate(SHAPES):
        yield make(seed, fewest + more, d, scale=scale)


def series_of(plugin: Any, length: int = 4) -> list[Any]:
    """Return inputs of successive rounds, all of one shape."""
    make, n = _maker(plugin), fewest_of(plugin) + 2
    return [make(100 + i, n, 4, round=i + 1) for i in range(length)]


def fewest_of(plugin: Any) -> int:
    """Return the fewest rows that ``plugin`` takes: the first number from 1 up that it does not refuse."""
    refused: Exception | None = None
    for n in range(1, MOST + 1):
        try:
            _maker(plugin)(0, n, 16).call(copy.deepcopy(plugin))
        except Exception as error:  # one that is no ValueError breaks another promise, which has its own check
            refused = error
        else:
            return n
    raise BrokenPromise(f"with 1 to {MOST} rows it raises; with {MOST} {type(refused).__name__}: {refused}")


def _maker(plugin: Any) -> Callable[..., Any]:
    if isinstance(plugin, Attack):
        make = chance if "updates" in plugin.payloads else ranked_chance
        return partial(make, classes=getattr(plugin, "num_classes", CLASSES))
    return facts if isinstance(plugin, Weighting) else rule_rows


def rule_rows(seed: int, n: int, d: int, scale: float = 1.0, round: int = 1, common: float | None = None) -> Rows:
    """Return the input of a rule: rows off the origin, and a server whose own examples agree with most of them."""
    common = scale if common is None else common
    updates = rows(seed, n, d, scale, common)
    optimum = updates.mean(dim=0) if n else torch.full((d,), common, dtype=torch.float64)
    root = optimum + scale * rows(seed + 1000, 1, d, 0.1, 0.0)[0]
    return Rows(
        f"rows(seed={seed}, n={n}, d={d}, scale={scale}, common={common})",
        updates,
        client_ids=[3 * i + 2 for i in range(n)],
        root_update=root,
        loss=partial(squared_distance, optimum),
    )


def squared_distance(optimum: Tensor, step: Tensor) -> float:
    """Return the loss of a step, where ``optimum`` would be the best."""
    return float((step.double() - optimum.to(step.device)).square().sum())


def facts(seed: int, n: int, d: int, scale: float = 1.0, round: int = 1) -> Facts:
    """Return a cohort with everything that is ever known about one."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 20, (n, 3), generator=draw) + 1
    cohort = Cohort(
        round=round,
        client_ids=[3 * i + 2 for i in range(n)],
        updates=rows(seed, n, d, scale, scale),
        params=rows(seed + 1000, 1, d)[0],
        num_examples=labels.sum(dim=1).double(),
        metrics={name: torch.rand(n, generator=draw, dtype=torch.float64) + 0.5 for name in METRICS},
        label_counts=labels,
        population=4 * n + 3,
        reachability=torch.rand(n, generator=draw, dtype=torch.float64) / 2 + 0.5,
    )
    return Facts(f"a cohort with rows(seed={seed}, n={n}, d={d}, scale={scale})", cohort)


def chance(seed: int, h: int, d: int, scale: float = 1.0, round: int = 4, f: int = 2, classes: int = CLASSES) -> Chance:
    """Return the input of an attack by ``f`` of h + f clients, and 64 images of 3 x 16 x 16."""
    draw = torch.Generator().manual_seed(seed)
    return Chance(
        f"honest = rows(seed={seed}, n={h}, d={d}, scale={scale}, common={scale}), f={f}, round={round}",
        rows(seed, h, d, scale, scale),
        f,
        own=rows(seed + 2000, f, d, scale, scale),
        last_delta=None if round == 1 else rows(seed + 3000, 1, d, scale, scale)[0],
        params=rows(seed + 1000, 1, d)[0],
        round=round,
        client_ids=[3 * i + 2 for i in range(h)],
        x=torch.rand(64, 3, 16, 16, generator=draw),
        y=torch.randint(0, classes, (64,), generator=draw),
    )


def ranked_chance(*args: Any, **settings: Any) -> Chance:
    """Return the same input of an attack on rankings: the ids of the columns, ordered by the values they have there."""
    case = chance(*args, **settings)
    assert case.own is not None
    orders = {name: getattr(case, name).argsort(dim=-1) for name in ("honest", "own", "params")}
    return replace(case, made=f"{case.made}, each row as argsort orders it", last_delta=None, **orders)
