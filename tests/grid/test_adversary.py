"""Adversary: who is Byzantine, what an attack is shown, and what reaches the server."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message
from torch import Tensor, nn

from fedagg import Adversary, Attack, Clients, ConfigError, FedaggError, LocalGrid, Population, Strategy, run
from fedagg.attacks import ALIE, IPM, GaussianNoise, LabelFlip, NaNAttack, SignFlip
from fedagg.clients import client_app
from fedagg.params import Layout
from strategies import Krum, Median, MultiKrum

Ask = Callable[..., list[Message]]


class Spy(Attack):
    """Sends zeros and remembers what it was shown."""

    def __init__(self, knowledge: str = "honest") -> None:
        self.knowledge = knowledge  # type: ignore[misc]
        self.seen: list[dict[str, Any]] = []

    def __call__(
        self,
        honest: Tensor,
        f: int,
        *,
        own: Tensor | None = None,
        last_delta: Tensor | None = None,
        params: Tensor | None = None,
        round: int = 0,
        client_ids: Sequence[int] | None = None,
    ) -> Tensor:
        self.seen.append(
            {
                "honest": honest,
                "f": f,
                "own": own,
                "last_delta": last_delta,
                "params": params,
                "round": round,
                "ids": client_ids,
            }
        )
        return torch.zeros(f, honest.shape[1])


def deltas(replies: list[Message], model: nn.Module) -> dict[int, Tensor]:
    layout = Layout.of_model(model)
    theta = layout.gather(model).params
    return {r.metadata.src_node_id: layout.read(r.content["arrays"]).params - theta for r in replies}


def test_a_fixed_share_of_the_population_is_byzantine(grid: LocalGrid) -> None:
    adversary = Adversary(grid, SignFlip(), 1 / 3, seed=0)
    assert len(adversary.byzantine) == 2
    assert adversary.byzantine == Adversary(grid, SignFlip(), 1 / 3, seed=0).byzantine
    assert len({Adversary(grid, SignFlip(), 1 / 3, seed=seed).byzantine for seed in range(20)}) > 5
    assert len(Adversary(grid, SignFlip(), 0.25).byzantine) == 2  # 1.5 of 6, rounded to the nearest, up from the half
    assert Adversary(grid, SignFlip(), 0.0).byzantine == frozenset()
    assert len(Adversary(grid, SignFlip(), 1.0).byzantine) == 6


def test_numbers_in_a_cohort_are_hypergeometric(population: Population, model: nn.Module) -> None:
    """Cohorts of 3 of 6, 2 of them Byzantine, 600 rounds: P(0, 1, 2) = (0.2, 0.6, 0.2), sd of a count at most 12. All three
    within 4.5 sd with probability above 0.9999; fixed seed."""
    grid = Adversary(LocalGrid(Clients(population, model)), SignFlip(), 1 / 3, seed=0)
    strategy, counts = Strategy(cohort=3, seed=0), np.zeros(3)
    from flwr.app import ConfigRecord

    layout = Layout.of_model(model)
    arrays = layout.record(layout.gather(model))
    for round in range(1, 601):
        chosen = {message.metadata.dst_node_id for message in strategy.configure_train(round, arrays, ConfigRecord(), grid)}
        counts[len(chosen & grid.byzantine)] += 1
    assert np.abs(counts - [120, 360, 120]).max() < 4.5 * 12


def test_a_fixed_share_of_every_cohort(clients: Clients, ask: Ask) -> None:
    grid = Adversary(LocalGrid(clients), SignFlip(), 0.5, sampling="cohort", seed=0)
    who = []
    for round in range(1, 9):
        list(grid.send_and_receive(ask([0, 2, 3, 5], round=round)))
        assert grid.round_info()["byzantine"] == 2
        assert grid.byzantine <= {0, 2, 3, 5}
        who.append(grid.byzantine)
    assert len(set(who)) > 1


def test_what_is_sent_is_what_the_attack_makes(clients: Clients, model: nn.Module, ask: Ask) -> None:
    honest = deltas(list(LocalGrid(clients).send_and_receive(ask([0, 1, 2, 3, 4, 5]))), model)
    adversary = Adversary(LocalGrid(clients), IPM(epsilon=2.0), 1 / 3, seed=0)
    attacked = deltas(list(adversary.send_and_receive(ask([0, 1, 2, 3, 4, 5]))), model)
    good = [client for client in honest if client not in adversary.byzantine]
    mean = torch.stack([honest[client] for client in good]).mean(0)
    for client in good:
        assert torch.equal(attacked[client], honest[client])
    for client in adversary.byzantine:
        torch.testing.assert_close(attacked[client], -2 * mean, rtol=1e-4, atol=1e-6)


def test_pushing_and_pulling_is_the_same_as_sending(clients: Clients, model: nn.Module, ask: Ask) -> None:
    def make() -> Adversary:
        return Adversary(LocalGrid(clients), ALIE(z=1.0), 1 / 3, seed=0)

    sent = deltas(list(make().send_and_receive(ask([0, 1, 2, 3, 4, 5]))), model)
    grid = make()
    pulled = deltas(list(grid.pull_messages(list(grid.push_messages(ask([5, 4, 3, 2, 1, 0]))))), model)
    assert sent.keys() == pulled.keys()
    assert all(torch.equal(sent[client], pulled[client]) for client in sent)


@pytest.mark.parametrize("knowledge", ["own", "corrupted", "honest", "aggregator", "history"])
def test_an_attack_sees_what_its_knowledge_grants(clients: Clients, model: nn.Module, ask: Ask, knowledge: str) -> None:
    truth = deltas(list(LocalGrid(clients).send_and_receive(ask([0, 1, 2, 3, 4, 5]))), model)
    spy = Spy(knowledge)
    grid = Adversary(LocalGrid(clients), spy, 1 / 3, seed=0)
    list(grid.send_and_receive(ask([0, 1, 2, 3, 4, 5])))
    seen, bad = spy.seen[0], sorted(grid.byzantine)
    good = [client for client in truth if client not in bad]
    if knowledge == "own":
        assert seen["ids"] is None
        assert seen["honest"].shape == (len(good), seen["own"].shape[1])
        assert seen["honest"].isnan().all()
    else:
        shown = bad if knowledge == "corrupted" else good
        assert seen["ids"] == shown
        assert torch.equal(seen["honest"], torch.stack([truth[client] for client in shown]))
    assert torch.equal(seen["own"], torch.stack([truth[client] for client in bad]))
    assert (seen["f"], seen["round"], seen["last_delta"]) == (2, 1, None)
    assert torch.equal(seen["params"], Layout.of_model(model).gather(model).params)


def test_the_last_global_update_is_seen(grid: LocalGrid, model: nn.Module) -> None:
    spy = Spy("history")
    models: list[Tensor] = []
    layout = Layout.of_model(model)

    class Keep(Strategy):
        def configure_train(self, server_round: int, arrays: Any, *rest: Any) -> Any:
            models.append(layout.read(arrays).params.clone())
            return super().configure_train(server_round, arrays, *rest)

    run(Adversary(grid, spy, 1 / 3), Keep(), model, rounds=3)
    assert spy.seen[0]["last_delta"] is None
    for before, now, seen in zip(models, models[1:], spy.seen[1:], strict=False):
        assert torch.equal(seen["last_delta"], now - before)


def test_claimed_examples_and_everything_else_in_the_reply(clients: Clients, ask: Ask) -> None:
    honest = {
        r.metadata.src_node_id: dict(r.content["metrics"]) for r in LocalGrid(clients).send_and_receive(ask([0, 1, 2, 3]))
    }
    grid = Adversary(LocalGrid(clients), SignFlip(), 0.5, num_examples=10**9, seed=0)
    for reply in grid.send_and_receive(ask([0, 1, 2, 3])):
        client, sent = reply.metadata.src_node_id, dict(reply.content["metrics"])
        expected = honest[client] | ({"num-examples": 10**9} if client in grid.byzantine else {})
        assert sent == expected


def test_label_flip_trains_on_flipped_labels(clients: Clients, model: nn.Module, ask: Ask) -> None:
    grid = Adversary(LocalGrid(clients), LabelFlip(num_classes=10), 1 / 3, seed=0)
    attacked = deltas(list(grid.send_and_receive(ask([0, 1, 2, 3, 4, 5]))), model)

    class Flipped(Population):
        def train(self, client: int) -> tuple[Tensor, Tensor]:
            x, y = super().train(client)
            return x, 9 - y if client in grid.byzantine else y

    population = Flipped(clients.population.dataset, clients.population.indices)
    by_hand = deltas(
        list(LocalGrid(Clients(population, model, clients.local)).send_and_receive(ask([0, 1, 2, 3, 4, 5]))), model
    )
    for client in attacked:
        torch.testing.assert_close(attacked[client], by_hand[client], rtol=1e-5, atol=1e-7)


def test_data_out_of_reach_cannot_be_poisoned(clients: Clients, ask: Ask) -> None:
    grid = Adversary(LocalGrid(client_app(clients), num_clients=6), LabelFlip(), 0.5)
    with pytest.raises(FedaggError, match="out of reach of an attack on the data"):
        list(grid.send_and_receive(ask([0, 1, 2, 3])))


def test_the_unknown_model_of_a_foreign_app_can_be_attacked(clients: Clients, model: nn.Module, ask: Ask) -> None:
    ours = Adversary(LocalGrid(clients), IPM(2.0), 1 / 3, seed=0).send_and_receive(ask([0, 1, 2, 3, 4, 5]))
    app = LocalGrid(client_app(clients), num_clients=6)
    theirs = Adversary(app, IPM(2.0), 1 / 3, seed=0).send_and_receive(ask([0, 1, 2, 3, 4, 5]))
    for a, b in zip(deltas(list(ours), model).values(), deltas(list(theirs), model).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_random_attacks_follow_the_seed_tree(clients: Clients, model: nn.Module, ask: Ask) -> None:
    def noise(seed: int, round: int) -> Tensor:
        attack = GaussianNoise(std=1.0)
        grid = Adversary(LocalGrid(clients), attack, 1 / 3, seed=seed)
        rows = deltas(list(grid.send_and_receive(ask([0, 1, 2, 3, 4, 5], round=round))), model)
        assert attack.generator is None
        return torch.stack([rows[client] for client in sorted(grid.byzantine)])

    assert torch.equal(noise(0, 1), noise(0, 1))
    assert not torch.equal(noise(0, 1), noise(0, 2))
    assert not torch.equal(noise(0, 1), noise(1, 1))


@pytest.mark.parametrize("kind", ["nan", "inf", "huge"])
def test_updates_that_are_no_numbers_do_not_reach_the_model(grid: LocalGrid, model: nn.Module, kind: str) -> None:
    result = run(Adversary(grid, NaNAttack(kind), 1 / 3), Strategy(), model, rounds=3)  # type: ignore[arg-type]
    assert result.series("rejected", "server") == [(1, 2.0), (2, 2.0), (3, 2.0)]
    assert result.last() > 0.5


def test_a_cohort_of_attackers_only(clients: Clients, ask: Ask) -> None:
    spy = Spy()
    grid = Adversary(LocalGrid(clients), spy, 1.0)
    list(grid.send_and_receive(ask([1, 4])))
    assert spy.seen[0]["ids"] == [1, 4]  # they only know each other


def test_an_attack_that_is_impossible_in_a_cohort_is_left_out_and_counted(
    clients: Clients, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    grid = Adversary(LocalGrid(clients), ALIE(z=1.0), 0.5)
    pair = [min(grid.byzantine), min({0, 1, 2, 3, 4, 5} - grid.byzantine)]  # one honest client has no standard deviation
    honest = list(LocalGrid(clients).send_and_receive(ask(pair)))
    grid.begin_round(1)
    replies = list(grid.send_and_receive(ask(pair)))
    for a, b in zip(honest, replies, strict=True):
        assert [array.data for array in a.content["arrays"].values()] == [array.data for array in b.content["arrays"].values()]
    assert grid.round_info()["attack_void"] == 1
    assert "no attack, the Byzantine clients send honest updates: ALIE needs h - ddof >= 1" in caplog.text
    grid.begin_round(2)
    assert grid.round_info()["attack_void"] == 0


def test_evaluation_is_not_touched(population: Population, clients: Clients, model: nn.Module, ask: Ask) -> None:
    holding = Population(population.dataset, population.indices, holdout=0.2)
    grid = Adversary(LocalGrid(Clients(holding, model)), Spy(), 0.5)
    replies = list(grid.send_and_receive(ask([0, 1, 2, 3], kind="evaluate")))
    assert [sorted(reply.content["metrics"]) for reply in replies] == [["accuracy", "loss", "num-examples"]] * 4


@pytest.mark.parametrize(("arguments", "message"), [((-0.1,), "in \\[0, 1\\]; got -0.1"), ((1.5,), "in \\[0, 1\\]; got 1.5")])
def test_impossible_fractions(grid: LocalGrid, arguments: tuple[float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Adversary(grid, SignFlip(), *arguments)


def test_unknown_sampling(grid: LocalGrid) -> None:
    with pytest.raises(ConfigError, match="population or cohort; got clients"):
        Adversary(grid, SignFlip(), 0.1, sampling="clients")  # type: ignore[arg-type]


def test_the_weight_a_rule_gives_to_attackers_is_recorded(grid: LocalGrid, model: nn.Module) -> None:
    """Attackers in the middle of the honest rows are the closest company there is; far away nobody picks them."""
    amid = Adversary(grid, ALIE(z=0.0), 1 / 3, seed=0)
    assert run(amid, Strategy(Krum(f=1)), model, rounds=2).series("byzantine_weight", "server") == [(1, 1.0), (2, 1.0)]
    away = Adversary(grid, SignFlip(scale=20.0), 1 / 3, seed=0)
    assert run(away, Strategy(MultiKrum(f=1, m=3)), model, rounds=1).last("byzantine_weight", "server") == 0.0
    everybody = run(away, Strategy(MultiKrum(f=1, m=6)), model, rounds=1)
    assert everybody.last("byzantine_weight", "server") == pytest.approx(2 / 6)
    assert everybody.last("exclusion_recall", "server") == 0.0
    assert everybody.series("exclusion_precision", "server") == []  # nobody was excluded
    for world, rule in ((away, Median()), (grid, Krum(f=1))):  # no weights, no attackers
        assert run(world, Strategy(rule), model, rounds=1).series("byzantine_weight", "server") == []
