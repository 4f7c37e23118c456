"""FedDyn, both halves: a linear and a proximal term on the clients, a running sum on the server."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedagg import Cohort, ConfigError, LocalSGD, Population, Strategy
from fedagg.clients import FedDyn, Scaffold
from fedagg.clients.local.feddyn import clip
from fedagg.testing import check_strategy
from strategies import FedDyn as Server
from tests.clients.local.slow import LR, SEED, Slow, close, close_each, every_executor, go, mean, smooth
from tests.oracle import EXECUTORS, OPTIMUM, Found, local, trajectory

ALPHA = 0.1
every_oracle = pytest.mark.parametrize(("executor", "allowed"), EXECUTORS.items())


def test_the_contract_of_strategies() -> None:
    check_strategy(Server())
    check_strategy(Server(cohort=3))


@every_oracle
def test_the_oracle(executor: str, allowed: float) -> None:
    found = trajectory(Server(), local(FedDyn, alpha=ALPHA), rounds=1, executor=executor)
    assert found.w == pytest.approx([-0.169], abs=allowed)
    assert server_state(found) == pytest.approx(0.00845, abs=allowed)
    assert own_gradients(found) == pytest.approx([-0.0189, 0.0358], abs=allowed)
    found = trajectory(Server(), local(FedDyn, alpha=ALPHA), rounds=2, executor=executor)
    assert found.w[1] == pytest.approx(-0.3272209, abs=allowed)


@every_oracle
def test_it_overshoots_and_reaches_the_optimum(executor: str, allowed: float) -> None:
    found = trajectory(Server(), local(FedDyn, alpha=ALPHA), rounds=500, executor=executor)
    assert found.w[3] < -0.47
    assert found.w[-1] == pytest.approx(OPTIMUM, abs=3e-6 + allowed)  # 37 rounds halve the distance
    assert server_state(found) == pytest.approx(0, abs=1e-5)
    assert own_gradients(found) == pytest.approx([-4 / 3, 4 / 3], abs=2e-4)


@every_oracle
def test_a_checkpoint_between_rounds_changes_nothing(executor: str, allowed: float, tmp_path: Path) -> None:
    whole = trajectory(Server(), local(FedDyn, alpha=ALPHA), rounds=3, executor=executor)
    parts = trajectory(Server(), local(FedDyn, alpha=ALPHA), rounds=3, executor=executor, resumed_in=tmp_path)
    assert parts.w == whole.w
    assert server_state(parts) == server_state(whole)
    assert own_gradients(parts) == own_gradients(whole)


def server_state(found: Found) -> float:
    """The paper's h is -alpha times the sum that the strategy keeps."""
    assert isinstance(found.strategy, Server)
    assert found.strategy.total is not None
    return -ALPHA * float(found.strategy.total)


def own_gradients(found: Found) -> list[float]:
    return [float(row) for row in found.grid.state_dict()["memory"]["gradient"]["rows"]]


def reference(
    slow: Slow, cohorts: list[list[int]], population: int, alpha: float, clip_norm: float, momentum: float
) -> tuple[Tensor, Tensor, dict[int, Tensor]]:
    """As the paper writes it, with h."""
    w, h, own = slow.start, torch.zeros_like(slow.start), dict[int, Tensor]()
    for round, cohort in enumerate(cohorts, start=1):
        ends = []
        for client in cohort:
            y, g, velocity = w, own.get(client, torch.zeros_like(w)), torch.zeros_like(w)
            for rows in slow.batches(client, round):
                gradient = slow.gradient(client, y, rows) - g + alpha * (y - w)
                gradient = gradient * min(1.0, clip_norm / float(gradient.norm()))
                velocity = momentum * velocity + gradient
                y = y - LR * velocity
            own[client] = g - alpha * (y - w)
            ends.append(y)
        h = h - alpha / population * sum(y - w for y in ends)
        w = mean(ends) - h / alpha
    return w, h, own


@every_executor
@pytest.mark.parametrize(("clip_norm", "momentum"), [(None, 0.0), (0.5, 0.0), (0.5, 0.5)])
def test_against_a_loop(population: Population, executor: str, clip_norm: float | None, momentum: float) -> None:
    """Gradients are between 0.3 and 0.7 long, so a part of them is clipped."""
    model = smooth()
    training = FedDyn(alpha=ALPHA, clip_norm=clip_norm, momentum=momentum)
    found = go(population, model, training, Server(cohort=4, seed=SEED), executor)
    assert isinstance(found.strategy, Server)
    assert found.strategy.total is not None
    w, h, own = reference(Slow(population, model), found.cohorts, 6, ALPHA, clip_norm or 1e9, momentum)
    close(found.params, w)
    close(-ALPHA * found.strategy.total, h)
    close_each(found.remembered("gradient"), own)


def test_each_client_is_clipped_alone() -> None:
    alone = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])]
    clip(alone, 2.0, 0)
    assert [grad.flatten().tolist() for grad in alone] == [[pytest.approx(1.2), 0], [pytest.approx(1.6)]]
    both = [torch.tensor([[3.0, 0.0], [0.3, 0.0], [0.0, 0.0]]), torch.tensor([[[4.0]], [[0.4]], [[0.0]]])]
    clip(both, 2.0, 1)
    assert both[0].flatten().tolist() == pytest.approx([1.2, 0, 0.3, 0, 0, 0])
    assert both[1].flatten().tolist() == pytest.approx([1.6, 0.4, 0])


def test_a_small_term_and_the_first_round(population: Population) -> None:
    """With alpha to 0 the clients are those of federated averaging, and the first step is twice as long: s is the mean too."""
    start = Slow(population, smooth()).start
    plain = go(population, smooth(), LocalSGD(), Strategy(), rounds=1).params - start
    dyn = go(population, smooth(), FedDyn(alpha=1e-9), Server(), rounds=1).params - start
    torch.testing.assert_close(dyn, 2 * plain, rtol=1e-4, atol=1e-6)


def test_the_sum_is_over_all_clients_and_the_mean_over_participants() -> None:
    rows = torch.tensor([[1.0], [3.0]])
    strategy, cohort = Server(), Cohort(1, [0, 4], rows, torch.zeros(1), torch.ones(2), population=8)
    assert [strategy.aggregate(cohort).item() for _ in range(3)] == [2.5, 3.0, 3.5]


def test_the_population_must_be_known() -> None:
    with pytest.raises(ValueError, match="FedDyn divides by the number of all clients"):
        Server().aggregate(Cohort(1, [0], torch.zeros(1, 2), torch.zeros(2), torch.ones(1)))


@pytest.mark.parametrize("settings", [{"alpha": 0}, {"alpha": None}, {"clip_norm": 0}, {"clip_norm": "ten"}])
def test_impossible_settings(settings: dict[str, float]) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(ConfigError, match=f"local.{name} must be a number > 0.*; got {value}"):
        FedDyn(**settings)  # type: ignore[arg-type]


def test_fednova_cannot_divide() -> None:
    with pytest.raises(ConfigError, match="FedDyn's steps add a term of earlier rounds"):
        FedDyn().a_norm(3)


@pytest.mark.parametrize(("clients", "strategy"), [(FedDyn(), Strategy()), (LocalSGD(), Server()), (Scaffold(), Server())])
def test_halves_that_do_not_belong_together(population: Population, clients: LocalSGD, strategy: Strategy) -> None:
    with pytest.raises(ConfigError, match="half of"):
        go(population, smooth(), clients, strategy)
