"""Flower's own strategies, unmodified, in our Grids: reproducible, able to learn, open to attack; and their configs hold."""

import gc
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg, MultiKrum
from flwr.serverapp.strategy import Strategy as FlowerStrategy
from flwr.serverapp.strategy.result import Result as FlowerResult
from torch import nn

import strategies
from fedagg import Adversary, Attack, Clients, LocalGrid, LocalSGD, Population, Strategy, run
from fedagg.attacks import ALIE, SignFlip
from fedagg.console import config_dir
from fedagg.data import IID, Dataset, Dirichlet
from fedagg.data.partitions import Partition
from fedagg.experiment import Experiment, build
from fedagg.hydra_app import compose
from fedagg.loop import Result

N = 10
COHORT = 7  # Bulyan needs 4f + 3 clients
PARTIAL: dict[str, Any] = {
    "fraction_train": 1e-9,
    "min_train_nodes": COHORT,
    "min_available_nodes": COHORT,
    "fraction_evaluate": 0.0,
}
FULL = {**PARTIAL, "min_train_nodes": N, "min_available_nodes": N}
SETTINGS: dict[str, dict[str, Any]] = {
    "FedAvg": {},
    "FedMedian": {},
    "FedTrimmedAvg": {"beta": 0.2},
    "Krum": {"num_malicious_nodes": 1},
    "MultiKrum": {"num_malicious_nodes": 1, "num_nodes_to_select": 4},
    "Bulyan": {"num_malicious_nodes": 1},
    "FedAdam": {"eta": 0.01},
    "FedAvgM": {"server_momentum": 0.9},
}
every_strategy = pytest.mark.parametrize("name", SETTINGS)


@pytest.fixture(autouse=True)
def _cheap_garbage_collection() -> Iterator[None]:
    """Flower's Bulyan collects garbage once per picked client, 0.3 s each with torch loaded: set aside what exists."""
    gc.freeze()
    yield
    gc.unfreeze()


def make(name: str) -> FlowerStrategy:
    strategy: FlowerStrategy = getattr(flower, name)(**PARTIAL, **SETTINGS[name])
    return strategy


def world(
    dataset: Dataset, model: nn.Module, seed: int, partition: Partition | None = None, attack: Attack | None = None, **how: Any
) -> LocalGrid | Adversary:
    population = Population.split(dataset, partition or IID(), num_clients=N, seed=seed)
    grid = LocalGrid(Clients(population, model, LocalSGD(lr=0.1), seed=seed))
    return grid if attack is None else Adversary(grid, attack, seed=seed, **how)


def data_of(arrays: ArrayRecord) -> dict[str, bytes]:
    return {name: array.data for name, array in arrays.items()}


def vector(arrays: ArrayRecord) -> np.ndarray:
    return np.concatenate([array.numpy().ravel() for array in arrays.values()]).astype(np.float64)


# Reproducible, and they learn


@every_strategy
def test_the_seed_decides_every_byte(dataset: Dataset, model: nn.Module, name: str) -> None:
    """Seven of ten clients are sampled, so the run's seed matters even where the clients' own stays."""

    def go(seed: int, state: int) -> Result:
        random.seed(state)
        np.random.seed(state)
        torch.manual_seed(state)
        return run(world(dataset, model, seed=0), make(name), model, rounds=3, seed=seed)

    first, again, other = go(0, state=1), go(0, state=2), go(1, state=1)
    assert data_of(again.arrays) == data_of(first.arrays)
    assert again.rows == first.rows
    assert first.series("asked", "server") == [(1, COHORT), (2, COHORT), (3, COHORT)]
    assert data_of(other.arrays).keys() == data_of(first.arrays).keys()
    assert all(data_of(other.arrays)[key] != data for key, data in data_of(first.arrays).items())
    assert other.rows != first.rows


@every_strategy
def test_they_learn(dataset: Dataset, model: nn.Module, name: str) -> None:
    """Ten rounds on digits from an accuracy of 0.17. Over seeds 0 to 4 the worst is 0.705 (FedAdam); asked for: 0.5."""
    result = run(world(dataset, model, seed=0), make(name), model, rounds=10, seed=0)
    assert result.series()[0][1] < 0.25
    assert result.last() > 0.5
    assert result.last("loss", "train") < result.series("loss", "train")[0][1]


def test_who_is_sampled_differs_between_rounds_and_repeats_with_the_seed(dataset: Dataset, model: nn.Module) -> None:
    class Watched(FedAvg):
        def configure_train(self, *args: Any) -> Iterable[Message]:
            messages = list(super().configure_train(*args))
            cohorts.append(sorted(message.metadata.dst_node_id for message in messages))
            return messages

    cohorts: list[list[int]] = []
    for seed in (0, 0, 1):
        run(world(dataset, model, seed=0), Watched(**PARTIAL), model, rounds=4, seed=seed)
    assert cohorts[:4] == cohorts[4:8] != cohorts[8:]
    assert len({tuple(cohort) for cohort in cohorts[:4]}) > 1
    assert all(len(set(cohort)) == COHORT and set(cohort) <= set(range(N)) for cohort in cohorts)


# Under attack


@pytest.mark.parametrize(
    ("partition", "attack", "drop"),
    [(IID(), SignFlip(), 0.3), (Dirichlet(alpha=0.3), ALIE(z=4, sign=-1), 0.25)],
    ids=["sign flip", "ALIE"],
)
def test_fedavg_falls_when_four_of_ten_lie(
    dataset: Dataset, model: nn.Module, partition: Partition, attack: Attack, drop: float
) -> None:
    """Accuracy after ten rounds, means over seeds 0 to 2: 0.845 and, signs flipped, 0.398 (IID data); 0.796 and, under ALIE,
    0.293 (Dirichlet 0.3). The falls of single seeds are 0.43 to 0.47 and 0.23 to 0.65; asked for: 0.3 and 0.25 of the mean."""
    peace, war = [], []
    for seed in range(3):
        peace.append(run(world(dataset, model, seed, partition), FedAvg(**FULL), model, rounds=10, seed=seed).last())
        grid = world(dataset, model, seed, partition, attack, fraction=0.4)
        result = run(grid, FedAvg(**FULL), model, rounds=10, seed=seed)
        assert {value for _, value in result.series("byzantine", "server")} == {4}
        war.append(result.last())
    assert min(peace) > 0.65
    assert np.mean(peace) - np.mean(war) > drop
    assert all(calm - attacked > 0.1 for calm, attacked in zip(peace, war, strict=True))


CLAIM = 10**9


def test_a_client_that_claims_a_billion_examples_owns_flowers_multikrum(dataset: Dataset, model: nn.Module) -> None:
    """One round. The attackers send equal rows near the honest ones, so they are among the picks. Flower's new model is
    their row to float32 (the other picks weigh 10^-6 together); ours is the plain mean of the picks, whatever they claim."""
    rows: list[np.ndarray] = []

    class Spy(ALIE):
        def __call__(self, *args: Any, **known: Any) -> torch.Tensor:
            sent = super().__call__(*args, **known)
            rows.append((known["params"] + sent[0]).double().numpy())
            return sent

    def after(strategy: FlowerStrategy, claim: int | None) -> np.ndarray:
        grid = world(dataset, model, 0, Dirichlet(alpha=0.3), Spy(z=1.5, sign=-1), fraction=0.2, num_examples=claim)
        return vector(run(grid, strategy, model, rounds=1).arrays)

    flowers = [after(MultiKrum(**FULL, num_malicious_nodes=2, num_nodes_to_select=8), claim) for claim in (None, CLAIM)]
    ours = [after(Strategy(strategies.MultiKrum(f=2)), claim) for claim in (None, CLAIM)]
    assert all(np.array_equal(row, rows[0]) for row in rows)
    start = np.concatenate([tensor.numpy().ravel() for tensor in model.state_dict().values()])
    scale = np.linalg.norm(rows[0] - start)
    assert np.linalg.norm(flowers[1] - rows[0]) < 1e-4 * scale
    assert np.linalg.norm(flowers[0] - rows[0]) > 0.3 * scale
    assert np.linalg.norm(ours[1] - rows[0]) > 0.3 * scale
    assert np.array_equal(ours[0], ours[1])


def test_what_the_billion_costs(dataset: Dataset, model: nn.Module) -> None:
    """Accuracy after ten rounds, seeds 0 to 2, two of ten attack (ALIE, z = 1.5) and claim: Flower's MultiKrum 0.10, 0.03,
    0.08 (without the claim 0.44, 0.41, 0.59), ours 0.56, 0.40, 0.64. Asked for: 0.15 between any two, 0.25 between means."""

    def last(strategy: FlowerStrategy, seed: int) -> float:
        attack = ALIE(z=1.5, sign=-1)
        grid = world(dataset, model, seed, Dirichlet(alpha=0.3), attack, fraction=0.2, num_examples=CLAIM)
        return run(grid, strategy, model, rounds=10, seed=seed).last()

    flowers = [last(MultiKrum(**FULL, num_malicious_nodes=2, num_nodes_to_select=8), seed) for seed in range(3)]
    ours = [last(Strategy(strategies.MultiKrum(f=2)), seed) for seed in range(3)]
    assert min(ours) - max(flowers) > 0.15
    assert np.mean(ours) - np.mean(flowers) > 0.25


# A strategy that owns its loop


class StopsWhenGood(FedAvg):
    """A loop of its own: stops as soon as the server's accuracy is high enough, and sends what it was configured with."""

    def __init__(self, target: float, **settings: Any) -> None:
        super().__init__(**settings)
        self.target = target
        self.asked: list[dict[str, Any]] = []

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], Any] | None = None,
    ) -> FlowerResult:
        assert train_config is not None
        assert evaluate_fn is not None
        result = FlowerResult(arrays=initial_arrays)
        result.evaluate_metrics_serverapp[0] = evaluate_fn(0, initial_arrays)
        for number in range(1, num_rounds + 1):
            messages = list(self.configure_train(number, result.arrays, train_config, grid))
            self.asked.append(dict(messages[0].content["config"]))
            arrays, _ = self.aggregate_train(number, grid.send_and_receive(messages, timeout=timeout))
            assert arrays is not None
            result.arrays = arrays
            result.evaluate_metrics_serverapp[number] = evaluate_fn(number, arrays)
            if result.evaluate_metrics_serverapp[number]["accuracy"] > self.target:
                break
        return result


def test_a_loop_of_its_own_decides_when_to_stop(dataset: Dataset, model: nn.Module) -> None:
    """0.6 is passed after a few of at most twelve rounds."""
    own = StopsWhenGood(0.6, **PARTIAL)
    result = run(world(dataset, model, 0), own, model, rounds=12, seed=0, train_config={"lr": 0.5})
    series = result.series()
    assert series[-1][1] > 0.6 >= max(value for _, value in series[:-1])
    assert (result.rounds, result.stopped_early) == (series[-1][0], True)
    assert 1 <= result.rounds < 12
    assert own.asked == [{"lr": 0.5, "server-round": number} for number in range(1, result.rounds + 1)]
    again = run(world(dataset, model, 0), StopsWhenGood(0.6, **PARTIAL), model, rounds=12, seed=0)
    assert data_of(again.arrays) == data_of(result.arrays)
    assert again.rows == result.rows


def test_a_loop_of_its_own_can_be_attacked(dataset: Dataset, model: nn.Module) -> None:
    """With four of ten sign flippers ten rounds end at 0.38 (seed 0), far below the target."""
    grid = world(dataset, model, 0, IID(), SignFlip(), fraction=0.4)
    result = run(grid, StopsWhenGood(0.7, **FULL), model, rounds=10, seed=0)
    assert (result.rounds, result.stopped_early) == (10, False)
    assert result.last() < 0.6
    stepwise = run(world(dataset, model, 0, IID(), SignFlip(), fraction=0.4), FedAvg(**FULL), model, rounds=10, seed=0)
    assert data_of(result.arrays) == data_of(stepwise.arrays)  # all ten, so nothing is drawn


# The configs

CONFIGS = sorted(file.stem for file in Path(config_dir(), "strategy").glob("flwr_*.yaml"))
every_config = pytest.mark.parametrize("config", CONFIGS)


def built(config: str, *overrides: str) -> Experiment:
    return build(compose([f"strategy={config}", "model=logistic_regression", "partition=iid", "rounds=1", *overrides]))


def test_every_strategy_has_its_config() -> None:
    assert {f"flwr_{name.lower()}" for name in SETTINGS} <= set(CONFIGS)


@every_config
@pytest.mark.parametrize(("population", "cohort"), [(100, 29), (60, 2), (3, 1)])
def test_a_config_asks_exactly_the_cohort(config: str, population: int, cohort: int) -> None:
    """Flower rounds fractions down, and int(100 * 0.29) is 28."""
    experiment = built(config, f"population={population}", f"cohort={cohort}")
    assert type(experiment.strategy).__module__.startswith("flwr.serverapp.strategy")
    arrays = experiment.clients.layout.record(experiment.clients.layout.gather(experiment.model))
    messages = list(experiment.strategy.configure_train(1, arrays, ConfigRecord(), experiment.grid))
    assert len({message.metadata.dst_node_id for message in messages}) == len(messages) == cohort
    assert not list(experiment.strategy.configure_evaluate(1, arrays, ConfigRecord(), experiment.grid))


@every_config
def test_a_config_runs(config: str) -> None:
    experiment = built(config, "population=20", "cohort=15", "attack=sign_flip", "attack.fraction=0.2")
    result = run(experiment.grid, experiment.strategy, experiment.model, rounds=1)
    assert result.last("answered", "server") == 15
    start = experiment.clients.layout.gather(experiment.model).params.numpy()
    assert np.isfinite(vector(result.arrays)).all()
    assert not np.array_equal(vector(result.arrays), start)


def test_configs_hand_over_what_the_server_believes() -> None:
    few = ("population=20", "cohort=15", "f=3")
    for config in ("flwr_krum", "flwr_multikrum", "flwr_bulyan"):
        assert built(config, *few).strategy.num_malicious_nodes == 3  # type: ignore[attr-defined]
    assert built("flwr_multikrum", *few).strategy.num_nodes_to_select == 12  # type: ignore[attr-defined]
    implied = built("flwr_krum", "population=20", "cohort=15", "attack=alie", "attack.fraction=0.2")
    assert implied.strategy.num_malicious_nodes == 3  # type: ignore[attr-defined]
