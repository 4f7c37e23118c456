"""Faults: what happens to whom, that every event is counted, and how a config builds it."""

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord
from torch import nn

from fedagg import Adversary, Availability, Clients, ConfigError, Faults, LocalGrid, Population
from fedagg.attacks import SignFlip
from fedagg.clients import client_app
from fedagg.experiment import build
from fedagg.grid import Sanitize
from fedagg.grid.base import layers
from fedagg.hydra_app import compose
from fedagg.loop import Round, Row
from fedagg.progress import describe
from tests.faults import ALL, DAMAGE, EVENTS, EVERYBODY, Ask, Canned, data, expected_events, sources, strike


def test_every_event_is_counted_and_is_what_the_draws_say(canned: Canned, ask: Ask, examples: list[int]) -> None:
    total = dict.fromkeys(EVENTS, 0.0)
    for round in range(1, 201):
        replies, info = strike(canned, ask, round, seed=3, **ALL)
        counts, arrived = expected_events(round, examples, seed=3, **ALL)
        assert {name: info[name] for name in EVENTS} == counts
        assert sources(replies) == arrived
        total = {name: total[name] + count for name, count in counts.items()}
    assert min(total.values()) > 20


def test_rates_are_frequencies(canned: Canned, ask: Ask) -> None:
    """6,000 replies. Events at rates r among k replies lie within 4.5 sd of r k: false alarms of rate 5e-5 in seven tests."""
    total = dict.fromkeys(EVENTS, 0.0)
    rates = {**ALL, "deadline": None}
    for round in range(1, 1001):
        info = strike(canned, ask, round, **rates)[1]
        total = {name: total[name] + info[name] for name in EVENTS}
    arrived = 6000 - total["dropped"]
    for name, event, among in [
        ("drop", "dropped", 6000.0),
        *((name, event, arrived) for name, event in DAMAGE.items()),
        ("duplicate", "duplicated", arrived),
    ]:
        rate = ALL[name]
        assert abs(total[event] - rate * among) < 4.5 * math.sqrt(among * rate * (1 - rate)), name
    assert total["late"] == 0


def test_a_deadline_is_missed_as_often_as_the_lognormal_says(canned: Canned, ask: Ask, examples: list[int]) -> None:
    """2,000 rounds, six clients; each client's lateness within 4.5 sd of its probability. False alarms: 4e-5."""
    deadline = 0.01 * np.mean(examples)
    late = np.zeros(6)
    for round in range(1, 2001):
        replies, info = strike(canned, ask, round, deadline=deadline, spread=0.01)
        late += [client not in sources(replies) for client in EVERYBODY]
        assert info["late"] == 6 - len(replies)
    p = np.array([1 - NormalDist().cdf(math.log(deadline / (0.01 * m)) / 0.01) for m in examples])
    assert (np.abs(late / 2000 - p) < 4.5 * np.sqrt(p * (1 - p) / 2000) + 1e-9).all()
    assert len(set(examples)) > 1
    assert 0.01 < p.max() < 0.99


def test_without_spread_the_data_decide_who_is_late(clients: Clients, model: nn.Module, ask: Ask) -> None:
    held = clients.population.indices
    population = Population(clients.population.dataset, [held[0][:5], held[1][:50], held[2][:20]])
    grid = LocalGrid(Clients(population, model, clients.local))
    faults = Faults(grid, deadline=0.3, spread=0.0)
    assert sources(faults.send_and_receive(ask([0, 1, 2]))) == [0, 2]
    liars = Faults(Adversary(grid, SignFlip(), 1.0, num_examples=10**9), deadline=0.3, spread=0.0)
    assert sources(liars.send_and_receive(ask([0, 1, 2]))) == [0, 2]  # by what they hold, not by what they claim
    unknown = LocalGrid(client_app(grid.clients), num_clients=3)  # type: ignore[arg-type]
    assert sources(Faults(unknown, deadline=0.011, spread=0.0).send_and_receive(ask([0, 1, 2]))) == [0, 1, 2]
    assert sources(Faults(unknown, deadline=0.009, spread=0.0).send_and_receive(ask([0, 1, 2]))) == []


def test_what_is_dropped_is_not_late(grid: LocalGrid, ask: Ask) -> None:
    replies, info = strike(grid, ask, drop=1.0, deadline=1e-9)
    assert (replies, info["dropped"], info["late"]) == ([], 6, 0)
    replies, info = strike(grid, ask, deadline=1e-9, duplicate=1.0, nan=1.0)
    assert (replies, info["dropped"], info["late"], info["made_nan"], info["duplicated"]) == ([], 0, 6, 0, 0)


def test_more_drops_move_no_other_event(canned: Canned, ask: Ask) -> None:
    for round in range(1, 21):
        few, _ = strike(canned, ask, round, **{**ALL, "drop": 0.1})
        many, _ = strike(canned, ask, round, **{**ALL, "drop": 0.5})
        assert [sent for sent in data(few) if sent[0] in sources(many)] == data(many)


def test_the_order_and_the_company_do_not_matter(clients: Clients, ask: Ask) -> None:
    """Asked together, or pushed one by one in another order and pulled together."""
    together, counted = strike(LocalGrid(clients), ask, round=4, seed=1, **ALL)
    grid = Faults(LocalGrid(clients), seed=1, **ALL)
    grid.begin_round(4)
    ids = [message_id for client in [3, 0, 5, 1, 4, 2] for message_id in grid.push_messages(ask([client], round=4))]
    pulled = list(grid.pull_messages(ids))
    assert data(pulled) == data(together)
    assert grid.round_info() == counted
    assert any(counted[event] for event in EVENTS)
    other, _ = strike(LocalGrid(clients), ask, round=4, seed=2, **ALL)
    assert data(other) != data(together)


def test_a_fresh_grid_goes_on_where_another_stopped(canned: Canned, ask: Ask) -> None:
    """As after a resume: nothing is remembered from round to round."""
    worn = Faults(canned, **ALL)
    for round in (1, 2, 3):
        worn.begin_round(round)
        replies = list(worn.send_and_receive(ask(EVERYBODY, round=round)))
    fresh, info = strike(canned, ask, 3, **ALL)
    assert data(replies) == data(fresh)
    assert worn.round_info() == info


def test_evaluation_is_not_touched(population: Population, clients: Clients, model: nn.Module, ask: Ask) -> None:
    holding = Population(population.dataset, population.indices, holdout=0.2)
    faults = Faults(LocalGrid(Clients(holding, model)), drop=1.0, duplicate=1.0)
    assert sources(faults.send_and_receive(ask(EVERYBODY, kind="evaluate"))) == EVERYBODY
    assert not any(faults.round_info()[event] for event in EVENTS)


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"drop": -0.1}, r"faults.drop must be in \[0, 1\]; got -0.1"),
        ({"corrupt": 1.1}, r"faults.corrupt must be in \[0, 1\]; got 1.1"),
        ({"duplicate": math.nan}, r"faults.duplicate must be in \[0, 1\]; got nan"),
        ({"nan": "often"}, r"faults.nan must be in \[0, 1\]; got often"),
        ({"wrong_keys": True}, r"faults.wrong_keys must be in \[0, 1\]; got True"),
        ({"deadline": 0}, "faults.deadline must be > 0 seconds, or null; got 0"),
        ({"bits": 0}, "faults.bits must be an integer >= 1; got 0"),
        ({"bits": 1.5}, "faults.bits must be an integer >= 1; got 1.5"),
        ({"seconds_per_example": 0.0}, "faults.seconds_per_example must be > 0; got 0.0"),
        ({"spread": -1.0}, "faults.spread must be >= 0; got -1.0"),
        (
            {"corrupt": 0.5, "nan": 0.3, "wrong_shape": 0.2, "wrong_keys": 0.1},
            r"corrupt \+ nan \+ wrong_shape \+ wrong_keys must be at most 1; got 1.1",
        ),
    ],
)
def test_impossible_settings(grid: LocalGrid, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Faults(grid, **settings)


def kinds(*overrides: str) -> list[type]:
    experiment = build(compose(["model=logistic_regression", "partition=iid", *overrides]))
    return [type(layer) for layer in layers(experiment.grid)]


def test_the_world_of_a_config() -> None:
    """The network is around the adversary, and what a foreign strategy is spared stands next to it."""
    attacked = ["attack=alie", "participation=bernoulli"]
    assert kinds() == [LocalGrid]
    assert kinds("faults=lossy", *attacked) == [Faults, Adversary, Availability, LocalGrid]
    assert kinds("faults=lossy", "strategy=flwr_fedavg", *attacked) == [Sanitize, Faults, Adversary, Availability, LocalGrid]
    assert kinds("faults=lossy", "strategy=flwr_fedavg", "sanitize=false") == [Faults, LocalGrid]
    assert kinds("strategy=flwr_fedavg") == [LocalGrid]
    assert kinds("sanitize=true") == [Sanitize, LocalGrid]
    with pytest.raises(ConfigError, match="sanitize must be true, false or null; got maybe"):
        build(compose(["sanitize=maybe"]))


def test_a_config_says_what_it_does() -> None:
    experiment = build(compose(["faults=lossy", "strategy=flwr_fedavg", "attack=alie", "seed=5", "faults.deadline=2"]))
    plan = "\n".join(experiment.plan())
    assert "ALIE" in plan
    assert "faults: drop 0.3, corrupt 0.05, wrong_shape 0.01, deadline 2 s; replies that do not fit are kept from" in plan
    assert experiment.cfg.sanitize is True
    assert experiment.byzantine
    faults = next(layer for layer in layers(experiment.grid) if isinstance(layer, Faults))
    assert faults.seed == 5
    assert "faults" not in "\n".join(build(compose([])).plan())


def test_a_round_in_a_few_words_names_what_went_wrong() -> None:
    counts = {"asked": 9.0, "dropped": 3.0, "late": 2.0, "sanitized": 1.0, "rejected": 0.0, "duplicated": 4.0}
    rows: list[Row] = [(1, "server", None, name, count) for name, count in counts.items()]
    assert describe(Round(1, ArrayRecord(), rows), f=0) == "dropped 3  late 2  sanitized 1  0.00 s"
