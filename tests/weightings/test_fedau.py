"""FedAU: intervals by hand, against lists of intervals, and what its estimate comes to."""

from __future__ import annotations

import copy
import io
import random
from math import sqrt
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import strategies
from fedagg import Adversary, Availability, Cohort, ConfigError, LocalGrid, Rule, Strategy, run
from fedagg.attacks import NaNAttack
from fedagg.grid import Bernoulli, Trace
from strategies import NNM, Bucketing, FedAU, GeometricMedian, Mean, TrimmedMean


def seen(round: int, clients: list[int], population: int | None = 10, rows: Tensor | None = None) -> Cohort:
    rows = torch.zeros(len(clients), 1) if rows is None else rows
    return Cohort(round, clients, rows, torch.zeros(rows.shape[1]), torch.ones(len(clients)), population=population)


def omegas(weighting: FedAU, round: int, clients: list[int], population: int = 10) -> list[float]:
    """The estimates of 1 / p that a round uses."""
    return [population * weight for weight in weighting(seen(round, clients, population)).tolist()]


class Lists:
    """FedAU with a list of intervals for each of the N clients."""

    def __init__(self, clients: list[int], cutoff: int | None) -> None:
        self.cutoff = float("inf") if cutoff is None else cutoff
        self.away = dict.fromkeys(clients, 0)
        self.intervals: dict[int, list[int]] = {client: [] for client in clients}

    def round(self, present: list[int]) -> list[float]:
        weights = []
        for client in sorted(self.away):
            known = self.intervals[client]
            if client in present:
                weights.append(sum(known) / len(known) if known else 1.0)
            self.away[client] += 1
            if client in present or self.away[client] == self.cutoff:
                known.append(self.away[client])
                self.away[client] = 0
        return weights


def test_twelve_rounds_by_hand() -> None:
    """Intervals 3, 1, 6, 2: the one that ends in a round has no say in it."""
    present = [0, 0, 1, 1, 0, 0, 0, 0, 0, 1, 0, 1]
    used = [1, 1, 1, 3, 2, 2, 2, 2, 2, 2, 10 / 3, 10 / 3]
    for last in range(12):
        weighting = FedAU(cutoff=None)
        for round in range(1, last + 1):
            if present[round - 1]:
                weighting(seen(round, [4]))
        assert omegas(weighting, last + 1, [4]) == pytest.approx([used[last]])
    weighting = FedAU(cutoff=None)
    assert [omegas(weighting, round, [4])[0] for round in (3, 4, 10, 12, 13)] == pytest.approx([1, 3, 2, 10 / 3, 3])


@pytest.mark.parametrize(
    ("cutoff", "rounds"),
    [
        (3, [(1, [1.0]), (2, [1.0]), (10, [(1 + 1 + 3 + 3) / 4])]),  # 3 .. 5, 6 .. 8, and 9 .. 10 is open
        (3, [(4, [3.0]), (5, [(3 + 1) / 2])]),  # closed by the cutoff before the client was ever seen
        (3, [(3, [1.0]), (4, [3.0])]),  # the third round ends the interval once, whatever ends it
        (1, [(9, [1.0]), (20, [1.0])]),
        (50, [(50, [1.0])]),
        (50, [(51, [50.0]), (52, [51 / 2])]),
        (50, [(1000, [50.0])]),
        (None, [(1000, [1.0]), (1001, [1000.0])]),
    ],
)
def test_cutoff_by_hand(cutoff: int | None, rounds: list[tuple[int, list[float]]]) -> None:
    weighting = FedAU(cutoff=cutoff)
    for round, omega in rounds:
        assert omegas(weighting, round, [7]) == pytest.approx(omega)


@pytest.mark.parametrize("cutoff", [None, 1, 2, 7, 50])
def test_against_lists_of_intervals(cutoff: int | None) -> None:
    """Rare and frequent clients, ids of up to 64 bits, and rounds in which nobody takes part and nothing is aggregated."""
    draw = random.Random(cutoff)
    clients = [0, 1, 5, 2**31, 2**62, 2**63, 2**64 - 1]
    rates = [0.02, 0.05, 0.1, 0.2, 0.5, 0.9, 0.01]
    lists, weighting = Lists(clients, cutoff), FedAU(cutoff=cutoff)
    for round in range(1, 600):
        present = [client for client, rate in zip(clients, rates, strict=True) if draw.random() < rate * (round % 100 > 20)]
        wanted = lists.round(present)
        if present:
            assert omegas(weighting, round, present) == pytest.approx(wanted, rel=1e-12)
        if round % 50 == 0:
            weighting = reloaded(weighting)


def reloaded(weighting: FedAU) -> FedAU:
    """An equal weighting, with the state as a checkpoint would bring it back."""
    file = io.BytesIO()
    torch.save(weighting.state_dict(), file)
    file.seek(0)
    other = FedAU(cutoff=weighting.cutoff)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


def test_new_clients_find_their_place_among_those_that_are_known() -> None:
    """Before, between and after them, also where ids have 64 bits. A dictionary knows when each came last, and how often."""
    draw, weighting, known = random.Random(0), FedAU(cutoff=None), dict[int, list[int]]()
    for round in range(1, 40):
        clients = sorted(
            {
                draw.choice([draw.randrange(60), 2**62 + draw.randrange(60), 2**64 - 1 - draw.randrange(60)])
                for _ in range(draw.randrange(1, 25))
            }
        )
        for client in clients:
            _, times = known.get(client, (0, 0))
            known[client] = [round, times + 1]
        weighting(seen(round, clients))
        ids, *table = weighting.state_dict()["seen"].tolist()
        assert ids == sorted(ids)
        assert {number % 2**64: list(column) for number, *column in zip(ids, *table, strict=True)} == known


def test_the_population_divides() -> None:
    weighting = FedAU()
    assert weighting(seen(1, [3, 8], population=4)).tolist() == [0.25, 0.25]
    assert weighting(seen(5, [3, 8, 9], population=8)).tolist() == [1 / 8, 1 / 8, 1 / 8]
    assert weighting(seen(6, [3, 8, 9], population=8)).tolist() == [2.5 / 8, 2.5 / 8, 5 / 8]
    with pytest.raises(ValueError, match=r"FedAU needs to know how many clients there are in all; cohort\.population is None"):
        weighting(seen(7, [3], population=None))


def test_rounds_go_forward() -> None:
    weighting = FedAU()
    weighting(seen(5, [1]))
    for round in (5, 4, 0):
        with pytest.raises(ValueError, match=f"got round {round} after round 5"):
            weighting(seen(round, [1]))
    weighting.reset()
    assert omegas(weighting, 1, [1]) == [1.0]


@pytest.mark.parametrize("cutoff", [0, -1, 2.5])
def test_impossible_cutoff(cutoff: int) -> None:
    with pytest.raises(ValueError, match=f"cutoff >= 1, or None for no cutoff; got cutoff={cutoff}"):
        FedAU(cutoff=cutoff)


def test_a_copy_goes_its_own_way() -> None:
    weighting = FedAU()
    weighting(seen(2, [1, 2]))
    other = copy.deepcopy(weighting)
    other(seen(3, [1]))
    assert omegas(weighting, 4, [1]) == [2.0]
    assert omegas(other, 4, [1]) == [1.5]


def test_state_is_small() -> None:
    """At most 32 bytes a client seen; none for one that was not."""
    weighting = FedAU()
    weighting(seen(1, list(range(0, 100_000, 10)), population=100_000))
    state = weighting.state_dict()
    assert sum(value.nbytes for value in state.values() if isinstance(value, Tensor)) <= 32 * 10_000


# What is estimated


@pytest.mark.parametrize(
    ("p", "cutoff", "rounds", "limit"),
    [(0.5, None, 500, 2), (0.1, None, 2500, 10), (0.1, 50, 2500, 9.948), (0.02, 50, 6000, 31.79), (0.02, 5, 3000, 4.804)],
)
def test_what_the_estimate_tends_to(p: float, cutoff: int | None, rounds: int, limit: float) -> None:
    """Over 500 clients, (1 - (1 - p)^K) / p, which is 1 / p without a cutoff.

    Allowed are 4.5 standard deviations, a false alarm of rate 7e-6, and the bias: of the ``rounds / limit`` intervals of a
    client, one is not over.
    """
    n = 500
    pattern, weighting = Bernoulli(p, seed=3, num_clients=n), FedAU(cutoff=cutoff)
    for round in range(1, rounds + 1):
        present = pattern.available(round).nonzero().flatten().tolist()
        if present:
            weighting(seen(round, present, n))
    found = torch.tensor(omegas(weighting, rounds + 1, list(range(n)), n))
    longest = cutoff or 10_000
    ends = [k * k * p * (1 - p) ** (k - 1) for k in range(1, longest)]
    square = sum(ends) + longest**2 * (1 - p) ** (longest - 1)
    spread = sqrt((square - limit**2) * limit / rounds / n)  # of one interval; over a client's intervals; over n clients
    assert float(found.mean()) == pytest.approx(limit, abs=4.5 * spread + limit**2 / rounds)


# In the engine


def test_a_row_that_is_not_finite_did_not_take_part(grid: LocalGrid, model: nn.Module) -> None:
    world = Adversary(grid, NaNAttack(), 1 / 3, seed=0, stop=3)
    strategy = Strategy(weighting=FedAU())
    run(world, strategy, model, rounds=3)
    assert isinstance(strategy.weighting, FedAU)
    honest = sorted(set(range(6)) - world.byzantine)
    assert len(honest) == 4
    assert strategy.weighting.state_dict()["seen"].tolist() == [honest, [3] * 4, [3] * 4]


def test_a_round_that_is_thrown_away_did_not_take_place(tmp_path: Path, grid: LocalGrid, model: nn.Module) -> None:
    """NNM(f=2) needs five: three clients in round 2 are too few, after they have been weighed."""
    found = []
    for second in ("1,1,1,0,0,0", "0,0,0,0,0,0"):
        (tmp_path / "trace.csv").write_text(f"1,1,1,1,1,1\n{second}\n1,1,1,1,1,0\n")
        strategy = Strategy(Mean(), FedAU(), [NNM(f=2)], cohort=6)
        result = run(Availability(grid, Trace(str(tmp_path / "trace.csv"))), strategy, model, rounds=3)
        assert result.series("clients", "server") == [(1, 6), (2, second.count("1")), (3, 5)]
        found.append((strategy.state_dict()["weighting"]["seen"].tolist(), result.series("loss")))
    assert found[0] == found[1]
    assert found[0][0] == [[0, 1, 2, 3, 4, 5], [3, 3, 3, 3, 3, 1], [2, 2, 2, 2, 2, 1]]


def test_whoever_stays_away_gains_at_most_the_cutoff() -> None:
    """A client that comes every 500 rounds, among clients that always do."""
    honest, liar = list(range(9)), 9
    weights = {}
    for cutoff in (None, 50):
        weighting = FedAU(cutoff=cutoff)
        for round in range(1, 2001):
            last = weighting(seen(round, [*honest, liar] if round % 500 == 0 else honest))
        weights[cutoff] = last.tolist()
    assert weights[None] == pytest.approx([0.1] * 9 + [500 / 10])
    assert weights[50] == pytest.approx([0.1] * 9 + [50 / 10])


def test_random_absence_never_exceeds_the_cutoff() -> None:
    draw, weighting = random.Random(0), FedAU(cutoff=7)
    most = 0.0
    for round in range(1, 2000):
        present = [client for client in range(10) if draw.random() < 0.05]
        if present:
            most = max(most, max(omegas(weighting, round, present)))
    assert 6 < most <= 7 + 1e-12


# With other parts


def trained(weighting: FedAU) -> FedAU:
    """After four rounds: clients 0 and 1 came in each, 2 in the third only. Their omegas are 1, 1 and 3."""
    for round in (1, 2, 3, 4):
        weighting(seen(round, [0, 1, 2] if round == 3 else [0, 1], population=3))
    return weighting


ROWS = torch.tensor([[1.0, 0.0], [2.0, 2.0], [0.0, 4.0]], dtype=torch.float64)


def test_with_the_mean() -> None:
    delta = Strategy(Mean(), trained(FedAU())).aggregate(seen(5, [0, 1, 2], 3, ROWS))
    assert delta.tolist() == pytest.approx([(1 + 2) / 3, (2 + 3 * 4) / 3])


def test_with_a_rule_that_weighs_rows_a_client_counts_as_often_as_it_was_missed() -> None:
    """The geometric median takes weights as multiplicities, so only ratios matter, and the third row is there three times."""
    delta = Strategy(GeometricMedian(), trained(FedAU())).aggregate(seen(5, [0, 1, 2], 3, ROWS))
    assert torch.allclose(delta, GeometricMedian()(ROWS[[0, 1, 2, 2, 2]]), atol=1e-9)
    assert not torch.allclose(delta, GeometricMedian()(ROWS), atol=1e-3)


def test_behind_a_pre_aggregator_the_weight_goes_to_the_mixture_around_the_client() -> None:
    """NNM(f=1) replaces a row by the mean of the two nearest: 0 and 1; 1 and 0; 2 and 1."""
    delta = Strategy(Mean(), trained(FedAU()), [NNM(f=1)]).aggregate(seen(5, [0, 1, 2], 3, ROWS))
    mixed = torch.stack([ROWS[[0, 1]].mean(0), ROWS[[0, 1]].mean(0), ROWS[[1, 2]].mean(0)])
    assert torch.allclose(delta, (mixed[0] + mixed[1] + 3 * mixed[2]) / 3)


def test_what_has_no_place_for_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match="TrimmedMean-1 does not use weights, so weighting=FedAU would have no effect"):
        Strategy(TrimmedMean(f=1), FedAU())
    named = {strategies.Mean, strategies.GeometricMedian, strategies.RobustLearningRate}
    rules = (getattr(strategies, name) for name in strategies.__all__)
    assert {rule for rule in rules if isinstance(rule, type) and issubclass(rule, Rule) and rule.uses_weights} == named
    with pytest.raises(ConfigError, match="weighting=FedAU speaks of clients, but Bucketing"):
        Strategy(Mean(), FedAU(), [Bucketing()])


def test_weight_can_break_what_numbers_would_not() -> None:
    """One liar of ten is far below the half that a geometric median stands, but with K = 50 it has 50 of 59 parts."""
    honest = torch.randn(9, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = torch.cat([honest, torch.full((1, 5), 100.0, dtype=torch.float64)])
    for cutoff, broken in ((50, True), (5, False)):
        weighting = FedAU(cutoff=cutoff)
        for round in range(1, 200):
            weighting(seen(round, list(range(9))))
        delta = Strategy(GeometricMedian(), weighting).aggregate(seen(200, list(range(10)), 10, rows))
        assert (float(delta.norm()) > 100) == broken
