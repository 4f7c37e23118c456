"""Edge-popup: training once more by torch, and rounds of Federated Rank Learning on every executor."""

import copy
from pathlib import Path

import pytest
import torch
from flwr.app import ArrayRecord, Message
from torch import Tensor, nn
from torch.nn import functional

from fedagg import Clients, ConfigError, EdgePopup, Faults, LocalGrid, LocalSGD, Population, Strategy, rng, run
from fedagg.checkpoint import Checkpoints
from fedagg.clients import client_app
from fedagg.clients.app import arrays_of
from fedagg.data import IID
from fedagg.grid import Sanitize
from fedagg.grid.base import WorldGrid
from fedagg.loop import Result
from fedagg.models import build, mlp, supermask
from strategies import FRL
from tests.clients.local.slow import every_executor
from tests.protocols.test_frl import slow_mask, slow_rank, slow_vote
from tests.test_supermask import convolutional, net

SEED = 4


def smooth() -> nn.Module:
    """Without kinks, at which rounding would take another turn: sums of pixels with weights of one size cancel often."""

    def make() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 7, bias=False), nn.Tanh(), nn.Linear(7, 10, bias=False))

    return build(make, seed=2)


# Local training, once more and slowly


class Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores: Tensor, sparsity: float) -> Tensor:  # type: ignore[no-untyped-def, override]
        mask = slow_mask(scores.detach().flatten().tolist(), sparsity, by_magnitude=True)
        return torch.tensor(mask, dtype=scores.dtype).view(scores.shape)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def, override]
        return grad, None


def slow_train(start: list[Tensor], weights: list[Tensor], local: EdgePopup, x: Tensor, y: Tensor, client: int, round: int):  # type: ignore[no-untyped-def]
    scores = [nn.Parameter(part.clone()) for part in start]
    lr = local.lr * local.lr_decay ** (round - 1)
    solver = torch.optim.SGD(scores, lr=lr, momentum=local.momentum, weight_decay=local.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(solver, T_max=local.epochs)
    order = rng.generator(SEED, "batches", round, client)
    for _ in range(local.epochs):
        for rows in torch.randperm(len(y), generator=order).split(local.batch_size):
            hidden = x[rows].flatten(1)
            for i, (s, w) in enumerate(zip(scores, weights, strict=True)):
                hidden = functional.linear(hidden, w * Through.apply(s.abs(), local.sparsity))
                hidden = torch.tanh(hidden) if i < len(scores) - 1 else hidden
            solver.zero_grad()
            functional.cross_entropy(hidden, y[rows]).backward()
            solver.step()
        schedule.step()
    return [part.detach() for part in scores]


@every_executor
@pytest.mark.parametrize("round", [1, 7])
def test_against_torch_optim(population: Population, executor: str, round: int) -> None:
    """Three epochs of SGD with momentum, weight decay and a cosine schedule over epochs, from the second on another rate."""
    local = EdgePopup(sparsity=0.4, epochs=3, batch_size=50, lr_decay=0.9)
    clients = Clients(population, smooth(), local, seed=SEED, executor=executor)
    assert clients.engine.name == executor, clients.engine.why
    masked = clients.model
    start = [layer.scores.detach() for layer in (masked[1], masked[3])]  # type: ignore[index]
    weights = [layer.scale * layer.layer.weight for layer in (masked[1], masked[3])]  # type: ignore[index]
    done = clients.fit(clients.layout.gather(masked), [0, 3, 4], round)
    for client, row, rankings in zip([0, 3, 4], done.block.updates, done.extras["rankings"], strict=True):
        ends = slow_train(start, weights, local, *population.train(client), client, round)
        moved = torch.cat([(end - begin).flatten() for end, begin in zip(ends, start, strict=True)])
        assert (row - moved).norm() <= 1e-4 * moved.norm()
        assert rankings.dtype == torch.int32
        found = [part.tolist() for part in rankings.split([448, 70])]
        wanted = [slow_rank(end.flatten().tolist()) for end in ends]
        agree = sum(a == b for one, other in zip(found, wanted, strict=True) for a, b in zip(one, other, strict=True))
        assert agree >= 0.98 * 518  # neighbours may change places by rounding


def test_ranking_by_magnitude(population: Population) -> None:
    signed, by_size = (
        Clients(population, net(), EdgePopup(rank_by=by, epochs=1, batch_size=64), seed=SEED) for by in ("signed", "abs")
    )
    state = signed.layout.gather(signed.model)
    one, other = (clients.fit(state, [2], 1) for clients in (signed, by_size))
    scores = (state.params + one.block.updates[0]).split([448, 70])
    for done, magnitude in ((one, False), (other, True)):
        found = [part.tolist() for part in done.extras["rankings"][0].split([448, 70])]
        assert found == [slow_rank(part.tolist(), magnitude) for part in scores]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sparsity": 0.0}, r"sparsity, the fraction of edges that is kept, must lie in \(0, 1\]; got 0.0"),
        ({"rank_by": "size"}, "rank_by must be signed or abs"),
        ({"mask_by": "size"}, "mask_by must be signed or abs"),
        ({"lr_decay": 0.0}, "local.lr_decay must be a number > 0; got 0.0"),
        ({"epochs": 0}, "local.epochs must be an integer >= 1"),
        ({"momentum": 1.0}, "0 <= momentum < 1"),
    ],
)
def test_impossible_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EdgePopup(**settings)  # type: ignore[arg-type]


def test_signature() -> None:
    wanted = "EdgePopup(sparsity=0.5, rank_by='signed', mask_by='abs', epochs=5, batch_size=8, lr=0.4, lr_decay=0.999, "
    assert repr(EdgePopup()) == f"{wanted}momentum=0.9, weight_decay=0.0001)"


# Rounds


class Wire(WorldGrid):
    """Notes what travels."""

    def __init__(self, grid: LocalGrid) -> None:
        super().__init__(grid)
        self.down: list[list[Message]] = []
        self.up: list[list[Message]] = []

    def send_and_receive(self, messages: list[Message], *, timeout: float | None = None) -> list[Message]:  # type: ignore[override]
        self.down.append(list(messages))
        self.up.append(list(super().send_and_receive(messages, timeout=timeout)))
        return self.up[-1]


def lists(record: ArrayRecord) -> list[list[int]]:
    return [record[name].numpy().tolist() for name in ("1.scores", "3.scores")]


def quick(**settings: object) -> EdgePopup:
    return EdgePopup(**{"epochs": 1, "batch_size": 60, **settings})  # type: ignore[arg-type]


@every_executor
def test_rounds_against_plain_loops(population: Population, executor: str) -> None:
    """Rankings down, rankings up, nothing else; and the scores of the server are those that a loop elects."""
    clients = Clients(population, net(), quick(), seed=SEED, executor=executor)
    wire = Wire(LocalGrid(clients))
    scores = [layer.scores.detach().flatten().tolist() for layer in (clients.model[1], clients.model[3])]  # type: ignore[index]
    initial = copy.deepcopy(scores)
    result = run(wire, FRL(cohort=4, seed=SEED), net(), 3, seed=SEED)
    for down, up in zip(wire.down, wire.up, strict=True):
        assert len(down) == len(up) == 4
        for message in (*down, *up):
            assert sorted(message.content) == sorted(["arrays", "config"] if message in down else ["arrays", "metrics"])
            assert all(array.dtype == "int32" for array in arrays_of(message).values())
        assert [lists(arrays_of(message)) for message in down] == [[slow_rank(part) for part in scores]] * 4
        votes = [lists(arrays_of(reply)) for reply in up]
        scores = [slow_vote([vote[i] for vote in votes], initial[i]) for i in (0, 1)]
    found = clients.layout.read(result.arrays).params
    assert torch.equal(found, torch.tensor([*scores[0], *scores[1]]))


def test_executors_agree(population: Population) -> None:
    def ends(executor: str) -> Tensor:
        clients = Clients(population, convolutional(), quick(), seed=SEED, executor=executor)
        assert clients.engine.name == executor, clients.engine.why
        return clients.layout.read(run(LocalGrid(clients), FRL(), convolutional(), 3).arrays).params

    one, other = ends("one_at_a_time"), ends("batched")
    assert float((one == other).float().mean()) > 0.97


def test_clients_rebuild_the_servers_scores_to_the_bit(population: Population) -> None:
    clients = Clients(population, net(), quick(), seed=SEED)
    seen: list[Tensor] = []
    fit = clients.fit

    def noted(state, *args, **kwargs):  # type: ignore[no-untyped-def]
        seen.append(state.params)
        return fit(state, *args, **kwargs)

    clients.fit = noted  # type: ignore[method-assign]
    servers: list[Tensor] = [clients.layout.gather(clients.model).params]
    strategy = FRL()
    aggregate = strategy.aggregate
    strategy.aggregate = lambda cohort: servers.append(aggregate(cohort)) or servers[-1]  # type: ignore[method-assign, func-returns-value]
    run(LocalGrid(clients), strategy, clients.model, 3)
    assert len(seen) == 3
    assert all(torch.equal(a, b) for a, b in zip(seen, servers[:3], strict=True))


def test_bytes_are_those_of_one_ranking_each_way(population: Population) -> None:
    """448 + 70 edges of four bytes; a float model beside them would show."""
    result = run(LocalGrid(Clients(population, net(), quick(), seed=SEED)), FRL(cohort=4), net(), 2)
    for name in ("bytes_down", "bytes_up"):
        assert result.series(name, "server") == [(1, 4 * 518 * 4), (2, 4 * 518 * 4)]


def test_clients_evaluate_what_they_rebuild(population: Population) -> None:
    held = Population.split(population.dataset, IID(), num_clients=6, seed=0, holdout=0.2)
    clients = Clients(held, net(), quick(), seed=SEED)
    wire = Wire(LocalGrid(clients))
    result = run(wire, FRL(evaluate_every=1), net(), 1)
    assert all(array.dtype == "int32" for array in arrays_of(wire.down[1][0]).values())
    state = clients.layout.read(result.arrays)
    wanted = clients.evaluate(state, list(range(6)), 1).metrics
    found = {row[2]: row[4] for row in result.rows if row[1] == "client" and row[3] == "accuracy"}
    assert found == {client: metrics["accuracy"] for client, metrics in enumerate(wanted)}


def test_a_run_goes_on_from_a_checkpoint(population: Population, tmp_path: Path) -> None:
    def ends(rounds: int, folder: Path | None = None) -> Tensor:
        clients = Clients(population, net(), quick(), seed=SEED)
        grid = Faults(LocalGrid(clients), drop=0.2, corrupt=0.2, nan=0.1, wrong_shape=0.1, wrong_keys=0.1, seed=1)
        checkpoints = Checkpoints(folder, every=1) if folder else None
        return clients.layout.read(run(grid, FRL(), net(), rounds, checkpoints=checkpoints).arrays).params

    whole = ends(5)
    ends(2, tmp_path)
    assert torch.equal(ends(5, tmp_path), whole)


def test_flower_clients_do_the_same(population: Population) -> None:
    clients = Clients(population, net(), quick(), seed=SEED)
    ours = run(LocalGrid(clients), FRL(cohort=4, seed=SEED), net(), 3, seed=SEED)
    app = LocalGrid(client_app(clients), num_clients=6)
    theirs = run(app, FRL(cohort=4, seed=SEED), clients.model, 3, seed=SEED)
    one, other = (clients.layout.read(result.arrays).params for result in (ours, theirs))
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("fault", "event"),
    [("corrupt", "corrupted"), ("wrong_shape", "wrong_shape"), ("wrong_keys", "wrong_keys"), ("nan", "made_nan")],
)
def test_what_is_no_permutation_is_dropped_reported_and_counted(population: Population, fault: str, event: str) -> None:
    strategy, rounds = FRL(), 6
    grid = Faults(LocalGrid(Clients(population, net(), quick(), seed=SEED)), **{fault: 0.4}, seed=1)  # type: ignore[arg-type]
    result = run(grid, strategy, net(), rounds)
    damaged, rejected = (dict(result.series(name, "server")) for name in (event, "rejected"))
    assert sum(damaged.values()) > 5
    assert rejected == damaged
    assert all(dict(result.series("clients", "server"))[round] == 6 - count for round, count in rejected.items())
    reasons = set(strategy.last_info["rejected"].values())
    assert all("no permutation" in reason or "missing arrays" in reason for reason in reasons)
    assert len(strategy.last_info["rejected"]) == rejected[rounds]


@every_executor
def test_a_client_that_diverged_has_no_vote(population: Population, executor: str) -> None:
    """A rate of 1e30 makes scores infinite and then NaN; the order of NaN would be that of the ids, a permutation."""
    clients = Clients(population, net(), quick(lr=1e30), seed=SEED, executor=executor)
    assert clients.engine.name == executor, clients.engine.why
    result = run(LocalGrid(clients), strategy := FRL(), net(), 2)
    for name, count in (("clients", 0), ("rejected", 6), ("not_finite", 6)):
        assert result.series(name, "server") == [(1, count), (2, count)]
    assert strategy.last_info["rejected"] == dict.fromkeys(range(6), "its model is not finite")
    assert torch.equal(clients.layout.read(result.arrays).params, clients.layout.gather(clients.model).params)


def test_one_that_diverged_leaves_the_others_their_votes(population: Population) -> None:
    clients = Clients(population, net(), quick(), seed=SEED)
    start = clients.layout.gather(clients.model).params.split([448, 70])
    wire = Wire(LocalGrid(clients))
    wire.poison({2: lambda x, y: (x * torch.nan, y)})
    result = run(wire, FRL(), net(), 1)
    assert [result.last(name, "server") for name in ("clients", "rejected", "not_finite")] == [5, 1, 1]
    votes = {reply.metadata.src_node_id: lists(arrays_of(reply)) for reply in wire.up[0]}
    assert votes.pop(2) == [[-1] * 448, [-1] * 70]
    elected = [slow_vote([vote[i] for vote in votes.values()], part.tolist()) for i, part in enumerate(start)]
    assert torch.equal(clients.layout.read(result.arrays).params, torch.tensor([*elected[0], *elected[1]]))


def test_a_guard_drops_the_same_replies(population: Population) -> None:
    grid = Faults(
        LocalGrid(Clients(population, net(), quick(), seed=SEED)), corrupt=0.2, wrong_shape=0.2, wrong_keys=0.2, seed=1
    )
    result = run(Sanitize(grid), FRL(), net(), 4)
    damaged = [sum(values) for values in zip(*(grid_events(result, name) for name in DAMAGE), strict=True)]
    assert sum(damaged) > 5
    assert grid_events(result, "sanitized") == damaged
    assert not any(grid_events(result, "rejected"))


DAMAGE = ("corrupted", "wrong_shape", "wrong_keys")


def grid_events(result: Result, name: str) -> list[float]:
    return [value for _, value in result.series(name, "server")]


def test_without_replies_the_scores_stay(population: Population) -> None:
    clients = Clients(population, net(), quick(), seed=SEED)
    result = run(Faults(LocalGrid(clients), drop=1.0), FRL(), net(), 2)
    assert torch.equal(clients.layout.read(result.arrays).params, clients.layout.gather(clients.model).params)


def test_it_learns(population: Population) -> None:
    wide = build(lambda: mlp((1, 8, 8), 10, hidden=(32,), bias=False), seed=0)
    result = run(LocalGrid(Clients(population, wide, EdgePopup(epochs=2), seed=0)), FRL(), wide, 4)
    assert dict(result.series())[0] < 0.25
    assert result.last() > 0.6


@pytest.mark.parametrize(
    ("local", "strategy", "message"),
    [
        (quick(), Strategy(), r"EdgePopup is the clients' half of FRL, and the server runs Strategy. Set strategy=frl"),
        (
            LocalSGD(),
            FRL(),
            "FRL is the server's half of a method whose clients train with EdgePopup; these train with LocalSGD",
        ),
        (quick(sparsity=0.3), FRL(), "FRL has sparsity=0.5 and EdgePopup sparsity=0.3; make them agree"),
        (quick(), FRL(mask_by="signed"), "FRL has mask_by='signed' and EdgePopup mask_by='abs'; make them agree"),
    ],
)
def test_halves_that_do_not_belong_together(population: Population, local: object, strategy: Strategy, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(LocalGrid(Clients(population, net(), local, seed=0)), strategy, net(), 1)  # type: ignore[arg-type]


def test_a_foreign_client_is_sent_no_scores(population: Population) -> None:
    """Whoever does not know the initial scores has to say so."""
    clients = Clients(population, net(), LocalSGD(), seed=0)
    with pytest.raises(Exception, match="missing arrays"):
        run(LocalGrid(client_app(clients), num_clients=6), FRL(), supermask(net(), seed=0), 1)
