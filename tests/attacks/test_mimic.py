"""Mimic: whom it copies, and what it remembers."""

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedagg import rng
from fedagg.attacks import Mimic
from fedagg.linalg import COLUMNS
from fedagg.saving import encode

from . import reference_search as reference
from .inputs import X5H, matrix, normal


def test_a_fixed_row():
    honest = normal(4, 3)
    for index in range(4):
        sent = Mimic(index=index)(honest, f=3)
        assert torch.equal(sent, honest[index].expand(3, 3))
        sent.zero_()
        assert honest[index].any()
    with pytest.raises(ValueError, match="Mimic needs index < h, the number of honest updates; got h=4, index=4"):
        Mimic(index=4)(honest, f=1)


def first_direction(d, seed=0):
    """The documented start: a normal draw in float64 from the seed, made one long."""
    z = torch.randn(d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (z / z.norm()).tolist()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 5), st.integers(2, 6))
def test_warm_up_against_the_reference(seed, warmup, d, population):
    """Some of the clients are there in each round, the victim not always."""
    rounds = []
    for t in range(6):
        present = [c for c in range(population) if normal(1, seed=seed + 1000 * t + c) < 0.8] or [0]
        rounds.append([(10 * c, (normal(d, seed=c) + 0.3 * normal(d, seed=seed + 50 * t + c)).tolist()) for c in present])
    wanted = reference.mimic(rounds, first_direction(d), warmup)
    attack = Mimic(warmup=warmup)
    for clients, victim in zip(rounds, wanted, strict=True):
        ids, rows = zip(*clients, strict=True)
        sent = attack(matrix(rows), 2, client_ids=ids)
        assert attack.last_info["mimicked"] == victim
        assert torch.equal(sent, matrix([rows[ids.index(victim)]] * 2))


def unlike_others(round):
    """Five clients who agree but for noise, and client 7, who has something of its own along coordinate 2."""
    ids = [1, 3, 4, 7, 8, 9]
    rows = 0.1 * normal(6, 20, seed=round)
    rows[ids.index(7), 2] += 3.0
    return rows, ids


@pytest.mark.parametrize("seed", range(4))
def test_the_client_that_stands_out_is_found_and_followed(seed):
    attack = Mimic(warmup=3)
    attack.generator = torch.Generator().manual_seed(seed)
    for round in range(1, 4):
        honest, ids = unlike_others(round)
        attack(honest, 1, client_ids=ids)
    direction, victim = attack.state_dict()["direction"], attack.state_dict()["victim"]
    assert abs(float(direction[2])) > 0.95
    assert (victim == 7) is bool(direction[2] > 0)  # the other way somebody else is furthest
    for round in range(4, 8):
        honest, ids = unlike_others(round)
        shuffled = normal(6, seed=round).argsort().tolist()
        sent = attack(honest[shuffled], 1, client_ids=[ids[i] for i in shuffled])
        assert torch.equal(sent[0], honest[ids.index(victim)])
        assert attack.state_dict()["victim"] == victim


def test_while_the_victim_is_away_another_is_copied():
    attack = Mimic(warmup=1)
    honest, ids = unlike_others(1)
    attack(honest, 1, client_ids=ids)
    state = attack.state_dict()
    keep = [i for i, client in enumerate(ids) if client != state["victim"]]
    along = [float(honest[i] @ state["direction"]) for i in keep]
    furthest = keep[along.index(max(along))]
    sent = attack(honest[keep], 1, client_ids=[ids[i] for i in keep])
    assert torch.equal(sent[0], honest[furthest])
    assert attack.last_info["mimicked"] == ids[furthest]
    attack(honest, 1, client_ids=ids)
    assert attack.last_info["mimicked"] == state["victim"]


def test_without_ids_rows_are_numbers():
    attack = Mimic(warmup=1)
    attack(matrix(X5H), 1)
    victim = attack.state_dict()["victim"]
    later = normal(4, 2)
    assert torch.equal(attack(later, 1)[0], later[victim])


@pytest.mark.parametrize("calls", [1, 2, 4])
def test_a_run_that_goes_on_copies_the_same(calls):
    attack, resumed = Mimic(warmup=3), Mimic(warmup=3)
    for round in range(calls):
        attack(normal(6, 4, seed=round), 2, client_ids=range(6))
    state = attack.state_dict()
    encode(state, "attack")  # a checkpoint can hold it
    resumed.load_state_dict(state)
    for name in ("mean", "direction"):
        state[name].zero_()  # copies, on either side
    for round in range(calls, calls + 3):
        honest = normal(6, 4, seed=round)
        assert torch.equal(attack(honest, 2, client_ids=range(6)), resumed(honest, 2, client_ids=range(6)))


def test_reset_forgets():
    attack = Mimic(warmup=2)
    first = [attack(normal(6, 4, seed=round), 1) for round in range(4)]
    attack.reset()
    assert attack.state_dict() == {"calls": 0, "mean": None, "direction": None, "victim": None}
    for round in range(4):
        assert torch.equal(attack(normal(6, 4, seed=round), 1), first[round])


def test_the_first_direction_may_come_from_the_seed_tree():
    directions = []
    for seed in (5, 5, 6):
        attack = Mimic(warmup=1)
        with rng.lend_generator(attack, rng.generator(seed, "attack", 1)):
            attack(matrix([[0.0] * 4] * 3), 1)  # no client stands out, so the direction stays as it was drawn
        directions.append(attack.state_dict()["direction"])
        assert attack.generator is None
    assert torch.equal(directions[0], directions[1])
    assert not torch.equal(directions[0], directions[2])
    assert float(directions[0].norm()) == pytest.approx(1.0)


def test_many_columns_are_read_block_by_block():
    """The reference on the columns that differ; all others are equal among clients."""
    d = COLUMNS + 3
    honest = torch.ones(5, d, dtype=torch.float64)
    honest[:, -2:] += normal(5, 2)
    attack = Mimic(warmup=2)
    for _ in range(2):
        attack(honest, 1)
    z = first_direction(d)[-2:]
    rounds = [list(enumerate((honest[:, -2:] - 1.0).tolist()))] * 2
    assert attack.state_dict()["victim"] == reference.mimic(rounds, z, 2)[-1]
    assert not attack.state_dict()["direction"][:-2].any()


def test_clients_who_agree_are_copied_as_they_are():
    honest = torch.ones(3, 4)
    assert torch.equal(Mimic(warmup=2)(honest, 2), torch.ones(2, 4))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e200])
def test_a_broken_client_does_not_spoil_the_memory(value):
    attack, undisturbed = Mimic(warmup=3), Mimic(warmup=3)
    broken = normal(6, 4)
    broken[2, 1] = value
    for round in range(5):
        with pytest.raises(ValueError, match="finite honest updates") if round < 3 else nullcontext():
            attack(broken, 1, client_ids=range(6))
        honest = normal(6, 4, seed=round)
        assert torch.equal(attack(honest, 1, client_ids=range(6)), undisturbed(honest, 1, client_ids=range(6)))
