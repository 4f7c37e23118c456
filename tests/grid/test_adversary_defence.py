"""Adversary: attackers who know the rule, or less than they could use; attacks that come and go; backdoors."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, get_args

import pytest
import torch
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedMedian
from torch import Tensor, nn

from fedagg import (
    Adversary,
    Attack,
    Clients,
    ConfigError,
    LocalGrid,
    LocalSGD,
    Population,
    PreAggregator,
    Rule,
    Strategy,
    run,
)
from fedagg import clients as clients_half
from fedagg.attacks import ALIE, LabelFlip, OptimalALIE, SignFlip
from fedagg.clients.local import LocalTraining
from fedagg.contracts import REPORTS, Knowledge
from fedagg.params import ModelState
from strategies import (
    MIFA,
    NNM,
    SCAFFOLD,
    ByExamples,
    FedAU,
    FedDisco,
    FedDyn,
    FedExP,
    FedLAW,
    FedNova,
    FedVARP,
    Median,
    QFedAvg,
    TrimmedMean,
)

Ask = Callable[..., list[Message]]
EVERYBODY = [0, 1, 2, 3, 4, 5]


class Prober(Attack):
    """Asks the rule, if it was lent one, what it makes of the rows it sees and of zeros; sends zeros."""

    knowledge = "aggregator"

    def __init__(self, knowledge: Knowledge = "aggregator") -> None:
        self.knowledge = knowledge  # type: ignore[misc]
        self.aggregator: Callable[[Tensor], Tensor] | None = None
        self.seen: list[dict[str, Any]] = []

    def __call__(self, honest: Tensor, f: int, **context: Any) -> Tensor:
        zeros = torch.zeros(f, honest.shape[1])
        found = None if self.aggregator is None else self.aggregator(torch.cat([honest, zeros]))
        self.seen.append({"found": found, "honest": honest.clone(), **context})
        return zeros


class Halve(PreAggregator):
    def __call__(self, updates: Tensor) -> Tensor:
        return updates / 2


class Counting(Rule):
    """The mean, plus what it was called before: a rule with state. Remembers the clients it was told of."""

    needs = frozenset({"client_ids"})

    def __init__(self) -> None:
        self.calls, self.clients = 0, list[Sequence[int]]()

    def __call__(self, updates: Tensor, weights: Tensor | None = None, *, client_ids: Sequence[int] = ()) -> Tensor:
        self.calls += 1
        self.clients.append(client_ids)
        return updates.mean(dim=0) + self.calls


def test_the_real_defence_is_lent_with_its_pre_aggregators(clients: Clients, model: nn.Module) -> None:
    prober, strategy = Prober(), Strategy(Median(), pre_aggregators=[Halve()])
    run(Adversary(LocalGrid(clients), prober, 1 / 3, defence=strategy), strategy, model, rounds=2)
    for seen in prober.seen:
        wanted = torch.cat([seen["honest"], torch.zeros(2, seen["honest"].shape[1])]).median(dim=0)
        half = torch.cat([seen["honest"], torch.zeros(2, seen["honest"].shape[1])]).sort(dim=0).values[2:4].mean(dim=0) / 2
        torch.testing.assert_close(seen["found"], half, rtol=1e-5, atol=1e-7)
        assert not torch.equal(seen["found"], wanted.values)
    assert prober.aggregator is None


def test_asking_the_defence_does_not_change_it(clients: Clients, model: nn.Module) -> None:
    prober, rule = Prober(), Counting()
    strategy = Strategy(rule)
    grid = Adversary(LocalGrid(clients), prober, 1 / 3, defence=strategy)
    run(grid, strategy, model, rounds=3)
    assert rule.calls == 3
    assert rule.clients == [EVERYBODY] * 3
    for number, seen in enumerate(prober.seen, start=1):
        rows = torch.cat([seen["honest"], torch.zeros(2, seen["honest"].shape[1])])
        torch.testing.assert_close(seen["found"], rows.mean(dim=0) + number)


def fedlaw(clients: Clients, **settings: Any) -> FedLAW:
    """A server that learns on 60 examples, all in one batch, so that their order plays no part."""
    x, y = clients.population.test()
    return FedLAW(clients.model, (x[:60], y[:60]), epochs=5, lr=0.1, **settings)


STRATEGIES: dict[str, tuple[Callable[[Clients], Strategy], LocalTraining]] = {
    "claims": (lambda _: Strategy(weighting=ByExamples()), LocalSGD(lr=0.1)),
    "losses": (lambda _: Strategy(weighting=QFedAvg(q=1.0, lr=0.1)), LocalSGD(lr=0.1)),
    "labels": (lambda _: Strategy(weighting=FedNova(FedDisco())), LocalSGD(lr=0.1)),
    "visits": (lambda _: Strategy(weighting=FedAU(), cohort=5), LocalSGD(lr=0.1)),
    "extrapolation": (lambda _: FedExP(weighting=ByExamples(), eta_max=4.0), LocalSGD(lr=0.1)),
    "sum": (lambda _: FedDyn(rule=Median()), clients_half.FedDyn(lr=0.1, alpha=0.1)),
    "control": (lambda _: SCAFFOLD(weighting=ByExamples()), clients_half.Scaffold(lr=0.1)),
    "memory": (lambda _: FedVARP(cohort=5), LocalSGD(lr=0.1)),
    "last updates": (lambda _: MIFA(pre_aggregators=[NNM(f=1)], cohort=5), LocalSGD(lr=0.1)),
    "learned": (fedlaw, LocalSGD(lr=0.1)),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_is_tried_is_what_the_server_will_do(population: Population, model: nn.Module, name: str) -> None:
    """The rows that are then sent, with the claims that come with them: on trial, and in the model a round later."""
    build, local = STRATEGIES[name]
    clients = Clients(population, model, local, seed=0)
    strategy, prober = build(clients), Prober()
    clients.report(strategy.required & REPORTS)
    grid = Adversary(LocalGrid(clients), prober, 1 / 3, num_examples=3000, defence=strategy)
    run(grid, strategy, model, rounds=4, seed=1)
    assert len(prober.seen) == 4
    for seen, later in pairwise(prober.seen):
        torch.testing.assert_close(seen["found"], later["params"] - seen["params"], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_trial_leaves_nothing_behind(population: Population, model: nn.Module, name: str) -> None:
    """A run in which the attackers ask the server, and one in which they send the same rows without asking."""
    build, local = STRATEGIES[name]
    seen = []
    for asks in (True, False):
        clients = Clients(population, model, local, seed=0)
        strategy = build(clients)
        clients.report(strategy.required & REPORTS)
        grid = Adversary(LocalGrid(clients), Prober(), 1 / 3, defence=strategy if asks else None)
        torch.manual_seed(7)
        run(grid, strategy, model, rounds=3, seed=1)
        seen.append((strategy.state_dict(), strategy.last_info, dict(strategy.round_metrics), torch.random.get_rng_state()))
    torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=0)


def test_replies_that_the_server_drops_are_dropped_on_trial(clients: Clients, ask: Ask) -> None:
    """Of six rows, one that is not finite and so lowers f of the trimmed mean from 2 to 1: 0 2 4 6 8 become 2 4 6."""
    strategy = Strategy(TrimmedMean(f=2))
    asked = list(strategy.configure_train(1, ask([0])[0].content["arrays"], ConfigRecord(), LocalGrid(clients)))
    layout, params = clients.layout, clients.layout.read(asked[0].content["arrays"]).params
    buffers = layout.empty()
    replies = []
    for message, step in zip(asked, [0.0, math.nan, 2.0, 4.0, 6.0, 8.0], strict=True):
        state = ModelState(params + step, buffers.float_buffers, buffers.int_buffers)
        content = RecordDict({"arrays": layout.record(state), "metrics": MetricRecord({"num-examples": 1})})
        replies.append(Message(content, reply_to=message))
    torch.testing.assert_close(strategy.defend(replies), torch.full_like(params, 4.0))
    replies[-1].content["arrays"] = layout.record(ModelState(params + 80.0, buffers.float_buffers, buffers.int_buffers))
    torch.testing.assert_close(strategy.defend(replies), torch.full_like(params, 4.0))
    assert strategy.rule == TrimmedMean(f=2)
    assert not strategy.last_info
    assert torch.equal(strategy.defend(replies[1:2]), torch.zeros_like(params))


@pytest.mark.parametrize("knowledge", get_args(Knowledge))
def test_only_those_who_know_the_rule_are_lent_it(clients: Clients, model: nn.Module, knowledge: Knowledge) -> None:
    prober, strategy = Prober(knowledge), Strategy(Median())
    run(Adversary(LocalGrid(clients), prober, 1 / 3, defence=strategy), strategy, model, rounds=2)
    knows_rule, knows_history = knowledge in ("aggregator", "history"), knowledge == "history"
    assert [seen["found"] is not None for seen in prober.seen] == [knows_rule] * 2
    assert [seen["last_delta"] is not None for seen in prober.seen] == [False, knows_history]


@pytest.mark.parametrize("build", [lambda: FedMedian(fraction_evaluate=0.0), lambda: FedAdam(fraction_evaluate=0.0)])
def test_a_strategy_of_flowers_is_tried_on_a_copy(clients: Clients, model: nn.Module, build: Callable[[], Any]) -> None:
    """What the copy makes of the rows that are then sent is what the strategy makes of them, round by round."""
    layout, strategy = clients.layout, build()
    prober = Prober()
    plain = run(LocalGrid(clients), build(), model, rounds=3, seed=1)
    result = run(Adversary(LocalGrid(clients), prober, 1 / 3, defence=strategy), strategy, model, rounds=3, seed=1)
    states = [seen["params"] for seen in prober.seen] + [layout.read(result.arrays).params]
    for seen, before, after in zip(prober.seen, states, states[1:], strict=False):
        torch.testing.assert_close(seen["found"], after - before, rtol=1e-4, atol=1e-6)
    assert prober.aggregator is None
    assert not torch.equal(layout.read(plain.arrays).params, states[-1])


def test_an_attack_on_a_strategy_that_fails_on_trial_is_left_out(clients: Clients, ask: Ask) -> None:
    class Picky(FedMedian):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            raise RuntimeError("not you")

    grid = Adversary(LocalGrid(clients), Prober(), 1 / 3, defence=Picky())
    grid.begin_round(1)
    list(grid.send_and_receive(ask(EVERYBODY)))
    assert grid.round_info()["attack_void"] == 1


def test_an_optimal_attack_finds_what_hurts_flowers_median_most(clients: Clients, model: nn.Module) -> None:
    """Beside the same attack that takes the mean for the rule: at least as far from the honest mean, in every round."""
    moved = []
    for defence in (FedMedian(fraction_evaluate=0.0), None):
        attack = OptimalALIE()
        strategy = FedMedian(fraction_evaluate=0.0)
        run(Adversary(LocalGrid(clients), attack, 1 / 3, defence=defence), strategy, model, rounds=1, seed=1)
        moved.append(attack.last_info)
    assert moved[0]["strength"] != moved[1]["strength"]


def test_an_aggregator_of_the_attackers_own_stays(clients: Clients, model: nn.Module) -> None:
    prober, strategy = Prober(), Strategy(Median())
    prober.aggregator = lambda rows: rows[0]
    run(Adversary(LocalGrid(clients), prober, 1 / 3, defence=strategy), strategy, model, rounds=1)
    assert torch.equal(prober.seen[0]["found"], prober.seen[0]["honest"][0])


def test_an_attack_may_be_shown_less_than_it_could_use(clients: Clients, model: nn.Module) -> None:
    prober, strategy = Prober("history"), Strategy(Median())
    grid = Adversary(LocalGrid(clients), prober, 1 / 3, knowledge="corrupted", defence=strategy)
    run(grid, strategy, model, rounds=2)
    for seen in prober.seen:
        assert torch.equal(seen["honest"], seen["own"])
        assert seen["client_ids"] == sorted(grid.byzantine)
        assert (seen["found"], seen["last_delta"]) == (None, None)


@pytest.mark.parametrize(
    ("attack", "knowledge", "message"),
    [
        (ALIE(), "history", "attack.knowledge must be null or corrupted or honest for ALIE; got history"),
        (ALIE(), "own", "must be null or corrupted or honest for ALIE; got own"),
        (LabelFlip(), "honest", "must be null or own for LabelFlip; got honest"),
    ],
)
def test_nobody_is_shown_what_they_cannot_use(grid: LocalGrid, attack: Attack, knowledge: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Adversary(grid, attack, 0.5, knowledge=knowledge)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("schedule", "rounds"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"start": 4}, [4, 5, 6]),
        ({"stop": 2}, [1, 2]),
        ({"start": 2, "stop": 5, "every": 2}, [2, 4]),
        ({"every": 4}, [1, 5]),
        ({"start": 7}, []),
    ],
)
def test_an_attack_comes_and_goes(clients: Clients, model: nn.Module, schedule: dict[str, int], rounds: list[int]) -> None:
    prober = Prober()
    result = run(Adversary(LocalGrid(clients), prober, 1 / 3, **schedule), Strategy(), model, rounds=6)  # type: ignore[arg-type]
    assert [seen["round"] for seen in prober.seen] == rounds
    attacking = [round for round, value in result.series("attacking", "server") if value]
    assert attacking == (rounds if schedule else [])


def test_between_attacks_data_are_clean(clients: Clients, model: nn.Module, ask: Ask) -> None:
    grid = Adversary(LocalGrid(clients), LabelFlip(num_classes=10), 1 / 3, start=2, stop=2)

    def losses(round: int) -> list[float]:
        return [reply.content["metrics"]["loss"] for reply in grid.send_and_receive(ask(EVERYBODY, round=round))]

    def honest(round: int) -> list[float]:
        return [reply.content["metrics"]["loss"] for reply in LocalGrid(clients).send_and_receive(ask(EVERYBODY, round=round))]

    assert [losses(1), losses(3)] == [honest(1), honest(3)]
    assert losses(2) != honest(2)


@pytest.mark.parametrize("schedule", [{"start": 0}, {"every": 0}, {"start": 5, "stop": 4}])
def test_impossible_schedules(grid: LocalGrid, schedule: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"attack.start and attack.every must be >= 1, attack.stop null or >= start; got"):
        Adversary(grid, SignFlip(), 0.5, **schedule)  # type: ignore[arg-type]


class Stamp(Attack):
    """Attackers share a backdoor: the k-th turns pixel (0, k) white and calls the picture a 3."""

    knowledge = "own"
    distributed = True
    target = 3

    def poison(self, x: Tensor, y: Tensor, *, attacker: int) -> tuple[Tensor, Tensor]:
        x = x.clone()
        x[..., 0, attacker] = 20.0
        return x, torch.full_like(y, self.target)

    def trigger(self, x: Tensor) -> Tensor:
        x = x.clone()
        x[..., 0, :2] = 20.0
        return x

    def __call__(self, honest: Tensor, f: int, *, own: Tensor | None = None, **context: Any) -> Tensor:
        assert own is not None
        return own


def test_attackers_share_a_backdoor_and_its_success_is_measured(clients: Clients, model: nn.Module) -> None:
    result = run(Adversary(LocalGrid(clients), Stamp(), 1 / 3), Strategy(), model, rounds=8)
    success = [value for _, value in result.series("attack_success_rate")]
    assert len(success) == 9
    assert success[0] < 0.5 < 0.95 < success[-1]
    assert result.last("accuracy") > 0.7
    honest = run(LocalGrid(clients), Strategy(), model, rounds=1)
    assert honest.series("attack_success_rate") == []


def test_the_success_of_a_backdoor_is_the_share_of_other_classes_taken_for_its_target(clients: Clients) -> None:
    state = clients.layout.empty()
    state.params.zero_()
    state.params[-10:] = torch.tensor([0.0, 0, 0, 9, 0, 0, 0, 0, 0, 0])  # the biases of a linear model: all is a 3
    assert clients.attack_success(state, lambda x: x, 3) == 1.0
    state.params[-10:] = torch.tensor([9.0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    assert clients.attack_success(state, lambda x: x, 3) == 0.0
    _, y = clients.population.test()
    state.params[0:64] = 0.0
    seen: list[int] = []
    clients.attack_success(state, lambda x: seen.append(len(x)) or x, 3)  # type: ignore[func-returns-value]
    assert seen == [int((y != 3).sum())]


def test_a_rule_that_follows_clients_refuses_mixtures_of_them(clients: Clients, model: nn.Module) -> None:
    class Pairs(PreAggregator):
        def __call__(self, updates: Tensor) -> Tensor:
            return updates.view(3, 2, -1).mean(dim=1)

    with pytest.raises(ConfigError, match="follows clients, but 6 of them became 3 rows before it saw them"):
        Strategy(Counting(), pre_aggregators=[Pairs()]).check(6)


def test_the_clients_behind_the_rows_are_told(clients: Clients, model: nn.Module) -> None:
    rule = Counting()
    run(LocalGrid(clients), Strategy(rule, cohort=3), model, rounds=2)
    assert all(len(ids) == 3 and set(ids) <= set(EVERYBODY) for ids in rule.clients)
