"""Patterns of participation: rates, lengths of stays, and that a client's pattern depends on (seed, round, client) alone.

The statistical tests have fixed seeds and allow 4.5 standard deviations, so each comparison is a false alarm of rate 7e-6.
"""

from collections.abc import Callable
from itertools import groupby
from math import sqrt
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedagg import Availability, ConfigError, LocalGrid, Strategy, rng, run
from fedagg.experiment import build
from fedagg.grid.availability import (
    Bernoulli,
    ClassBiased,
    Cyclic,
    Markov,
    Participation,
    class_biased_probabilities,
    cyclic_lengths,
    markov_transition,
)
from fedagg.hydra_app import compose

P = torch.tensor([0.02, 0.1, 0.5, 0.9, 1.0], dtype=torch.float64)
SIGMAS = 4.5
PATTERNS: dict[str, Callable[..., Any]] = {
    "bernoulli": Bernoulli,
    "markov": Markov,
    "markov that flips": lambda p, **settings: Markov(p, a=0.9, **settings),
    "cyclic": lambda p, **settings: Cyclic(p, length=7, **settings),
}

every_pattern = pytest.mark.parametrize("make", PATTERNS.values(), ids=PATTERNS)


def rounds(pattern: Participation, last: int, first: int = 1) -> Tensor:
    """[rounds, N]."""
    return torch.stack([pattern.available(round) for round in range(first, last + 1)])


def assert_frequency(hits: Tensor, p: float) -> None:
    """Whether independent draws [n] of probability p look like it."""
    p = min(max(p, 0.0), 1.0)  # for those that were rounded
    sd = sqrt(p * (1 - p) / len(hits))
    assert abs(float(hits.double().mean()) - p) <= SIGMAS * sd + 1e-12


# A function of (seed, round, client)


@every_pattern
def test_the_rounds_asked_before_do_not_matter(make: Callable[..., Any]) -> None:
    p = torch.linspace(0.02, 1.0, 60, dtype=torch.float64)
    in_order = rounds(make(p), 40)
    for round in (40, 7, 23, 1):
        assert torch.equal(make(p).available(round), in_order[round - 1])
    jumping = make(p)
    for round in (7, 40, 39, 40, 3, 5, 23):
        jumping.available(round).logical_not_()  # what was handed out is nobody else's
        assert torch.equal(jumping.available(round), in_order[round - 1])


@every_pattern
@pytest.mark.parametrize("n", [1, 15, 16, 17, 63, 1000])
def test_the_other_clients_do_not_matter(make: Callable[..., Any], n: int) -> None:
    p = torch.linspace(0.02, 1.0, 5000, dtype=torch.float64)
    assert torch.equal(rounds(make(p[:n]), 12, first=9), rounds(make(p), 12, first=9)[:, :n])


@every_pattern
def test_seeds_differ(make: Callable[..., Any]) -> None:
    one, other = (rounds(make(0.5, seed=seed, num_clients=200), 20) for seed in (0, 1))
    assert 0.2 < float((one != other).double().mean()) < 0.6


@every_pattern
def test_one_number_stands_for_everybody(make: Callable[..., Any]) -> None:
    assert torch.equal(rounds(make(0.3, num_clients=9), 5), rounds(make([0.3] * 9, num_clients=9), 5))
    assert torch.equal(rounds(make(0.3, num_clients=9), 5), rounds(make(np.full(9, 0.3)), 5))


@every_pattern
@pytest.mark.parametrize(
    ("p", "n", "found"),
    [
        (-0.1, 2, r"got -0\.1$"),
        (0.0, 2, r"got 0\.0$"),
        (float("nan"), 2, "got nan$"),
        ([0.5, 2.0], None, r"got 2\.0 for client 1$"),
        (0.5, None, "got one number, num_clients=None"),
        ([0.5, 0.5], 3, "got 2 of them, num_clients=3"),
        ([[0.5]], None, r"got shape \[1, 1\]"),
        ("often", 2, "got 'often'"),
        (None, 2, "got None"),
    ],
)
def test_impossible_probabilities(make: Callable[..., Any], p: object, n: int | None, found: str) -> None:
    with pytest.raises(ConfigError, match=rf"needs probabilities in \(0, 1\], one for each client.*{found}"):
        make(p, num_clients=n)


# Bernoulli


def test_bernoulli_frequencies() -> None:
    reached = rounds(Bernoulli(P, seed=0), 4000)
    for client, p in enumerate(P.tolist()):
        assert_frequency(reached[:, client], p)
    pairs = torch.corrcoef(torch.cat([reached[1:, :4].T, reached[:-1, :4].T]).double())
    off = pairs[~torch.eye(8, dtype=torch.bool)]
    assert off.abs().max() < SIGMAS / sqrt(3999)  # independent of clients and of the last round


def test_bernoulli_draws_what_it_always_drew() -> None:
    """One vector a round from the address (seed, "availability", round), so runs of earlier versions are repeated."""
    drawn = torch.rand(9, dtype=torch.float64, generator=rng.generator(3, "availability", 5))
    assert torch.equal(Bernoulli(0.4, seed=3, num_clients=9).available(5), drawn < 0.4)


# Markov


@pytest.mark.parametrize(
    ("p", "a", "wanted"),
    [
        (0.02, 0.05, (0.02 / 0.98, 1.0)),  # leaving would have probability 2.45
        (0.5, 0.05, (0.05, 0.05)),
        (0.1, 0.05, (0.05, 0.45)),
        (1.0, 0.05, (0.05, 0.0)),
        (0.5, 1.0, (1.0, 1.0)),
        (0.25, 0.5, (1 / 3, 1.0)),
    ],
)
def test_markov_transition(p: float, a: float, wanted: tuple[float, float]) -> None:
    comes, leaves = markov_transition(p, a)
    assert (comes, leaves) == pytest.approx(wanted, rel=1e-12)
    assert p == pytest.approx(comes / (comes + leaves))  # stationary


@pytest.mark.parametrize("a", [0.05, 0.3, 0.9, 1.0])
def test_markov_is_the_chain_stepped_from_its_start(a: float) -> None:
    """The same draws, one client and one step at a time."""
    p = [0.02, 0.3, 0.5, 0.55, 0.8, 0.97, 1.0] * 5

    def draws(round: int) -> list[float]:
        drawn: list[float] = torch.rand(len(p), dtype=torch.float64, generator=rng.generator(4, "markov", round)).tolist()
        return drawn

    there = [draw < rate for draw, rate in zip(draws(0), p, strict=True)]
    for round in range(1, 61):
        for client, draw in enumerate(draws(round)):
            comes, leaves = markov_transition(p[client], a)
            there[client] = draw < (1 - leaves if there[client] else comes)
        if round in (1, 2, 30, 60):
            assert Markov(p, a=a, seed=4).available(round).tolist() == there


@pytest.mark.parametrize("a", [0.05, 0.6])
@pytest.mark.parametrize("p", [0.02, 0.1, 0.5, 0.9])
def test_markov_is_stationary_and_remembers(p: float, a: float) -> None:
    """20,000 clients in a round far from the start, and what became of them 1 and 5 rounds later."""
    pattern = Markov(p, a=a, seed=1, num_clients=20_000)
    comes, leaves = markov_transition(p, a)
    first, early, now = pattern.available(1), pattern.available(3), pattern.available(300)
    for there in (first, early, now):
        assert_frequency(there, p)
    for later in (1, 5):
        after = pattern.available(300 + later)
        decay = (1 - comes - leaves) ** later
        assert_frequency(after[now], p + (1 - p) * decay)
        assert_frequency(after[~now], p - p * decay)


def test_markov_clients_do_not_move_together() -> None:
    there = rounds(Markov(0.5, a=0.5, num_clients=6), 4000).double()
    off = torch.corrcoef(there.T)[~torch.eye(6, dtype=torch.bool)]
    assert off.abs().max() < SIGMAS / sqrt(4000)


@pytest.mark.parametrize("a", [0.0, -0.1, 1.5, float("nan")])
def test_impossible_a(a: float) -> None:
    with pytest.raises(ConfigError, match=r"Markov needs a in \(0, 1\]"):
        Markov([0.5], a=a)


# Cyclic


@pytest.mark.parametrize(
    ("p", "length", "wanted"),
    [
        (0.02, 100, (2, 98)),
        (1.0, 100, (100, 1)),
        (0.001, 100, (1, 99)),
        (0.25, 10, (2, 8)),  # 2.5, halves to even
        (0.35, 10, (4, 6)),
        (0.3, 1, (1, 1)),
    ],
)
def test_cyclic_lengths(p: float, length: int, wanted: tuple[int, int]) -> None:
    assert cyclic_lengths(p, length) == wanted


def test_cyclic_clients_alternate() -> None:
    p = [0.02, 0.1, 0.5, 0.97, 1.0] * 20
    there = rounds(Cyclic(p, length=30, seed=2), 150).T.tolist()
    for rate, client in zip(p, there, strict=True):
        active, idle = cyclic_lengths(rate, 30)
        runs = [(state, len(list(same))) for state, same in groupby(client)]
        assert all(length == (active if state else idle) for state, length in runs[1:-1])
        away_at_first = 0 if runs[0][0] else runs[0][1]
        assert away_at_first < idle
        if away_at_first == 0:
            assert runs[0][1] == active


def test_cyclic_begins_anywhere_in_its_absence() -> None:
    there = rounds(Cyclic(0.5, length=8, num_clients=20_000), 4)
    first = torch.where(there.any(dim=0), there.int().argmax(dim=0), 4)
    for away in range(4):
        assert_frequency(first == away, 1 / 4)


@pytest.mark.parametrize("kind", [Bernoulli, Markov])
def test_reachability(kind: Callable[..., Any]) -> None:
    assert torch.equal(kind(P).reachability, P)
    assert kind(0.3, num_clients=2).reachability.tolist() == [0.3, 0.3]


def test_reachability_of_cyclic_clients_is_what_rounding_leaves() -> None:
    """1, 4, 7 rounds of 7, 7 and 8: 56 rounds are whole cycles of all of them."""
    pattern = Cyclic([0.1, 0.5, 1.0], length=7)
    assert pattern.reachability.tolist() == pytest.approx([1 / 7, 4 / 7, 7 / 8])
    assert rounds(pattern, 76, first=21).double().mean(dim=0).tolist() == pytest.approx(pattern.reachability.tolist())


@pytest.mark.parametrize("length", [0, -5, 2.5, True])
def test_impossible_length(length: object) -> None:
    with pytest.raises(ConfigError, match="integer length >= 1"):
        Cyclic([0.5], length=length)  # type: ignore[arg-type]


# Class-biased rates


def test_class_biased_probabilities() -> None:
    rho = [0.2, 0.1, 0.7]
    counts = torch.tensor([[5, 5, 0], [0, 0, 9], [0, 1, 0], [0, 0, 0], [1, 1, 1]])
    wanted = [0.1 * 3 * 0.15, 0.1 * 3 * 0.7, 0.1 * 3 * 0.1, 0.02, 0.1]
    assert class_biased_probabilities(counts, rho).tolist() == pytest.approx(wanted)
    assert class_biased_probabilities(counts.numpy(), np.array(rho), floor=0.05).tolist() == pytest.approx(
        [0.05, 0.21, 0.05, 0.05, 0.1]
    )
    assert class_biased_probabilities(counts, rho, mean=1.0).tolist() == pytest.approx([0.45, 1.0, 0.3, 0.02, 1.0])


def test_class_biased_rates_of_the_paper() -> None:
    """250 clients, 10 classes, both Dirichlet 0.1: about 40 % of the clients at the floor, rates of mean 0.106."""
    rates = []
    for seed in range(200):
        counts = 1e6 * np.random.default_rng(seed).dirichlet(np.full(10, 0.1), 250)
        rates.append(ClassBiased()(counts, seed))
    drawn = torch.stack(rates)
    assert float((drawn == 0.02).double().mean()) == pytest.approx(0.40, abs=0.03)
    assert float(drawn.mean()) == pytest.approx(0.106, abs=0.004)
    assert not torch.equal(rates[0], rates[1])


def test_class_biased_depends_on_the_seed_alone() -> None:
    counts = torch.eye(10)
    one = ClassBiased(floor=1e-9)(counts, 7)
    assert torch.equal(one, ClassBiased(floor=1e-9)(counts, 7))
    rho = rng.numpy_generator(7, "rates").dirichlet([0.1] * 10)
    assert one.tolist() == pytest.approx(np.clip(rho, 1e-9, 1).tolist())


@pytest.mark.parametrize(
    "settings", [{"concentration": 0}, {"concentration": np.inf}, {"mean": 0}, {"mean": np.nan}, {"floor": 0}, {"floor": 1.1}]
)
def test_impossible_rates(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"class-biased rates need|ClassBiased needs"):
        ClassBiased(**settings)


@pytest.mark.parametrize("rho", [[0.5, 0.5], [0.5, 0.6, -0.1], [[1.0, 0.0, 0.0]], [float("nan"), 0.5, 0.5]])
def test_impossible_rho(rho: Any) -> None:
    with pytest.raises(ConfigError, match=r"label_counts \[N, C\] and rho \[C\] >= 0"):
        class_biased_probabilities(torch.ones(2, 3), rho)


# In an experiment


@pytest.mark.parametrize(("name", "kind"), [("", Bernoulli), ("_markov", Markov), ("_cyclic", Cyclic)])
def test_the_rates_come_from_what_clients_hold(name: str, kind: type) -> None:
    """Each client holds one class, so its rate is 0.1 * 10 * rho of that class."""
    setting = ["population=10", "partition=k_classes", "partition.k=1", "seed=5", f"participation=class_biased{name}"]
    experiment = build(compose([*setting, "participation.rates.floor=0.001", "participation.rates.concentration=1"]))
    assert isinstance(experiment.grid, Availability)
    pattern = experiment.grid.participation
    assert isinstance(pattern, kind)
    rho = rng.numpy_generator(5, "rates").dirichlet([1.0] * 10)
    wanted = np.clip(rho[experiment.clients.population.label_counts.argmax(dim=1).numpy()], 0.001, 1.0)
    assert np.asarray(pattern.probabilities).tolist() == pytest.approx(wanted.tolist())  # type: ignore[attr-defined]


def test_rates_can_be_given_to_any_pattern() -> None:
    rates = "{_target_: fedagg.grid.ClassBiased, mean: 0.3}"
    experiment = build(compose(["participation=markov", "participation.a=0.2", f"participation.rates={rates}"]))
    assert isinstance(experiment.grid, Availability)
    pattern = experiment.grid.participation
    assert isinstance(pattern, Markov)
    assert pattern.a == 0.2
    assert len(set(pattern.reachability.tolist())) > 1


def test_a_run_follows_the_pattern(grid: LocalGrid, model: torch.nn.Module) -> None:
    pattern = Markov(0.5, a=0.3, num_clients=6)
    found = dict(run(Availability(grid, pattern), Strategy(), model, rounds=5).series("clients", "server"))
    assert found == {round: float(Markov(0.5, a=0.3, num_clients=6).available(round).sum()) for round in range(1, 6)}
