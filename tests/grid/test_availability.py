"""Availability: who can be reached, and that nobody waits for ever. The patterns have their own tests."""

from collections.abc import Callable

import pytest
import torch
from flwr.app import Message
from flwr.serverapp.strategy import FedAvg
from torch import nn

from fedagg import Adversary, Availability, Clients, ConfigError, FedaggError, LocalGrid, Population, Strategy, run
from fedagg.attacks import SignFlip
from fedagg.grid import Bernoulli

Ask = Callable[..., list[Message]]


class Fixed:
    """Round -> clients that can be reached."""

    def __init__(self, rounds: dict[int, list[int]], n: int = 6) -> None:
        self.rounds, self.n = rounds, n

    def available(self, round: int) -> torch.Tensor:
        mask = torch.zeros(self.n, dtype=torch.bool)
        mask[self.rounds.get(round, [])] = True
        return mask


def test_clients_out_of_reach_are_not_asked(grid: LocalGrid, model: nn.Module) -> None:
    world = Availability(grid, Fixed({1: [0, 1, 2], 2: [5], 3: [0, 1, 2, 3, 4, 5]}))
    result = run(world, Strategy(cohort=4), model, rounds=3)
    assert result.series("asked", "server") == [(1, 3.0), (2, 1.0), (3, 4.0)]
    assert result.series("reachable", "server") == [(1, 3.0), (2, 1.0), (3, 6.0)]


def test_a_round_with_nobody_keeps_the_model(grid: LocalGrid, model: nn.Module) -> None:
    result = run(Availability(grid, Fixed({1: [0, 1]})), Strategy(), model, rounds=3)
    assert result.series("clients", "server") == [(1, 2.0), (2, 0.0), (3, 0.0)]
    accuracy = dict(result.series())
    assert accuracy[1] == accuracy[2] == accuracy[3] != accuracy[0]


def test_messages_to_clients_out_of_reach_are_lost(grid: LocalGrid, ask: Ask) -> None:
    world = Availability(grid, Fixed({1: [0, 2]}), unreachable="silent")
    world.begin_round(1)
    assert list(world.get_node_ids()) == [0, 1, 2, 3, 4, 5]
    assert [reply.metadata.src_node_id for reply in world.send_and_receive(ask([0, 1, 2, 3]))] == [0, 2]
    assert [reply.metadata.src_node_id for reply in world.pull_messages(world.push_messages(ask([0, 1, 2, 3])))] == [0, 2]


def test_a_flower_strategy_goes_on_with_fewer_replies(grid: LocalGrid, model: nn.Module) -> None:
    strategy = FedAvg(min_train_nodes=6, min_available_nodes=6, fraction_evaluate=0.0)
    world = Availability(grid, Fixed({1: [0, 1, 2], 2: [3]}), unreachable="silent")
    assert run(world, strategy, model, rounds=2).series("answered", "server") == [(1, 3.0), (2, 1.0)]


def test_a_strategy_that_waits_is_stopped(grid: LocalGrid, model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flwr.serverapp.strategy.strategy_utils.sleep", lambda seconds: None)
    strategy = FedAvg(min_train_nodes=6, min_available_nodes=6, fraction_evaluate=0.0)
    with pytest.raises(FedaggError, match=r"round 1: the strategy waits for more clients than the 2 of 6 .*silent"):
        run(Availability(grid, Fixed({1: [0, 1]})), strategy, model, rounds=1)


def test_only_clients_with_data_can_be_reached(population: Population, model: nn.Module, ask: Ask) -> None:
    some = Population(population.dataset, [[], [0, 1], [2], [], [3], []])
    world = Availability(LocalGrid(Clients(some, model)), Fixed({1: [0, 2, 3, 4], 2: [0, 1]}))
    for round, reachable in ((1, [2, 4]), (2, [1])):
        world.begin_round(round)
        assert list(world.get_node_ids()) == reachable
        assert world.round_info()["reachable"] == len(reachable)
    assert [reply.metadata.src_node_id for reply in world.send_and_receive(ask([0, 1, 2], round=2))] == [1]


def test_a_pattern_is_asked_once_a_round(grid: LocalGrid, model: nn.Module) -> None:
    """For a million clients each time costs as much as training some of them."""

    asked = []

    class Noting(Fixed):
        def available(self, round: int) -> torch.Tensor:
            asked.append(round)
            return super().available(round)

    world = Availability(grid, Noting({1: [0, 1], 2: [5]}))
    result = run(world, Strategy(), model, rounds=2)
    assert asked == [1, 2]
    assert result.series("reachable", "server") == [(1, 2.0), (2, 1.0)]


def test_worlds_can_be_stacked(grid: LocalGrid, model: nn.Module) -> None:
    reachable = Availability(grid, Fixed({1: [0, 1, 2], 2: [3, 4, 5]}))
    world = Adversary(reachable, SignFlip(), 0.5, seed=0)
    assert len(world.byzantine) == 3  # of the population, reachable or not
    result = run(world, Strategy(), model, rounds=2)
    byzantine = dict(result.series("byzantine", "server"))
    assert byzantine == {1: len(world.byzantine & {0, 1, 2}), 2: len(world.byzantine & {3, 4, 5})}
    assert set(dict(result.series("client_errors", "server")).values()) == {0.0}


def test_a_pattern_for_another_population_is_refused(grid: LocalGrid, model: nn.Module) -> None:
    with pytest.raises(ConfigError, match="participation is for 4 clients; the population has 6"):
        run(Availability(grid, Bernoulli(0.5, num_clients=4)), Strategy(), model, rounds=1)
