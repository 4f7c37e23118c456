"""FedVARP and MIFA: by hand, against lists, and over rounds in which clients, or all replies, are missing."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedagg import (
    Adversary,
    Availability,
    Checkpoints,
    Clients,
    Cohort,
    ConfigError,
    LocalGrid,
    LocalSGD,
    Population,
    Strategy,
    run,
)
from fedagg.attacks import NaNAttack
from fedagg.grid import Trace
from fedagg.server_optimizers import Step
from strategies import MIFA, NNM, Bucketing, FedVARP, Mean, StaticClip, Uniform
from strategies.protocols.memory import fedvarp_step, mifa_step

Method = Callable[..., Strategy]
both = pytest.mark.parametrize("method", [FedVARP, MIFA])


def seen(round: int, rows: dict[int, list[float]], population: int | None = 3) -> Cohort:
    clients = sorted(rows)
    updates = torch.tensor([rows[client] for client in clients], dtype=torch.float64)
    return Cohort(round, clients, updates, torch.zeros(updates.shape[1]), torch.ones(len(rows)), population=population)


class Lists:
    """Both methods, one number at a time."""

    def __init__(self, population: int, d: int) -> None:
        self.last = [[0.0] * d for _ in range(population)]

    def mean(self) -> list[float]:
        return [sum(column) / len(self.last) for column in zip(*self.last, strict=True)]

    def fedvarp(self, rows: dict[int, list[float]]) -> list[float]:
        old = self.mean()
        own = [sum(rows[i][k] - self.last[i][k] for i in rows) / len(rows) for k in range(len(old))]
        for client, row in rows.items():
            self.last[client] = row
        return [a + b for a, b in zip(old, own, strict=True)]

    def mifa(self, rows: dict[int, list[float]]) -> list[float]:
        for client, row in rows.items():
            self.last[client] = row
        return self.mean()


# By hand


def test_one_round_by_hand() -> None:
    memory = torch.tensor([[0.5, 0.5], [1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    updates, who = torch.tensor([[1.0, 0.0], [0.0, 4.0]], dtype=torch.float64), torch.tensor([0, 2])
    before = memory.clone(), updates.clone()
    new = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 4.0]], dtype=torch.float64)
    for step, wanted in ((fedvarp_step, [0.75, 2.25]), (mifa_step, [2 / 3, 5 / 3])):
        delta, after = step(memory, who, updates)
        assert delta.tolist() == pytest.approx(wanted, abs=1e-12)
        assert torch.equal(after, new)
        assert after.mean(dim=0).tolist() == pytest.approx([2 / 3, 5 / 3])
        assert torch.equal(memory, before[0])
        assert torch.equal(updates, before[1])


def test_nobody_takes_part() -> None:
    memory = torch.tensor([[0.5, 0.5], [1.0, 1.0], [0.0, 0.0]])
    nobody, nothing = torch.empty(0, dtype=torch.int64), torch.empty(0, 2)
    for step, wanted in ((fedvarp_step, [0.0, 0.0]), (mifa_step, [0.5, 0.5])):
        delta, after = step(memory, nobody, nothing)
        assert delta.tolist() == wanted
        assert torch.equal(after, memory)


@pytest.mark.parametrize(
    ("strategy", "wanted"),
    [
        (FedVARP(), [-2.0, 2.1666666667]),
        (MIFA(), [-4 / 3, 1.0]),
        (MIFA(initialise="wait"), [0.0, 1.0]),
    ],
    ids=["fedvarp", "mifa", "mifa that waits"],
)
def test_two_rounds_by_hand(strategy: Strategy, wanted: list[float]) -> None:
    """w = -2, 0.1666666667 with FedVARP and -1.3333333333, -0.3333333333 with MIFA."""
    rounds = [{0: [-1.0], 1: [-3.0]}, {1: [-2.0], 2: [6.0]}]
    found = [float(strategy.aggregate(seen(round, rows))) for round, rows in enumerate(rounds, 1)]
    assert found == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("name", ["fedvarp", "mifa"])
def test_against_lists(name: str) -> None:
    """Strategy and function, over 60 rounds with changing participants."""
    draw, lists, memory = random.Random(0), Lists(9, 4), torch.zeros(9, 4, dtype=torch.float64)
    strategy, step = {"fedvarp": (FedVARP(), fedvarp_step), "mifa": (MIFA(), mifa_step)}[name]
    for round in range(1, 61):
        who = [client for client in range(9) if draw.random() < 0.3] or [8]
        rows = {client: [draw.gauss(0, 1) for _ in range(4)] for client in who}
        wanted = getattr(lists, name)(rows)
        cohort = seen(round, rows, 9)
        assert strategy.aggregate(cohort).tolist() == pytest.approx(wanted, abs=1e-12)
        delta, memory = step(memory, torch.tensor(who), cohort.updates)
        assert delta.tolist() == pytest.approx(wanted, abs=1e-12)


@both
def test_clients_are_known_by_their_ids(method: Method) -> None:
    """Ids of 64 bits instead of 0, 1, 2 change nothing; nor do rows that come in another order, since ids sort them."""
    ids = {0: 17, 1: 2**40, 2: 2**64 - 1}
    plain, named = method(), method()
    for round, rows in enumerate([{0: [-1.0], 1: [-3.0]}, {1: [-2.0], 2: [6.0]}, {0: [5.0], 2: [1.0]}], 1):
        wanted = plain.aggregate(seen(round, rows))
        assert torch.equal(named.aggregate(seen(round, {ids[client]: row for client, row in rows.items()})), wanted)


def test_a_row_that_was_enormous_leaves_no_trace() -> None:
    """A sum that is carried on would keep the rounding error of 1e30."""
    strategy = MIFA()
    strategy.aggregate(seen(1, {0: [1e30], 1: [1.0], 2: [2.0]}))
    assert float(strategy.aggregate(seen(2, {0: [3.0]}))) == pytest.approx(2.0)


def test_more_clients_may_come_and_some_may_leave() -> None:
    strategy = MIFA()
    assert float(strategy.aggregate(seen(1, {4: [6.0]}, population=2))) == 3.0
    assert float(strategy.aggregate(seen(2, {5: [6.0], 6: [6.0]}, population=4))) == 4.5
    assert float(strategy.aggregate(seen(3, {6: [2.0]}, population=1))) == 3.5  # who left is remembered


def test_mifa_that_waits() -> None:
    strategy = MIFA(initialise="wait")
    assert strategy.idle(1) is None
    for round, client in ((1, 0), (2, 2), (3, 0)):
        assert strategy.aggregate(seen(round, {client: [3.0]})).tolist() == [0.0]
        assert strategy.idle(round) is None
    assert strategy.aggregate(seen(4, {1: [6.0]})).tolist() == [4.0]
    assert strategy.idle(5).tolist() == [4.0]  # type: ignore[union-attr]


# In the engine


def final(result: Any) -> dict[str, Tensor]:
    return {name: torch.from_numpy(result.arrays[name].numpy().copy()) for name in result.arrays}


@both
def test_when_all_take_part_it_is_the_mean(method: Method, clients: Clients, model: nn.Module) -> None:
    found = final(run(LocalGrid(clients), method(), model, rounds=3))
    for name, wanted in final(run(LocalGrid(clients), Strategy(weighting=Uniform()), model, rounds=3)).items():
        assert torch.allclose(found[name], wanted, atol=1e-6)


def shifts(folder: Path, table: str) -> Trace:
    (folder / "trace.csv").write_text(table)
    return Trace(str(folder / "trace.csv"))


def test_rounds_without_replies(tmp_path: Path, grid: LocalGrid, model: nn.Module) -> None:
    """Nobody in rounds 1 and 3: MIFA repeats its step in round 3, FedVARP stands still, and neither can move in round 1."""
    world = Availability(grid, shifts(tmp_path, "0,0,0,0,0,0\n1,1,1,0,0,0\n0,0,0,0,0,0\n"))

    def models(strategy: Strategy) -> list[Tensor]:
        runs = [final(run(world, copy.deepcopy(strategy), model, rounds)) for rounds in (1, 2, 3)]
        return [torch.cat([array.flatten() for array in arrays.values()]) for arrays in runs]

    start = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    mifa, fedvarp = models(MIFA()), models(FedVARP())
    assert torch.equal(mifa[0], start)
    assert torch.equal(fedvarp[0], start)
    assert not torch.equal(mifa[1], start)
    assert torch.allclose(mifa[2] - mifa[1], mifa[1] - mifa[0], atol=1e-6)
    assert torch.equal(fedvarp[2], fedvarp[1])


@pytest.mark.parametrize("second", ["1,1,1,0,0,0", "0,0,0,0,0,0"], ids=["too few", "nobody"])
def test_rounds_with_too_few_replies_are_like_those_without(
    tmp_path: Path, grid: LocalGrid, model: nn.Module, second: str
) -> None:
    """NNM(f=2) needs five. MIFA repeats its step in round 2, whose replies it does not remember."""
    world = Availability(grid, shifts(tmp_path, f"1,1,1,1,1,0\n{second}\n"))
    strategies = [MIFA(pre_aggregators=[NNM(f=2)], cohort=6) for _ in range(2)]
    results = [run(world, strategy, model, rounds) for rounds, strategy in enumerate(strategies, 1)]
    start = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    first, second_ = (torch.cat([array.flatten() for array in final(result).values()]) for result in results)
    assert torch.allclose(second_ - first, first - start, atol=1e-6)
    assert not torch.equal(first, start)
    memories = [strategy.state_dict()["memory"] for strategy in strategies]
    assert torch.equal(*memories)


@pytest.mark.parametrize("strategy", [FedVARP(), MIFA(), MIFA(initialise="wait")], ids=["fedvarp", "mifa", "mifa that waits"])
@pytest.mark.parametrize("done", [1, 2, 4])
@pytest.mark.parametrize("third", ["0,0,0,0,1,1", "0,0,0,0,1,0"])
def test_resumed_to_the_bit(
    tmp_path: Path, grid: LocalGrid, model: nn.Module, strategy: Strategy, done: int, third: str
) -> None:
    """Also where the first round after it, the fifth, is one without replies, and one client has never been there."""
    world = Availability(grid, shifts(tmp_path, f"1,1,0,0,0,0\n0,1,1,1,0,0\n{third}\n1,0,0,0,1,0\n0,0,0,0,0,0\n"))
    wanted = final(run(world, copy.deepcopy(strategy), model, 6))
    run(world, copy.deepcopy(strategy), model, done, checkpoints=Checkpoints(tmp_path / "run", every=1))
    found = final(run(world, copy.deepcopy(strategy), model, 6, checkpoints=Checkpoints(tmp_path / "run", every=1)))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@both
def test_what_is_not_finite_is_never_remembered(method: Method, grid: LocalGrid, model: nn.Module) -> None:
    strategy = method()
    world = Adversary(grid, NaNAttack(), 1 / 3, seed=0, start=2, stop=3)
    arrays = final(run(world, strategy, model, rounds=5))
    assert all(array.isfinite().all() for array in arrays.values())
    assert strategy.state_dict()["memory"].isfinite().all()


@both
def test_buffers_stay_out_of_it(method: Method, population: Population) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))
    grid = LocalGrid(Clients(population, model, LocalSGD(lr=0.1), seed=0))
    strategy = method(cohort=3, server_optimizer=Step(lr=2.0))
    arrays = final(run(grid, strategy, model, rounds=4))
    assert {name: array.dtype for name, array in arrays.items()} == {n: t.dtype for n, t in model.state_dict().items()}
    assert (arrays["2.running_var"] >= 0).all()
    assert int(arrays["2.num_batches_tracked"]) > 0
    assert strategy.state_dict()["memory"].shape[1] == sum(parameter.numel() for parameter in model.parameters())


@both
def test_a_memory_over_the_limit_is_refused_before_anybody_trains(method: Method, grid: LocalGrid, model: nn.Module) -> None:
    """Six clients, 650 parameters of 4 bytes: 15,600 bytes."""
    run(grid, method(memory_gb=15.61e-6), model, rounds=1)
    with pytest.raises(
        ConfigError, match=r"each of 6 clients: 650 parameters each make 1.56e-05 GB, and strategy\.memory_gb=1.5e-05"
    ):
        run(grid, method(memory_gb=15e-6), model, rounds=1)


# Settings


@both
def test_parts_without_effect_are_refused(method: Method) -> None:
    name = method.__name__
    with pytest.raises(ConfigError, match=f"{name} averages its memory, so rule=Mean would have no effect"):
        method(rule=Mean())
    with pytest.raises(ConfigError, match=f"{name} averages its memory, so weighting=Uniform would have no effect"):
        method(weighting=Uniform())
    with pytest.raises(ConfigError, match=f"{name} remembers clients, but Bucketing leaves no row that stands for one"):
        method(pre_aggregators=[Bucketing()])
    with pytest.raises(ConfigError, match=f"{name} needs memory_gb > 0"):
        method(memory_gb=0)
    with pytest.raises(ValueError, match=rf"{name} needs to know how many clients there are in all"):
        method().aggregate(seen(1, {0: [1.0]}, population=None))
    strategy = method()
    strategy.aggregate(seen(1, {0: [1.0]}))
    with pytest.raises(ValueError, match=f"{name} remembers 1 coordinates, the updates have 2"):
        strategy.aggregate(seen(2, {0: [1.0, 2.0]}))


def test_initialise() -> None:
    with pytest.raises(ConfigError, match=r"initialise in \['zeros', 'wait'\]; got 'ones'"):
        MIFA(initialise="ones")  # type: ignore[arg-type]


@both
def test_pre_aggregators_change_what_is_remembered(method: Method) -> None:
    strategy = method(pre_aggregators=[StaticClip(c=5.0)])
    strategy.aggregate(seen(1, {0: [3.0, 4.0], 1: [30.0, 40.0]}))
    assert torch.allclose(strategy.state_dict()["memory"], torch.tensor([[3.0, 4.0], [3.0, 4.0]], dtype=torch.float64))


@pytest.mark.parametrize(
    "strategy", [FedVARP(), MIFA(initialise="wait", memory_gb=2, cohort=3, seed=1)], ids=["fedvarp", "mifa"]
)
def test_repr_pastes_back(strategy: Strategy) -> None:
    names = {"FedVARP": FedVARP, "MIFA": MIFA, "Step": Step}
    assert repr(eval(repr(strategy), names)) == repr(strategy)
