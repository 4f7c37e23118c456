"""Ensembles: who trains on what, always in the same way, and nobody feels what another bucket holds."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from torch import nn

from fedagg import ConfigError, LocalSGD, Population, Strategy
from fedagg.certified import ByClient, BySample, Ensemble, buckets_of_clients, buckets_of_samples
from fedagg.data import IID, Dataset
from fedagg.models import logistic_regression
from strategies import Median
from strategies.protocols.certified import dpa, run_off_election, spread_matrix

SHIFTS = [0, 2]
LOCAL = LocalSGD(epochs=2, batch_size=8, lr=0.3)


def small_median(seed: int) -> Strategy:
    return Strategy(rule=Median(), seed=seed)


class Centred(nn.Module):
    """Subtract a mean that training moves: a buffer beside the parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.mean.lerp_(x.mean(dim=0), 0.1)
        return x - self.mean


class NotFinite(nn.Module):
    """One logit of ten is NaN, once it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(1)[:, :10] * self.scale
        return flat if self.training else flat + torch.tensor([float("nan")] + 9 * [1.0])


def model() -> nn.Module:
    return nn.Sequential(nn.Flatten(), Centred(), nn.Dropout(0.2), nn.Linear(64, 10))


@pytest.fixture(scope="module")
def world(dataset: Dataset) -> Population:
    return Population.split(dataset, IID(), num_clients=48, seed=3)


def with_rows(dataset: Dataset, x: np.ndarray, y: np.ndarray) -> Dataset:
    return replace(dataset, x_train=x, y_train=y)


# Who trains on what


def test_the_bucket_of_a_client_does_not_depend_on_who_else_is_there() -> None:
    few, many = buckets_of_clients(50, 7), buckets_of_clients(5000, 7)
    assert few.tolist() == many[:50].tolist()
    assert (buckets_of_clients(50, 7, seed=1) != few).any()
    assert np.bincount(many, minlength=7).min() > 5000 / 7 - 6 * np.sqrt(5000 / 7)  # six deviations of a binomial count


def test_the_bucket_of_a_sample_depends_on_what_it_shows_alone(dataset: Dataset) -> None:
    x = dataset.x_train
    buckets, order = buckets_of_samples(x, 20), np.random.default_rng(0).permutation(len(x))
    assert buckets_of_samples(x[order], 20).tolist() == buckets[order].tolist()
    assert buckets_of_samples(x[5:6], 20).tolist() == [buckets[5]]
    other_end = x.astype(">i4")
    assert buckets_of_samples(other_end, 20).tolist() == buckets_of_samples(x.astype("<i4"), 20).tolist()
    changed = x[:200].copy()
    changed[:, 0, 4, 4] ^= 1
    assert (buckets_of_samples(changed, 20) != buckets[:200]).mean() > 0.8
    assert (buckets_of_samples(x, 20, seed=1) != buckets).mean() > 0.8


@pytest.mark.parametrize("spread", [None, spread_matrix(6, SHIFTS)])
def test_learners_read_the_buckets_that_the_spread_gives_them(world: Population, spread: np.ndarray | None) -> None:
    parts = ByClient(world, 6, spread)
    readers = [[b] for b in range(6)] if spread is None else spread.tolist()
    for learner in range(6):
        wanted = [client for client in range(48) if learner in readers[parts.buckets[client]]]
        part = parts[learner]
        assert part is not None
        assert list(part.holders) == wanted
        assert [part.rows(client).tolist() for client in wanted] == [world.rows(client).tolist() for client in wanted]
    with pytest.raises(IndexError, match=r"learners are 0 .. 5; got 6"):
        parts[6]


def test_samples_are_sorted_by_content_and_then_by_label() -> None:
    x = np.array([[3, 0], [1, 9], [1, 2], [1, 9], [1, 2]], dtype=np.uint8)
    data = Dataset("toy", x, [0, 1, 1, 0, 1], x[:1], [0], 2, "typed in")
    part = BySample(data, 1)[0]
    assert part is not None
    rows = part.rows(0)
    assert x[rows].tolist() == [[1, 2], [1, 2], [1, 9], [1, 9], [3, 0]]
    assert data.y_train[rows].tolist() == [1, 1, 0, 1, 0]


@pytest.mark.parametrize(
    ("learners", "spread", "message"),
    [
        (0, None, "learners >= 1; got 0"),
        (3, [[0], [3]], r"rows of numbers 0 .. 2; got \[\[0\], \[3\]\]"),
        (3, [0, 1], "buckets, d"),
        (3, [[0.5]], "buckets, d"),
    ],
)
def test_impossible_parts_are_refused(world: Population, learners: int, spread: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ByClient(world, learners, spread)  # type: ignore[arg-type]


# Always in the same way


def of_clients(world: Population) -> Ensemble:
    return Ensemble(ByClient(world, 6, spread_matrix(6, SHIFTS)), model, LOCAL, rounds=2, strategy=small_median, seed=5)


def of_samples(dataset: Dataset) -> Ensemble:
    return Ensemble(BySample(dataset, 6, spread_matrix(6, SHIFTS)), model, LOCAL, seed=5)


def test_training_again_gives_the_same_bits(world: Population, dataset: Dataset) -> None:
    x, _ = world.test()
    before = torch.get_rng_state()
    for make in (lambda: of_clients(world), lambda: of_samples(dataset)):
        whole = make().logits(x)
        assert whole.shape == (len(x), 6, 10)
        assert make().logits(x).tobytes() == whole.tobytes()
        assert make().logits(x, [4, 1]).tobytes() == whole[:, [4, 1]].tobytes()
        assert len({whole[:, learner].tobytes() for learner in range(6)}) == 6
        np.testing.assert_allclose(make().logits(x[:7], [2]), whole[:7, [2]], rtol=1e-5, atol=1e-6)
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_and_processes_change_nothing(world: Population) -> None:
    ensemble, (x, _) = of_clients(world), world.test()
    whole = ensemble.logits(x)
    torch.set_num_threads(2)
    try:
        assert ensemble.logits(x, [0, 3]).tobytes() == whole[:, [0, 3]].tobytes()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        pieces = list(pool.map(partial(ensemble.logits, x), [[0, 1, 2], [3, 4, 5]]))
    assert np.concatenate(pieces, axis=1).tobytes() == whole.tobytes()


def test_the_order_in_which_samples_are_given_changes_nothing(dataset: Dataset) -> None:
    order = np.random.default_rng(1).permutation(len(dataset.y_train))
    shuffled = with_rows(dataset, dataset.x_train[order], dataset.y_train[order])
    x = dataset.features(dataset.x_test)
    assert of_samples(shuffled).logits(x).tobytes() == of_samples(dataset).logits(x).tobytes()


# Nobody feels what another bucket holds


def differ(before: np.ndarray, after: np.ndarray) -> list[int]:
    return [learner for learner in range(before.shape[1]) if before[:, learner].tobytes() != after[:, learner].tobytes()]


def poison(world: Population, client: int) -> Population:
    """The world in which one client's labels are the next class's."""
    data, y = world.dataset, world.dataset.y_train.copy()
    rows = world.rows(client)
    y[rows] = (y[rows] + 1) % 10
    return Population(with_rows(data, data.x_train, y), world.indices, seed=world.seed)


@pytest.mark.parametrize("client", [0, 17, 47])
def test_a_malicious_client_reaches_the_readers_of_its_bucket_alone(world: Population, client: int) -> None:
    ensemble, (x, _) = of_clients(world), world.test()
    after = of_clients(poison(world, client)).logits(x)
    bucket = buckets_of_clients(48, 6)[client]
    assert differ(ensemble.logits(x), after) == sorted(spread_matrix(6, SHIFTS)[bucket].tolist())


@pytest.mark.parametrize("change", ["join", "leave"])
def test_clients_that_join_or_leave_reach_the_readers_of_their_buckets_alone(world: Population, change: str) -> None:
    x, _ = world.test()
    fewer = Population(world.dataset, [*list(world.indices)[:47]], seed=world.seed)
    first, then = (fewer, world) if change == "join" else (world, fewer)
    bucket = buckets_of_clients(48, 6)[47]
    assert differ(of_clients(first).logits(x), of_clients(then).logits(x)) == sorted(spread_matrix(6, SHIFTS)[bucket].tolist())


@pytest.mark.parametrize("change", ["insert", "delete", "relabel"])
def test_a_sample_reaches_the_readers_of_its_bucket_alone(dataset: Dataset, change: str) -> None:
    row, x, y = 100, dataset.x_train, dataset.y_train.copy()
    changed: dict[str, Callable[[], Dataset]] = {
        "insert": lambda: with_rows(dataset, np.concatenate([x[row : row + 1], x]), np.concatenate([[(y[row] + 1) % 10], y])),
        "delete": lambda: with_rows(dataset, np.delete(x, row, axis=0), np.delete(y, row)),
        "relabel": lambda: with_rows(dataset, x, np.where(np.arange(len(y)) == row, (y + 1) % 10, y)),
    }
    test = dataset.features(dataset.x_test)
    bucket = buckets_of_samples(x[row : row + 1], 6)[0]
    touched = differ(of_samples(dataset).logits(test), of_samples(changed[change]()).logits(test))
    assert touched == sorted(spread_matrix(6, SHIFTS)[bucket].tolist())


# Odd learners


def test_a_learner_without_data_stays_as_it_was_made(world: Population) -> None:
    """Two clients for six learners: four have nothing."""
    two = Population(world.dataset, list(world.indices)[:2])
    ensemble = Ensemble(ByClient(two, 6), partial(logistic_regression, (1, 8, 8), 10), LOCAL)
    x, _ = world.test()
    untrained = Ensemble([None] * 6, ensemble.model, LOCAL)
    mine = set(buckets_of_clients(2, 6).tolist())
    assert differ(untrained.logits(x), ensemble.logits(x)) == sorted(mine)
    assert Ensemble(BySample(with_rows(world.dataset, world.dataset.x_train[:1], [3]), 2), model).logits(x).shape == (
        359,
        2,
        10,
    )


def test_a_learner_whose_answer_is_not_finite_says_zeros(world: Population) -> None:
    """Its vote is one like any other, and the election goes on: among ties class 1, the finalist behind, wins."""
    x, _ = world.test()
    logits = Ensemble([None, world], NotFinite, LOCAL).logits(x)
    assert (logits == 0).all()
    assert run_off_election(logits)[0].tolist() == [1] * len(x)


def test_learning_pays(dataset: Dataset) -> None:
    """Ten learners with 144 digits each: most of the test set is right and survives one poisoned part, and the sum of two
    seeds (DPA*) can be counted like one."""
    x, y = dataset.features(dataset.x_test), dataset.y_test
    make = partial(Ensemble, BySample(dataset, 10), partial(logistic_regression, (1, 8, 8), 10), LocalSGD(epochs=10, lr=0.5))
    one, two = make(seed=0).logits(x), make(seed=1).logits(x)
    _, radius = dpa(one.argmax(axis=2), 10, y)
    assert (radius >= 0).mean() > 0.88
    assert (radius >= 1).mean() > 0.8
    _, radius = run_off_election(one + two, labels=y)
    assert (radius >= 1).mean() > 0.8
