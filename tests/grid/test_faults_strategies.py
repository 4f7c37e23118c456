"""Faults: strategies of ours survive all of it, and a round without enough replies keeps the model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedagg import Availability, Clients, Faults, FedaggError, LocalGrid, Rule, Strategy, run
from fedagg.grid import Bernoulli
from fedagg.params import Layout
from strategies import Krum, Mean, Median, TrimmedMean
from tests.faults import ALL, EVENTS, Watched, expected_events
from tests.running import run_into


def test_a_client_that_answers_twice_counts_once(clients: Clients, model: nn.Module) -> None:
    twice = run(Faults(LocalGrid(clients), duplicate=1.0), Strategy(), model, rounds=2)
    once = run(LocalGrid(clients), Strategy(), model, rounds=2)
    assert twice.series("answered", "server") == [(1, 12), (2, 12)]
    for name in ("clients", "rejected"):
        assert twice.series(name, "server") == once.series(name, "server")
    assert [array.data for array in twice.arrays.values()] == [array.data for array in once.arrays.values()]


def test_a_round_without_a_usable_reply_keeps_the_model(grid: LocalGrid, model: nn.Module) -> None:
    layout = Layout.of_model(model)
    for rates in ({"drop": 1.0}, {"deadline": 1e-9}, {"nan": 1.0}, {"wrong_keys": 1.0}):
        result = run(Faults(grid, **rates), Strategy(), model, rounds=2)
        assert result.series("clients", "server") == [(1, 0), (2, 0)]
        assert torch.equal(layout.read(result.arrays).params, layout.gather(model).params)


def test_too_few_replies_for_the_rule_keep_the_model(
    grid: LocalGrid, model: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    """TrimmedMean(f=2) needs five of the six. All rounds in which fewer come keep the model, and are counted."""
    watched = Watched(Faults(grid, drop=0.3))
    result = run(watched, Strategy(TrimmedMean(f=2)), model, rounds=20)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1  # not one a round
    assert "the model stays as it was, too few replies can be used: TrimmedMean needs" in warnings[0]
    few = [round for round, replies in watched.arrived.items() if 0 < len(replies) < 5]
    assert result.series("too_few", "server") == [(round, 1.0) for round in few]
    assert 3 < len(few) < 18
    accuracy = dict(result.series())
    assert all(accuracy[round] == accuracy[round - 1] for round in few)
    assert accuracy[20] > 0.5


def test_too_few_reachable_clients_keep_the_model(grid: LocalGrid, model: nn.Module) -> None:
    """The cohort of five is fewer in some rounds because clients are out of reach, not because the setting is impossible."""
    world = Availability(grid, Bernoulli(0.7, num_clients=6))
    result = run(world, Strategy(TrimmedMean(f=2), cohort=5), model, rounds=20)
    few = [round for round, asked in result.series("asked", "server") if 0 < asked < 5]
    assert [round for round, _ in result.series("too_few", "server")] == few
    assert 3 < len(few) < 18


def test_a_rule_that_is_impossible_with_every_reply_still_raises(grid: LocalGrid, model: nn.Module) -> None:
    with pytest.raises(FedaggError, match=r"TrimmedMean needs .* got n=6, f=3"):
        run(Faults(grid, duplicate=1.0), Strategy(TrimmedMean(f=3)), model, rounds=1)
    with pytest.raises(FedaggError, match=r"TrimmedMean needs .* got n=4, f=2"):
        run(grid, Strategy(TrimmedMean(f=2), cohort=4), model, rounds=1)


def test_a_refusal_that_is_not_about_the_number_of_replies_ends_the_run(tmp_path: Path) -> None:
    """Under participation=bernoulli every round lacks replies. A target of three shares never fits ten classes."""
    settings = ["strategy=feddisco", "strategy.weighting.target=[1,1,1]", "participation=bernoulli"]
    with pytest.raises(FedaggError, match=r"aggregate_train failed in round 1: .* target of C=10 shares, one a class; got 3"):
        run_into(tmp_path / "run", *settings)


def test_too_few_clients_to_fill_a_cap_keep_the_model(tmp_path: Path) -> None:
    """Weights of at most 0.3 need four clients."""
    settings = ["strategy=term", "strategy.weighting.t=1", "strategy.weighting.weight_cap=0.3", "participation=bernoulli"]
    result, _ = run_into(tmp_path / "run", *settings, "rounds=12")
    few = [round for round, clients in result.series("clients", "server") if 0 < clients < 4]
    assert [round for round, _ in result.series("too_few", "server")] == few
    assert 2 < len(few) < 10
    assert result.rounds == 12


class Choosy(Mean):
    """Refuses what it is given, for a reason with or without a number of rows in it."""

    def __init__(self, message: str) -> None:
        object.__setattr__(self, "message", message)

    def __call__(self, updates: Tensor, weights: Tensor | None = None) -> Tensor:
        raise ValueError(self.message.format(n=len(updates)))


@pytest.mark.parametrize("message", ["needs a target of C=3", "got weights of shape [{n}]", "got min={n}", "got Fan=1"])
def test_only_n_speaks_of_the_number_of_rows(grid: LocalGrid, model: nn.Module, message: str) -> None:
    world = Availability(grid, Bernoulli(0.7, num_clients=6))
    with pytest.raises(FedaggError, match=r"aggregate_train failed in round 1"):
        run(world, Strategy(Choosy(message), cohort=6), model, rounds=1)
    assert run(world, Strategy(Choosy(message + ", n={n}"), cohort=6), model, rounds=1).last("too_few", "server") == 1


def is_usable(arrays: dict[str, np.ndarray], sent: dict[str, np.ndarray]) -> bool:
    """Whether a reply fits the model and its update has a finite squared norm in single precision."""
    if {name: value.shape for name, value in arrays.items()} != {name: value.shape for name, value in sent.items()}:
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(sum(np.square(arrays[name] - sent[name]).sum(dtype=np.float32) for name in sent)))


@pytest.mark.parametrize("rule", [Mean(), Median(), Krum(f=1)], ids=str)
@pytest.mark.parametrize(
    "rates",
    [{"drop": 0.3, "corrupt": 0.05, "wrong_shape": 0.01}, ALL],
    ids=["a lossy network", "everything"],
)
def test_two_hundred_rounds_end_with_a_model(
    clients: Clients, model: nn.Module, examples: list[int], rule: Rule, rates: dict[str, Any]
) -> None:
    watched = Watched(Faults(LocalGrid(clients), **rates))
    result = run(watched, Strategy(rule), model, rounds=200, evaluate_every=100)
    metrics = {name: dict(result.series(name, "server")) for name in (*EVENTS, "asked", "answered", "clients", "rejected")}
    for round in range(1, 201):
        counts, arrived = expected_events(round, examples, **rates)
        assert {name: metrics[name][round] for name in EVENTS} == counts
        replies = watched.arrived[round]
        assert [client for client, _ in replies] == arrived
        usable = {client for client, arrays in replies if is_usable(arrays, watched.sent[round])}
        assert metrics["asked"][round] == 6
        assert metrics["answered"][round] == len(replies)
        assert metrics["clients"][round] == len(usable)
        assert metrics["rejected"][round] == len({client for client, _ in replies} - usable)
    assert sum(metrics["rejected"].values()) > 10
    assert torch.isfinite(Layout.of_model(model).read(result.arrays).params).all()
    assert result.last() > 0.85  # 0.91 to 0.95 over rules, rates and seeds 0 to 3
