"""SCAFFOLD, both halves: control variates on clients and server."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fedagg import Clients, Cohort, ConfigError, Faults, LocalGrid, LocalSGD, Population, Strategy, run
from fedagg.checkpoint import Checkpoints
from fedagg.clients import FedProx, Scaffold, client_app
from fedagg.clients.local import Sent
from fedagg.params import ModelState
from fedagg.testing import check_strategy
from strategies import SCAFFOLD, FedDisco
from tests.clients.local.slow import LR, SEED, Slow, close, close_each, every_executor, go, mean, smooth
from tests.oracle import EXECUTORS, OPTIMUM, local, trajectory

every_oracle = pytest.mark.parametrize(("executor", "allowed"), EXECUTORS.items())


def test_the_contract_of_strategies() -> None:
    check_strategy(SCAFFOLD())
    check_strategy(SCAFFOLD(cohort=3))


@every_oracle
def test_the_oracle(executor: str, allowed: float) -> None:
    found = trajectory(SCAFFOLD(), local(Scaffold), rounds=1, executor=executor)
    assert found.w == pytest.approx([-0.085], abs=allowed)
    assert found.strategy.control == pytest.approx(0.425, abs=20 * allowed)  # a difference of models, divided by K lr = 0.2
    assert own_controls(found.grid) == pytest.approx([-0.95, 1.8], abs=20 * allowed)
    found = trajectory(SCAFFOLD(), local(Scaffold), rounds=2, executor=executor)
    assert found.w == pytest.approx([-0.085, -0.1535], abs=allowed)


@every_oracle
def test_it_reaches_the_optimum(executor: str, allowed: float) -> None:
    """Federated averaging ends at -17/55, with the same clients and the same steps."""
    found = trajectory(SCAFFOLD(), local(Scaffold), rounds=300, executor=executor)
    assert found.w[-1] == pytest.approx(OPTIMUM, abs=allowed)
    assert found.strategy.control == pytest.approx(0, abs=20 * allowed)
    assert own_controls(found.grid) == pytest.approx([-4 / 3, 4 / 3], abs=20 * allowed)


def test_so_it_does_where_clients_make_different_numbers_of_steps() -> None:
    """Each divides by its own; dividing client 1 by the steps of client 0 ends elsewhere, or nowhere."""
    found = trajectory(SCAFFOLD(), local(Scaffold), rounds=200, steps=(2, 5))
    assert found.w[-1] == pytest.approx(OPTIMUM, abs=1e-9)


@every_oracle
def test_a_checkpoint_between_rounds_changes_nothing(executor: str, allowed: float, tmp_path: Path) -> None:
    whole = trajectory(SCAFFOLD(), local(Scaffold), rounds=3, executor=executor)
    parts = trajectory(SCAFFOLD(), local(Scaffold), rounds=3, executor=executor, resumed_in=tmp_path)
    assert parts.w == whole.w
    assert torch.equal(parts.strategy.control, whole.strategy.control)  # type: ignore[attr-defined]
    assert own_controls(parts.grid) == own_controls(whole.grid)


def own_controls(grid: LocalGrid) -> list[float]:
    return [float(row) for row in grid.state_dict()["memory"]["own_control"]["rows"]]


def reference(slow: Slow, cohorts: list[list[int]], population: int) -> tuple[Tensor, Tensor, dict[int, Tensor]]:
    w, c, own = slow.start, torch.zeros_like(slow.start), dict[int, Tensor]()
    for round, cohort in enumerate(cohorts, start=1):
        ends, changes = [], []
        for client in cohort:
            y, before, k = w, own.get(client, torch.zeros_like(w)), 0
            for rows in slow.batches(client, round):
                y, k = y - LR * (slow.gradient(client, y, rows) - before + c), k + 1
            own[client] = before - c + (w - y) / (k * LR)
            ends.append(y)
            changes.append(own[client] - before)
        w, c = mean(ends), c + sum(changes) / population
    return w, c, own


@every_executor
@pytest.mark.parametrize("cohort", [None, 4])
def test_against_a_loop(population: Population, executor: str, cohort: int | None) -> None:
    """Six clients of 239 or 240 examples; the absent ones keep what they have."""
    model = smooth()
    found = go(population, model, Scaffold(batch_size=30), SCAFFOLD(cohort=cohort, seed=SEED), executor)
    assert all(len(ids) == (cohort or 6) for ids in found.cohorts)
    w, c, own = reference(Slow(population, model, batch_size=30), found.cohorts, 6)
    close(found.params, w)
    assert isinstance(found.strategy, SCAFFOLD)
    assert found.strategy.control is not None
    close(found.strategy.control, c)
    close_each(found.remembered("own_control"), own)
    if cohort is None:
        close(found.strategy.control, mean(list(own.values())))


def test_the_first_round_is_federated_averaging(population: Population) -> None:
    """Bit for bit: g - 0 is g."""
    plain = go(population, smooth(), LocalSGD(), Strategy(), rounds=1)
    assert torch.equal(go(population, smooth(), Scaffold(), SCAFFOLD(), rounds=1).params, plain.params)


def test_a_weighting_acts_on_updates_and_not_on_control_variates() -> None:
    rows, changes = torch.tensor([[1.0], [3.0]]), torch.tensor([[10.0], [30.0]])
    counts = torch.tensor([[5.0, 5.0], [20.0, 0.0]])
    cohort = Cohort(
        1, [0, 4], rows, torch.zeros(1), counts.sum(dim=1), label_counts=counts, population=8, extras={"control": changes}
    )
    strategy = SCAFFOLD(weighting=FedDisco(a=1.0, b=0.0))
    assert "label_counts" in strategy.required
    delta = strategy.aggregate(cohort)
    weights = FedDisco(a=1.0, b=0.0)(cohort)
    assert weights[0] > weights[1]
    assert delta.item() == pytest.approx(float(weights[0] + 3 * weights[1]))
    assert strategy.control is not None
    assert strategy.control.item() == 5.0


def test_the_population_must_be_known() -> None:
    cohort = Cohort(1, [0], torch.zeros(1, 2), torch.zeros(2), torch.ones(1), extras={"control": torch.zeros(1, 2)})
    with pytest.raises(ValueError, match="SCAFFOLD divides by the number of all clients; the cohort's population is None"):
        SCAFFOLD().aggregate(cohort)


def test_what_is_sent_by_hand() -> None:
    """Two clients at w = 1, c = 2: after 4 steps at y = 0.2, and after 2 at y = 1.4; lr = 0.1."""
    sent = Sent(
        ModelState(torch.ones(1), torch.empty(0), torch.empty(0)),
        torch.tensor([[-0.8], [0.4]]),
        torch.empty(2, 0),
        torch.tensor([4.0, 2.0], dtype=torch.float64),
        {"control": torch.tensor([2.0])},
    )
    kept = {"own_control": torch.tensor([[0.5], [-1.0]])}
    Scaffold(lr=0.1).send(sent, kept)
    assert sent.extras["control"].flatten().tolist() == pytest.approx([-2 + 2, -2 - 2], abs=1e-6)
    assert kept["own_control"].flatten().tolist() == pytest.approx([0.5, -5.0], abs=1e-6)
    assert sent.rows.flatten().tolist() == pytest.approx([-0.8, 0.4])


def test_it_counts_as_communication(population: Population, model: nn.Module) -> None:
    """d numbers of four bytes more, each way and client, than the model of d = 650."""
    run = go(population, model, Scaffold(), SCAFFOLD(), rounds=2).result
    for name in ("bytes_down", "bytes_up"):
        assert run.series(name, "server") == [(1, 6 * 2 * 650 * 4), (2, 6 * 2 * 650 * 4)]


def test_flower_clients_do_the_same(population: Population) -> None:
    model = smooth()
    ours = go(population, model, Scaffold(), SCAFFOLD(cohort=4, seed=SEED))
    clients = Clients(population, model, Scaffold(), seed=SEED)
    theirs = LocalGrid(client_app(clients), num_clients=6)
    strategy = SCAFFOLD(cohort=4, seed=SEED)
    found = run(theirs, strategy, model, 4, seed=SEED)
    close(clients.layout.read(found.arrays).params, ours.params.double())


def test_lost_and_broken_replies(population: Population, tmp_path: Path) -> None:
    """Half of the replies are lost and some are NaN; what is left stays finite, and goes on from a checkpoint as it was."""

    def world(folder: Path | None, rounds: int) -> tuple[Tensor, Tensor]:
        clients = Clients(population, smooth(), Scaffold(), seed=0)
        grid = Faults(LocalGrid(clients), drop=0.3, nan=0.2, seed=1)
        strategy = SCAFFOLD()
        checkpoints = Checkpoints(folder, every=1) if folder else None
        result = run(grid, strategy, smooth(), rounds, checkpoints=checkpoints)
        assert strategy.control is not None
        return clients.layout.read(result.arrays).params, strategy.control

    whole = world(None, 6)
    world(tmp_path, 3)
    parts = world(tmp_path, 6)
    assert all(torch.equal(a, b) and torch.isfinite(a).all() for a, b in zip(whole, parts, strict=True))


def test_a_control_variate_that_is_not_finite_is_neither_remembered_nor_believed(population: Population) -> None:
    clients = Clients(population, smooth(), Scaffold(lr=1e-30), seed=0)
    state = clients.layout.gather(smooth())
    huge = {"control": torch.full_like(state.params, 1e38)}
    done = clients.fit(state, [1, 2], 1, received=huge)
    assert done.finite == [False, False]
    assert not done.kept["own_control"].any()


@pytest.mark.parametrize("settings", [{"momentum": 0.9}, {"weight_decay": 0.01}, {"lr": 0.0}])
def test_plain_sgd_alone(settings: dict[str, float]) -> None:
    with pytest.raises(
        ConfigError, match="only where every step is plain SGD: it needs lr > 0, momentum=0 and weight_decay=0"
    ):
        Scaffold(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("clients", "strategy", "message"),
    [
        (Scaffold(), Strategy(), r"Scaffold is the clients' half of SCAFFOLD, .* server runs Strategy. Set strategy=scaffold"),
        (
            FedProx(),
            SCAFFOLD(),
            r"SCAFFOLD is the server's half of .* train with Scaffold; these train with FedProx. Set local=sc",
        ),
    ],
)
def test_halves_that_do_not_belong_together(
    population: Population, model: nn.Module, clients: LocalSGD, strategy: Strategy, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        go(population, model, clients, strategy)


def test_behind_a_grid_that_hides_them(population: Population, model: nn.Module) -> None:
    """Where nobody can look ahead, the clients say what they miss."""
    app = client_app(Clients(population, model, Scaffold()))
    with pytest.raises(Exception, match="Scaffold needs a server that sends control beside the model"):
        run(LocalGrid(app, num_clients=6), Strategy(), model, 1)
