"""What clients remember between rounds: worker momentum, wherever and however they train."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fedagg import Clients, ConfigError, LocalGrid, LocalSGD, Population, Strategy, run
from fedagg.checkpoint import Checkpoints
from fedagg.clients import WorkerMomentum, client_app
from fedagg.clients.local import Sent
from fedagg.clients.memory import ClientMemory
from fedagg.loop import Callback, Result, Round
from fedagg.params import Layout, ModelState


def trained(population: Population, model: nn.Module, local: LocalSGD, executor: str = "one_at_a_time") -> Clients:
    return Clients(population, model, local, seed=0, executor=executor)


def final(result: Result, model: nn.Module) -> Tensor:
    return Layout.of_model(model).read(result.arrays).params


@pytest.mark.parametrize(("form", "share"), [("heavy_ball", 1.0), ("ema", 0.25)])
def test_what_is_sent_is_the_momentum(population: Population, model: nn.Module, form: str, share: float) -> None:
    """Client 2 takes part in rounds 1 and 3, client 4 in round 1 alone, client 5 in round 3 for the first time."""
    plain = trained(population, model, LocalSGD())
    clients = trained(population, model, WorkerMomentum(beta=0.75, form=form))  # type: ignore[arg-type]
    memory, state = ClientMemory(clients.local.keeps), clients.layout.gather(model)

    def sent(ids: list[int], round: int) -> tuple[Tensor, Tensor]:
        done = clients.fit(state, ids, round, kept=memory.take(ids, clients.local.first(state)))
        memory.put(done.client_ids, done.kept)
        return done.block.updates.clone(), plain.fit(state, ids, round).block.updates.clone()

    first, g1 = sent([2, 4], 1)
    torch.testing.assert_close(first, share * g1)
    third, g3 = sent([2, 5], 3)
    torch.testing.assert_close(third[0], 0.75 * first[0] + share * g3[0])
    torch.testing.assert_close(third[1], share * g3[1])


@pytest.mark.parametrize(("form", "wanted"), [("heavy_ball", [1, 0.4, 2.36]), ("ema", [0.1, 0.04, 0.236])])
def test_momenta_by_hand(form: str, wanted: list[float]) -> None:
    local, kept = WorkerMomentum(beta=0.9, form=form), {"momentum": torch.zeros(1, 1)}  # type: ignore[arg-type]
    sent = []
    for change in (1.0, -0.5, 2.0):
        row = torch.tensor([[change]])
        local.send(Sent(ModelState(row[0], row[0, :0], row[0, :0]), row, row[:, :0], torch.ones(len(row))), kept)
        sent.append(row.item())
    assert sent == pytest.approx(wanted)


def test_one_step_a_round_and_the_mean_are_heavy_ball_sgd(population: Population, model: nn.Module) -> None:
    """The mean of momenta is the momentum of the mean: six clients, one full batch each, against torch's own optimizer."""
    everything = Population(population.dataset, population.indices)
    clients = trained(everything, model, WorkerMomentum(batch_size=10_000, lr=0.5, beta=0.8))
    result = run(LocalGrid(clients), Strategy(), model, rounds=6)
    layout = Layout.of_model(model)
    own = nn.Linear(64, 10)
    own.weight.data, own.bias.data = (parameter.detach().clone() for parameter in model.parameters())
    optimizer = torch.optim.SGD(own.parameters(), lr=0.5, momentum=0.8)
    for _ in range(6):
        losses = []
        for client in range(6):
            x, y = everything.train(client)
            losses.append(nn.functional.cross_entropy(own(x.flatten(1)), y))
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    wanted = torch.cat([own.weight.detach().flatten(), own.bias.detach()])
    torch.testing.assert_close(layout.read(result.arrays).params, wanted, rtol=1e-4, atol=1e-5)


def test_executors_agree(population: Population, model: nn.Module) -> None:
    results = [
        final(run(LocalGrid(trained(population, model, WorkerMomentum(), executor)), Strategy(cohort=3), model, 5), model)
        for executor in ("one_at_a_time", "batched")
    ]
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-6)


def test_flower_clients_remember_too(population: Population, model: nn.Module) -> None:
    clients = trained(population, model, WorkerMomentum())
    ours = run(LocalGrid(clients), Strategy(cohort=3), model, rounds=4)
    theirs = run(LocalGrid(client_app(clients), num_clients=6), Strategy(cohort=3), model, rounds=4)
    torch.testing.assert_close(final(ours, model), final(theirs, model), rtol=1e-5, atol=1e-6)


class StopAfter(Callback):
    def __init__(self, round: int) -> None:
        self.round = round

    def round_finished(self, done: Round) -> None:
        self.paused = done.round == self.round


def test_memory_survives_a_checkpoint(population: Population, model: nn.Module, tmp_path: Path) -> None:
    def go(folder: Path | None, *callbacks: Callback) -> Result:
        checkpoints = Checkpoints(folder, every=1) if folder else None
        grid = LocalGrid(trained(population, model, WorkerMomentum()))
        return run(grid, Strategy(cohort=3), model, rounds=6, callbacks=callbacks, checkpoints=checkpoints)

    whole = go(None)
    stopped = go(tmp_path, StopAfter(3))
    assert stopped.rounds == 3
    assert torch.equal(final(go(tmp_path, StopAfter(-1)), model), final(whole, model))


def test_a_row_that_is_not_finite_is_not_remembered(population: Population, model: nn.Module) -> None:
    clients = trained(population, model, WorkerMomentum())
    state = clients.layout.gather(model)
    kept = {"momentum": torch.ones(1, clients.layout.size())}
    broken = clients.fit(state, [3], 1, {3: lambda x, y: (x * float("nan"), y)}, kept)
    assert broken.finite == [False]
    assert torch.equal(broken.kept["momentum"], torch.ones(1, clients.layout.size()))
    assert torch.equal(kept["momentum"], torch.ones(1, clients.layout.size()))


def test_who_fails_remembers_what_it_did(population: Population, model: nn.Module) -> None:
    clients = trained(population, model, WorkerMomentum())
    state = clients.layout.gather(model)
    kept = {"momentum": torch.arange(3.0)[:, None].expand(3, clients.layout.size())}

    def fail(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        raise RuntimeError("no power")

    done = clients.fit(state, [0, 1, 2], 1, {1: fail}, kept)
    alone = clients.fit(state, [2], 1, kept={"momentum": kept["momentum"][2:]})
    assert done.client_ids == [0, 2]
    assert torch.equal(done.kept["momentum"][1], alone.kept["momentum"][0])


def test_only_so_many_steps(population: Population, model: nn.Module) -> None:
    state = Layout.of_model(model).gather(model)
    done = trained(population, model, LocalSGD(epochs=2, steps=3)).fit(state, [0, 1], 1)
    assert [metrics["local_steps"] for metrics in done.metrics] == [3.0, 3.0]
    few = LocalSGD(epochs=1, steps=100).batches(70, torch.Generator())
    assert [len(batch) for batch in few] == [32, 32, 6]
    orders = [LocalSGD(steps=1).batches(70, torch.Generator().manual_seed(seed))[0].tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: WorkerMomentum(beta=1.0), r"local.beta must lie in \[0, 1\); got 1.0"),
        (lambda: WorkerMomentum(form="mean"), "local.form must be heavy_ball or ema; got mean"),  # type: ignore[arg-type]
        (lambda: LocalSGD(steps=0), "local.steps must be an integer >= 1, or null; got 0"),
        (lambda: LocalSGD(epochs=0), "local.epochs must be an integer >= 1; got 0"),
    ],
)
def test_impossible_settings(build: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()  # type: ignore[operator]
