"""FedBN: normalisation layers stay with the client, whatever they are called."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedagg import Clients, ConfigError, LocalGrid, Population, Strategy, rng, run
from fedagg.checkpoint import Checkpoints
from fedagg.clients import FedBN, client_app
from fedagg.data import IID, Dataset
from fedagg.models import build
from tests.clients.local.slow import SEED, close, every_executor, go
from tests.commands import Command


class Block(nn.Module):
    """Named as torchvision's ResNet names them: the shortcut's normalisation is "downsample.1"."""

    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__()
        self.first, self.beside = nn.Linear(64, 8), norm(*((2, 8) if norm is nn.GroupNorm else (8,)))
        self.downsample = nn.Sequential(nn.Linear(64, 8), norm(*((2, 8) if norm is nn.GroupNorm else (8,))))
        self.bn_but_a_layer = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.bn_but_a_layer(torch.tanh(self.beside(self.first(x)) + self.downsample(x)))


OWN = ("beside.", "downsample.1.")
LR = 0.02  # groups of four numbers are so steep that a higher rate would make rounding grow


def made(norm: type[nn.Module] = nn.BatchNorm1d) -> nn.Module:
    return build(lambda: Block(norm), seed=3)


@pytest.fixture(scope="module")
def held(dataset: Dataset) -> Population:
    return Population.split(dataset, IID(), num_clients=4, seed=1, holdout=0.25)


def reference(
    population: Population, model: nn.Module, cohorts: list[list[int]]
) -> tuple[dict[str, Tensor], dict[int, dict[str, Tensor]]]:
    """State dicts, torch's own SGD: what a client sends into the mean is everything that is not its own."""
    shared, own = {name: value.double() for name, value in model.state_dict().items()}, dict[int, dict[str, Tensor]]()
    for round, cohort in enumerate(cohorts, start=1):
        ends = []
        for client in cohort:
            net, (x, y) = made(type(model.beside)).double().train(), population.train(client)  # type: ignore[arg-type]
            net.load_state_dict({**shared, **own.get(client, {})})
            optimizer = torch.optim.SGD(net.parameters(), LR)
            order = rng.generator(SEED, "batches", round, client)
            for rows in torch.randperm(len(y), generator=order).split(32):
                optimizer.zero_grad()
                cross_entropy(net(x[rows].double()), y[rows]).backward()
                optimizer.step()
            after = {name: value.double() for name, value in net.state_dict().items()}
            own[client] = {name: value for name, value in after.items() if name.startswith(OWN)}
            ends.append(after)
        shared = {
            name: value if name.startswith(OWN) else torch.stack([end[name] for end in ends]).mean(dim=0)
            for name, value in shared.items()
        }
    return shared, own


@pytest.mark.parametrize(
    ("norm", "executor"),
    [(nn.BatchNorm1d, "one_at_a_time"), (nn.GroupNorm, "one_at_a_time"), (nn.GroupNorm, "batched"), (nn.LayerNorm, "batched")],
)
def test_against_a_loop(held: Population, norm: type[nn.Module], executor: str) -> None:
    """Batch normalisation cannot be batched; its running statistics would be shared."""
    model = made(norm)
    found = go(held, model, FedBN(lr=LR), Strategy(cohort=3, seed=SEED, evaluate_every=4), executor)
    shared, own = reference(held, model, found.cohorts)
    for name, value in shared.items():
        if "num_batches" not in name:
            close(torch.from_numpy(found.result.arrays[name].numpy()), value)
    assert found.result.arrays["beside.weight"].numpy().tolist() == [1.0] * 8
    slots = [slot for slot in found.layout.slots if slot.name.startswith(OWN)]
    for kind, name in (("params", "norm"), ("float_buffers", "norm_buffers")):
        names = [slot.name for slot in slots if slot.kind == kind]
        for client, row in found.remembered(name).items():
            close(row, torch.cat([own[client][name] for name in names] or [torch.empty(0)]))

    accuracies = {}
    for client in range(4):
        net, (x, y) = made(norm).double().eval(), held.validation(client)
        net.load_state_dict({**shared, **own.get(client, {})})
        accuracies[client] = (net(x.double()).argmax(dim=1) == y).double().mean().item()
    reported = {client: value for round, _, client, metric, value in found.result.rows if (round, metric) == (4, "accuracy")}
    assert reported == pytest.approx(accuracies, abs=0.02)  # an example at the border may fall either way
    assert found.result.last("accuracy_mean", "clients") == pytest.approx(np.mean(list(accuracies.values())), abs=0.01)


def test_there_is_no_test_accuracy(held: Population) -> None:
    result = go(held, made(), FedBN(), rounds=1).result
    assert "test" not in {split for _, split, _, _, _ in result.rows}
    with pytest.raises(KeyError, match="no test/accuracy was recorded"):
        result.last()


def test_nothing_of_it_is_sent(held: Population) -> None:
    model = made()
    clients = Clients(held, model, FedBN(), seed=SEED)
    state = clients.layout.gather(model)
    done = clients.fit(state, [0, 1], 1)
    for slot in clients.layout.slots:
        if slot.kind != "int_buffers":
            part = slice(slot.offset, slot.offset + slot.size)
            whole = done.block.updates if slot.kind == "params" else done.block.float_buffers
            sent, base = whole[:, part], 0 if slot.kind == "params" else state.float_buffers[part]
            assert bool((sent == base).all()) == slot.name.startswith(OWN), slot.name
    assert done.finite == [True, True]


def test_flower_clients_keep_theirs_too(held: Population) -> None:
    def losses(grid: LocalGrid) -> dict[int, float]:
        return dict(run(grid, Strategy(cohort=3, seed=1, evaluate_every=1), made(), 3).series("loss_mean", "clients"))

    clients = Clients(held, made(), FedBN(), seed=SEED)
    assert losses(LocalGrid(client_app(clients), num_clients=4)) == pytest.approx(losses(LocalGrid(clients)), rel=1e-4)


def test_going_on_from_a_checkpoint(held: Population, tmp_path: Path) -> None:
    def go_on(folder: Path | None, rounds: int) -> list[tuple[int, str, int | None, str, float]]:
        checkpoints = Checkpoints(folder, every=1) if folder else None
        clients = Clients(held, made(), FedBN(), seed=SEED)
        strategy = Strategy(cohort=2, seed=1, evaluate_every=1)
        return run(LocalGrid(clients), strategy, made(), rounds, checkpoints=checkpoints).rows

    go_on(tmp_path, 2)
    assert go_on(tmp_path, 4) == go_on(None, 4)


@every_executor
def test_models_without_such_layers_are_refused(population: Population, model: nn.Module, executor: str) -> None:
    with pytest.raises(ConfigError, match="this model has none with weights or running statistics"):
        Clients(population, model, FedBN(), executor=executor)


def test_statistics_that_depend_on_a_count_are_refused(population: Population) -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64, momentum=None), nn.Linear(64, 10))
    with pytest.raises(ConfigError, match=r"FedBN cannot keep 1 \(BatchNorm1d\): with momentum=None .* a count of batches"):
        Clients(population, model, FedBN())


def test_from_the_command_line(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must be told that clients evaluate; then lines and report speak of them."""
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "normed.yaml").write_text("_target_: tests.clients.local.test_fedbn.made\n")
    arguments = ["local=fedbn", "model=normed", "partition=iid", "population=4", "rounds=2", "hydra.run.dir=runs/one"]
    flags = ["--config-dir", tmp_path / "mine"]
    refused = command("run", *flags, *arguments)
    assert refused.code != 0
    assert "with FedBN every client has a model of its own, and none can be measured on the server's test set" in refused.err
    assert "set evaluation.clients=true" in refused.err
    done = command("run", *flags, *arguments, "evaluation.clients=true")
    assert done.code == 0, done.err
    assert "measured  by the clients alone" in done.out
    assert "round 2/2  clients' accuracy 0." in done.out
    unsaid = command("report", "runs")
    assert "did you mean clients/accuracy_mean?" in unsaid.err
    table = command("report", "runs", "--metric", "clients/accuracy_mean")
    assert table.code == 0, table.err
    assert "Measured on what clients hold out of digits" in " ".join(table.out.split())
