"""Attacks on rankings: by hand, against plain loops, and what they are handed and replace in a run."""

import pytest
import torch
from flwr.app import ArrayRecord, Message
from torch import Tensor, nn

from fedagg import Adversary, Attack, Clients, ConfigError, EdgePopup, LocalGrid, LocalSGD, Population, Strategy, run
from fedagg.attacks import ALIE, IPM, ROP, Backdoor, GaussianNoise, LabelFlip, Mimic, NaNAttack, Ranked, RankReversal, SignFlip
from fedagg.clients.app import arrays_of, rankings_of
from fedagg.grid.base import WorldGrid
from fedagg.models import build, mlp
from fedagg.testing import check_attack
from strategies import FRL

HONEST = torch.tensor([[5, 3, 1, 4, 2, 0], [4, 3, 1, 5, 2, 0], [5, 1, 2, 3, 4, 0]])
ATTACKS = [
    RankReversal(),
    RankReversal(pool=2),
    Ranked(),
    Ranked(ALIE()),
    Ranked(IPM(epsilon=5.0)),
    Ranked(SignFlip(of="own")),
    Ranked(GaussianNoise(std=30.0)),
    Ranked(NaNAttack()),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_the_contract(attack: Attack) -> None:
    check_attack(attack)


def test_reversal_by_hand() -> None:
    """Sums of positions 15 5 10 5 7 3: the largest first, and of the two fives edge 1 before edge 3."""
    assert RankReversal()(HONEST, f=2).tolist() == [[0, 2, 4, 1, 3, 5]] * 2
    assert RankReversal(pool=1)(HONEST, f=1).tolist() == [[0, 2, 4, 1, 3, 5]]
    assert RankReversal(pool=1)(HONEST[1:], f=1).tolist() == [[0, 2, 5, 1, 3, 4]]
    assert RankReversal(pool=9)(HONEST, f=1).tolist() == [[0, 2, 4, 1, 3, 5]]


@pytest.mark.parametrize("seed", range(10))
def test_reversal_against_a_loop(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    rankings = torch.stack([torch.randperm(9, generator=draw) for _ in range(4)])
    sums = [sum(row.index(edge) for row in rankings.tolist()) for edge in range(9)]
    assert RankReversal()(rankings, f=1)[0].tolist() == sorted(range(9), key=lambda edge: (-sums[edge], edge))


@pytest.mark.parametrize("pool", [0, -1, 2.0, True])
def test_pool(pool: int) -> None:
    with pytest.raises(ValueError, match="RankReversal needs an integer pool >= 1, or None for all; got pool="):
        RankReversal(pool=pool)


def test_rows_that_are_no_rankings() -> None:
    for attack in (RankReversal(), Ranked()):
        with pytest.raises(ValueError, match=r"needs rankings, each row a permutation of 0 \.\. 5, as strategy=frl has them"):
            attack(torch.randn(3, 6, generator=torch.Generator().manual_seed(0)), f=1)


def test_an_attack_on_places_by_hand() -> None:
    """Received 0 1 2 3. Clients have positions 1 2 0 3 and 0 2 1 3, so they moved edges by 1 1 -2 0 and 0 1 -1 0.

    Twice the opposite of the mean is -1 -2 3 0, on 0 1 2 3 that is -1 -1 5 3: edge 0 before edge 1, as they tie.
    """
    honest = torch.tensor([[2, 0, 1, 3], [0, 2, 1, 3]])
    attack = Ranked(SignFlip(scale=2.0))
    assert attack(honest, f=2, params=torch.arange(4)).tolist() == [[0, 1, 3, 2]] * 2
    # from 3 2 1 0 they moved by -2 0 -1 3 and -3 0 0 3; on 3 2 1 0 the opposite, 2.5 0 .5 -3, is 5.5 2 1.5 -3
    assert Ranked(SignFlip())(honest, f=1, params=torch.tensor([3, 2, 1, 0])).tolist() == [[3, 2, 1, 0]]


def test_what_cannot_be_ranked_comes_last() -> None:
    assert Ranked(NaNAttack())(HONEST, f=1).tolist() == [[0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (ROP(), "honest updates at most; ROP knows 'history'"),
        (Mimic(), "without state; Mimic has some"),
        (LabelFlip(), "an attack on updates; got LabelFlip"),
        (RankReversal(), "an attack on updates; got RankReversal"),
        (None, "an attack on updates; got None"),
    ],
)
def test_attacks_that_cannot_be_carried_over(attack: Attack, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ranked(attack)


# In a run


class Tap(WorldGrid):
    """Notes the rankings in the replies that pass, by round and client."""

    def __init__(self, grid: object) -> None:
        super().__init__(grid)  # type: ignore[arg-type]
        self.seen: list[dict[int, Tensor]] = []
        self.asked: list[list[int]] = []

    def send_and_receive(self, messages: list[Message], *, timeout: float | None = None) -> list[Message]:  # type: ignore[override]
        messages = list(messages)
        replies = list(super().send_and_receive(messages, timeout=timeout))
        sizes = {name: array.shape[0] for name, array in arrays_of(messages[0]).items()}
        self.asked.append([message.metadata.dst_node_id for message in messages])
        self.seen.append({reply.metadata.src_node_id: rankings_of(arrays_of(reply), sizes).long() for reply in replies})
        return replies


@pytest.fixture(name="net", scope="module")
def _net() -> nn.Module:
    return build(lambda: mlp((1, 8, 8), 10, hidden=(6,), bias=False), seed=0)


LAYERS = [slice(0, 384), slice(384, 444)]


def world(population: Population, net: nn.Module, attack: Attack, rounds: int = 1, **settings: object) -> tuple[Tap, Tap]:
    """Run FRL with half of the clients Byzantine; return what they really found, and what reached the server."""
    inner = Tap(LocalGrid(Clients(population, net, EdgePopup(epochs=1, batch_size=32), seed=0)))
    outer = Tap(Adversary(inner, attack, 0.5, seed=1, **settings))  # type: ignore[arg-type]
    run(outer, FRL(cohort=4), net, rounds, seed=0)
    return inner, outer


def test_a_reversal_replaces_the_rankings_of_byzantine_clients_layer_by_layer(population: Population, net: nn.Module) -> None:
    inner, outer = world(population, net, RankReversal(), rounds=2)
    byzantine = sorted(outer.byzantine)
    for found, sent in zip(inner.seen, outer.seen, strict=True):
        assert sorted(found) == sorted(sent)
        liars = [client for client in sorted(found) if client in byzantine]
        assert 0 < len(liars) < 4
        for layer in LAYERS:
            wanted = RankReversal()(torch.stack([found[client][layer] for client in liars]), f=1)[0]
            for client, ranking in sent.items():
                assert torch.equal(ranking[layer], wanted if client in liars else found[client][layer])


def test_a_pool_lets_attackers_train_that_were_not_asked(population: Population, net: nn.Module) -> None:
    inner, outer = world(population, net, RankReversal(pool=3), rounds=2)
    byzantine = sorted(outer.byzantine)
    assert len(byzantine) == 3
    for asked, found, reached, sent in zip(inner.asked, inner.seen, outer.asked, outer.seen, strict=True):
        assert len(reached) == len(sent) == 4
        assert sorted(asked) == sorted({*reached, *byzantine})  # all of them, and nobody twice
        for layer in LAYERS:
            wanted = RankReversal()(torch.stack([found[client][layer] for client in byzantine]), f=1)[0]
            assert all(torch.equal(sent[client][layer], wanted) for client in byzantine if client in reached)


def test_nobody_helps_in_a_round_without_attack(population: Population, net: nn.Module) -> None:
    inner, outer = world(population, net, RankReversal(pool=3), rounds=2, start=2)
    assert inner.asked[0] == outer.asked[0]
    assert len(inner.asked[1]) > len(outer.asked[1])
    assert all(torch.equal(outer.seen[0][client], ranking) for client, ranking in inner.seen[0].items())


def test_an_attack_on_places_sees_what_clients_received(population: Population, net: nn.Module) -> None:
    inner, outer = world(population, net, Ranked(IPM(epsilon=3.0)), rounds=2)
    (found, second), (sent, _) = inner.seen, outer.seen
    byzantine = [client for client in sorted(found) if client in outer.byzantine]
    honest = [client for client in sorted(found) if client not in outer.byzantine]
    for layer in LAYERS:
        start = EdgePopup().trains(net, 0).state_dict()
        scores = torch.cat([values.flatten() for values in start.values()])[layer]
        received = scores.argsort(stable=True)
        wanted = Ranked(IPM(epsilon=3.0))(
            torch.stack([found[client][layer] for client in honest]), len(byzantine), params=received
        )
        for client, row in zip(byzantine, wanted, strict=True):
            assert torch.equal(sent[client][layer], row)
    assert len(second) == 4


def test_an_attack_that_knows_its_own_alone_sees_nothing_else(population: Population, net: nn.Module) -> None:
    inner, outer = world(population, net, Ranked(SignFlip(of="own", scale=0.0)))
    start = torch.cat([values.flatten() for values in EdgePopup().trains(net, 0).state_dict().values()])
    for client, ranking in outer.seen[0].items():
        for layer in LAYERS:
            received = start[layer].argsort(stable=True)  # its update is zero places
            assert torch.equal(ranking[layer], received if client in outer.byzantine else inner.seen[0][client][layer])


def test_poisoned_data_reach_the_rankings(population: Population, net: nn.Module) -> None:
    _, peace = world(population, net, Backdoor(fraction=0.0))
    _, flipped = world(population, net, LabelFlip())
    for client, ranking in flipped.seen[0].items():
        assert torch.equal(ranking, peace.seen[0][client]) == (client not in flipped.byzantine)


@pytest.mark.parametrize("attack", [SignFlip(), ALIE(), NaNAttack()])
def test_an_attack_on_updates_is_refused_before_the_first_round(
    population: Population, net: nn.Module, attack: Attack
) -> None:
    clients = Clients(population, net, EdgePopup(), seed=0)
    clients.fit = None  # type: ignore[assignment, method-assign]
    with pytest.raises(ConfigError, match=r"makes updates, and clients of FRL send rankings; take attack=rank_reversal, or"):
        run(Adversary(LocalGrid(clients), attack, 0.2), FRL(), net, 1)


def test_an_attack_on_rankings_is_refused_where_clients_send_updates(population: Population, net: nn.Module) -> None:
    grid = Adversary(LocalGrid(Clients(population, net, LocalSGD(), seed=0)), RankReversal(), 0.2)
    with pytest.raises(
        ConfigError, match=r"RankReversal makes rankings, and clients of Strategy send updates; take strategy=frl"
    ):
        run(grid, Strategy(), net, 1)


def test_a_client_that_sends_no_ranking_is_nobodys_to_forge(population: Population, net: nn.Module) -> None:
    """Neither does it stop the attack of the others, nor does it reach the vote."""

    class Broken(Tap):
        def send_and_receive(self, messages: list[Message], *, timeout: float | None = None) -> list[Message]:  # type: ignore[override]
            replies = super().send_and_receive(messages, timeout=timeout)
            record = arrays_of(replies[0])
            name = next(iter(record))
            replies[0].content["arrays"] = ArrayRecord({**record, name: record["3.scores"]})
            return replies

    broken = Broken(LocalGrid(Clients(population, net, EdgePopup(epochs=1, batch_size=32), seed=0)))
    strategy = FRL()
    result = run(Adversary(broken, RankReversal(), 0.5, seed=1), strategy, net, 1, seed=0)
    assert result.series("rejected", "server") == [(1, 1.0)]
    assert strategy.last_info["rejected"] == {0: "array 1.scores is no permutation of 0 .. 383"}
    assert result.series("clients", "server") == [(1, 5.0)]
