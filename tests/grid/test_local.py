"""LocalGrid: Flower's four calls, the same bits whoever calls the clients, and what happens when a client fails."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from fedagg import ClientError, Clients, ConfigError, FedaggError, LocalGrid, LocalSGD, Population, Strategy, run
from fedagg.clients import client_app
from fedagg.data import IID, Dataset
from fedagg.params import KINDS, Layout

Ask = Callable[..., list[Message]]


def params(replies: list[Message]) -> list[np.ndarray]:
    return [np.concatenate([array.numpy().ravel() for array in reply.content["arrays"].values()]) for reply in replies]


def test_all_four_calls_work(grid: LocalGrid, ask: Ask) -> None:
    assert list(grid.get_node_ids()) == [0, 1, 2, 3, 4, 5]
    assert [node.node_id for node in grid.get_nodes()] == [0, 1, 2, 3, 4, 5]
    ids = list(grid.push_messages(ask([4, 1, 2])))
    assert len(set(ids)) == 3
    first = list(grid.pull_messages(ids[:1]))
    assert [reply.metadata.src_node_id for reply in first] == [4]
    rest = list(grid.pull_messages(ids))
    assert [reply.metadata.src_node_id for reply in rest] == [1, 2]  # by ascending id, each reply once
    assert list(grid.pull_messages(ids)) == []
    together = list(grid.send_and_receive(ask([4, 1, 2])))
    assert [reply.metadata.src_node_id for reply in together] == [1, 2, 4]
    for one, other in zip(params(together), params([*rest, *first]), strict=True):
        np.testing.assert_array_equal(one, other)
    message = grid.create_message(ask([0])[0].content, "train", 3, "1")
    assert next(iter(grid.send_and_receive([message]))).metadata.src_node_id == 3


def test_a_client_of_ours_is_the_same_as_a_flower_client_app(clients: Clients, ask: Ask) -> None:
    together = list(LocalGrid(clients).send_and_receive(ask([0, 3, 5], round=7)))
    one_by_one = list(LocalGrid(client_app(clients), num_clients=6).send_and_receive(ask([0, 3, 5], round=7)))
    for a, b in zip(together, one_by_one, strict=True):
        assert [array.data for array in a.content["arrays"].values()] == [array.data for array in b.content["arrays"].values()]
        assert dict(a.content["metrics"]) == dict(b.content["metrics"])


def test_training_depends_on_seed_round_and_client_only(clients: Clients, population: Population, ask: Ask) -> None:
    def trained(ids: list[int], round: int, seed: int = 0) -> dict[int, np.ndarray]:
        grid = LocalGrid(Clients(population, clients.model, clients.local, seed=seed))
        replies = list(grid.send_and_receive(ask(ids, round=round)))
        return {reply.metadata.src_node_id: row for reply, row in zip(replies, params(replies), strict=True)}

    alone, among = trained([3], 2), trained([0, 1, 3, 5], 2)
    np.testing.assert_array_equal(alone[3], among[3])
    assert not np.array_equal(alone[3], trained([3], 1)[3])
    assert not np.array_equal(alone[3], trained([3], 2, seed=1)[3])


def test_dropout_and_batch_norm_are_reproducible(dataset: Dataset, ask: Ask) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 10))
    layout = Layout.of_model(model)
    population = Population.split(dataset, IID(), num_clients=4, seed=0)
    sent = layout.record(layout.gather(model))
    before = torch.get_rng_state()

    def states(ids: list[int]) -> dict[int, list[bytes]]:
        replies = LocalGrid(Clients(population, model)).send_and_receive(ask(ids, arrays=sent))
        return {r.metadata.src_node_id: [array.data for array in r.content["arrays"].values()] for r in replies}

    first, second = states([0, 1, 2]), states([2])
    assert first[2] == second[2]
    assert first[1] != first[2]
    assert torch.equal(torch.get_rng_state(), before)
    steps = LocalGrid(Clients(population, model)).send_and_receive(ask([0], arrays=sent))
    counter = next(iter(steps)).content["arrays"]["2.num_batches_tracked"].numpy()
    assert counter == -(-len(population.train(0)[1]) // 32)


def test_a_run_with_batch_norm_keeps_buffers_out_of_the_rule(dataset: Dataset) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))
    from strategies import Krum

    population = Population.split(dataset, IID(), num_clients=5, seed=0)
    result = run(LocalGrid(Clients(population, model, LocalSGD(lr=0.2, epochs=3))), Strategy(Krum(f=1)), model, rounds=4)
    assert result.last() > 0.6
    assert result.arrays["2.num_batches_tracked"].numpy() == 4 * 3 * 9  # 288 examples: 9 steps an epoch


def test_one_client_with_all_the_data_is_plain_sgd(dataset: Dataset) -> None:
    """FedAvg over one client against a loop written with torch.optim, up to the rounding of an update once a round."""
    from fedagg import rng
    from fedagg.models import build, mlp

    model = build(lambda: mlp(dataset.input_shape, dataset.num_classes, hidden=(32,)), seed=0)
    population = Population.split(dataset, IID(), num_clients=1, seed=0)
    layout = Layout.of_model(model)
    result = run(LocalGrid(Clients(population, model, LocalSGD(epochs=2, lr=0.5))), Strategy(), model, rounds=5)

    plain = build(lambda: mlp(dataset.input_shape, dataset.num_classes, hidden=(32,)), seed=0)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.5)
    x, y = population.train(0)
    for round in range(1, 6):
        generator = rng.generator(0, "batches", round, 0)
        for _ in range(2):
            order = torch.randperm(len(y), generator=generator)
            for start in range(0, len(y), 32):
                batch = order[start : start + 32]
                optimizer.zero_grad()
                nn.functional.cross_entropy(plain(x[batch]), y[batch]).backward()
                optimizer.step()
    expected, got = layout.gather(plain), layout.read(result.arrays)
    for kind in KINDS:
        torch.testing.assert_close(getattr(got, kind), getattr(expected, kind), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.9, 0.0), (0.0, 0.01), (0.9, 0.01)])
def test_local_sgd_is_torch_sgd(dataset: Dataset, momentum: float, weight_decay: float) -> None:
    from fedagg.models import build, logistic_regression

    def fresh() -> nn.Module:
        return build(lambda: logistic_regression(dataset.input_shape, dataset.num_classes), seed=0)

    x, y = dataset.features(dataset.x_train[:50]), torch.tensor(np.array(dataset.y_train[:50]))
    ours, theirs = fresh(), fresh()
    local = LocalSGD(epochs=3, batch_size=16, lr=0.1, momentum=momentum, weight_decay=weight_decay)
    batches = local.batches(len(y), torch.Generator().manual_seed(1))
    losses = local.train(lambda params, x: ours(x), list(ours.parameters()), x, y, batches, {})
    metrics = local.summary(torch.stack(losses).tolist())
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=momentum, weight_decay=weight_decay)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        losses = []
        for batch in torch.randperm(50, generator=generator).split(16):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(theirs(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert metrics == {"loss": pytest.approx(np.mean(losses), rel=1e-5), "local_steps": 12.0}


def breaks(bad: set[int]) -> ClientApp:
    """A client app in which some clients raise, and which counts in its context how often each was called."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client = int(context.node_config["partition-id"])
        if client in bad:
            raise ValueError(f"disk of {client} is full")
        seen = context.state.metric_records.get("seen", MetricRecord({"n": 0}))
        context.state["seen"] = MetricRecord({"n": int(seen["n"]) + 1})
        metrics = {
            "num-examples": 1,
            "calls": context.state["seen"]["n"],
            "python": random.random(),
            "numpy": float(np.random.rand()),
            "torch": float(torch.rand(())),
        }
        content = RecordDict({"arrays": message.content["arrays"].copy(), "metrics": MetricRecord(metrics)})
        message.content["arrays"].clear()  # a client may do with its message what it likes
        return Message(content, reply_to=message)

    return app


def test_a_failing_client_stops_the_run_by_default(ask: Ask) -> None:
    with pytest.raises(ClientError, match=r"client 2 failed in round 5 .*(.|\n)*disk of 2 is full") as caught:
        list(LocalGrid(breaks({2}), num_clients=4).send_and_receive(ask([0, 1, 2], round=5)))
    assert (caught.value.client_id, caught.value.round, caught.value.stage) == (2, 5, "train")
    assert "Traceback" in caught.value.detail


def test_failures_can_be_dropped_and_are_counted(clients: Clients, ask: Ask, model: nn.Module) -> None:
    grid = LocalGrid(breaks({0, 2}), num_clients=4, on_client_error="drop")
    replies = list(grid.send_and_receive(ask([0, 1, 2, 3])))
    assert [reply.has_error() for reply in replies] == [True, False, True, False]
    assert "disk of 2 is full" in replies[2].error.reason
    assert grid.round_info()["client_errors"] == 2

    class Breaking(Population):
        def train(self, client: int) -> tuple[torch.Tensor, torch.Tensor]:
            if client == 1:
                raise OSError("unreadable")
            return super().train(client)

    population = Breaking(clients.population.dataset, clients.population.indices)
    result = run(LocalGrid(Clients(population, model), on_client_error="drop"), Strategy(), model, rounds=2)
    assert result.series("client_errors", "server") == [(1, 1.0), (2, 1.0)]
    assert result.series("clients", "server") == [(1, 5.0), (2, 5.0)]
    with pytest.raises(ClientError, match=r"client 1 failed in round 1(.|\n)*unreadable"):
        run(LocalGrid(Clients(population, model)), Strategy(), model, rounds=2)


def test_a_foreign_client_keeps_its_state_and_draws_reproducibly(ask: Ask) -> None:
    def numbers(grid: LocalGrid, round: int) -> list[dict[str, object]]:
        return [dict(reply.content["metrics"]) for reply in grid.send_and_receive(ask([0, 1], round=round))]

    grid = LocalGrid(breaks(set()), num_clients=2, seed=0)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    first, second = numbers(grid, 1), numbers(grid, 2)
    assert [row["calls"] for row in first + second] == [1, 1, 2, 2]
    again = numbers(LocalGrid(breaks(set()), num_clients=2, seed=0), 1)
    assert first == again
    for name in ("python", "numpy", "torch"):
        assert len({row[name] for row in first + second}) == 4  # every client and every round draws its own
    assert numbers(LocalGrid(breaks(set()), num_clients=2, seed=1), 1) != first
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[:2]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_clients_own_what_they_receive(ask: Ask, model: nn.Module) -> None:
    messages = ask([0, 1])
    assert messages[0].content is messages[1].content  # as Flower's strategies do it
    replies = list(LocalGrid(breaks(set()), num_clients=2).send_and_receive(messages))
    assert all(len(reply.content["arrays"]) == len(ArrayRecord(model.state_dict())) for reply in replies)
    assert len(messages[0].content["arrays"]) == len(ArrayRecord(model.state_dict()))


def test_clients_without_data_are_never_asked(dataset: Dataset, model: nn.Module) -> None:
    indices = [np.arange(50), np.array([], dtype=np.int64), np.arange(50, 90)]
    clients = Clients(Population(dataset, indices), model)
    grid = LocalGrid(clients)
    assert list(grid.get_node_ids()) == [0, 2]
    assert grid.population == 3
    assert run(grid, Strategy(), model, rounds=1).last("clients", "server") == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LocalGrid(ClientApp()), "num_clients >= 1"),
        (lambda: LocalGrid(ClientApp(), num_clients=2, on_client_error="ignore"), "raise or drop"),
    ],
)
def test_impossible_grids_are_refused(make: Callable[[], LocalGrid], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_unknown_clients_and_requests_are_named(grid: LocalGrid, ask: Ask) -> None:
    with pytest.raises(FedaggError, match="no client 17; clients are 0 to 5"):
        grid.push_messages(ask([17]))
    with pytest.raises(FedaggError, match="got a message of type query"):
        grid.push_messages(ask([1], kind="query"))
