"""MOON: features of three models, two of them frozen."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from fedagg import Clients, ConfigError, LocalSGD, Population
from fedagg.clients import Moon
from fedagg.clients.local.moon import contrast
from fedagg.models import build
from tests.clients.local.slow import LR, SEED, Slow, close, close_each, every_executor, go, mean, smooth

MU, T = 2.0, 0.5


def test_terms_by_hand() -> None:
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    glob = torch.tensor([[1.0, 1.0], [3.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    previous = torch.tensor([[0.0, 1.0], [0.5, 0.0], [0.0, -7.0]], dtype=torch.float64)
    wanted = [0.2176217216, math.log(2), math.log(1 + math.exp(-4))]  # the last: exp(2) / (exp(2) + exp(-2))
    assert contrast(z, glob, previous, 0.5).tolist() == pytest.approx(wanted, abs=1e-10)


def hidden(model: nn.Module, x: Tensor) -> Tensor:
    return model[:-1](x)  # type: ignore[index,no-any-return]


def reference(slow: Slow, cohorts: list[list[int]]) -> tuple[Tensor, dict[int, Tensor]]:
    w, last = slow.start, dict[int, Tensor]()
    for round, cohort in enumerate(cohorts, start=1):
        ends = []
        for client in cohort:
            y, x = w, slow.population.train(client)[0].double()
            fixed = [hidden(copy.deepcopy(slow.load(vector)), x).detach() for vector in (w, last.get(client, w))]
            for rows in slow.batches(client, round):
                loss, z = slow.loss(client, rows) if slow.load(y) else None, hidden(slow.model, x[rows])
                near, far = (torch.exp(cosine_similarity(z, other[rows]) / T) for other in fixed)
                y = y - LR * slow.slope(loss - MU * torch.log(near / (near + far)).mean())
            last[client] = y
            ends.append(y)
        w = mean(ends)
    return w, last


@every_executor
def test_against_a_loop(population: Population, executor: str) -> None:
    model = smooth()
    found = go(population, model, Moon(mu=MU, temperature=T), executor=executor)
    assert len({client for ids in found.cohorts for client in ids}) == 6
    w, last = reference(Slow(population, model), found.cohorts)
    close(found.params, w)
    close_each(found.remembered("previous"), last)
    assert (
        found.params - go(population, model, LocalSGD(), executor=executor).params
    ).norm() > 0.01  # the term does something


@every_executor
def test_without_the_term_it_is_local_sgd_to_the_bit(population: Population, executor: str) -> None:
    runs = [go(population, smooth(), local, executor=executor, rounds=2) for local in (LocalSGD(), Moon(mu=0.0))]
    assert torch.equal(runs[0].params, runs[1].params)
    assert runs[0].result.rows == runs[1].result.rows


def test_a_first_turn_has_the_loss_and_nothing_more(population: Population) -> None:
    """One step: z, z_glob and z_prev are equal, so the term is log 2, and its two gradients cancel."""
    clients = [Clients(population, smooth(), local, seed=SEED) for local in (LocalSGD(steps=1), Moon(mu=3.0, steps=1))]
    state = clients[0].layout.gather(smooth())
    plain, moon = (each.fit(state, [2], 1) for each in clients)
    assert moon.metrics[0]["loss"] == pytest.approx(plain.metrics[0]["loss"] + 3 * math.log(2), rel=1e-6)
    torch.testing.assert_close(moon.block.updates, plain.block.updates, rtol=1e-4, atol=1e-7)


class Normed(nn.Module):
    """Running statistics, dropout and a frozen weight on the way to the features."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop = nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)
        self.last = nn.Linear(8, 10)
        self.first.bias.requires_grad_(False)

    def features(self, x: Tensor) -> Tensor:
        return self.drop(torch.tanh(self.norm(self.first(x.flatten(1)))))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.features(x))


def test_frozen_models_have_their_own_statistics(population: Population) -> None:
    """What the network makes of other parameters and buffers is what a copy of the model with these makes of the examples."""
    model, x = build(Normed, seed=0), population.train(0)[0]
    clients = Clients(population, model, Moon(), seed=SEED)
    network, layout = clients.engine.executor.network, clients.layout  # type: ignore[attr-defined]
    other = build(Normed, seed=1)
    other(x)
    state = layout.gather(other)
    assert not torch.equal(state.float_buffers, layout.gather(model).float_buffers)
    params = [parameter.detach() for parameter in other.parameters() if parameter.requires_grad]
    network.module.train()
    found = network.frozen(params, state.float_buffers, x)
    torch.testing.assert_close(found, other.eval().features(x))
    assert not found.requires_grad
    assert network.module.training
    assert torch.equal(layout.gather(network.module).float_buffers, layout.gather(model).float_buffers)


def test_statistics_are_remembered_and_counters_stay_whole(population: Population) -> None:
    found = go(population, build(Normed, seed=0), Moon(mu=MU))
    state = found.layout.read(found.result.arrays)
    assert state.int_buffers.dtype == torch.int64
    assert state.int_buffers.tolist() == [4 * 8]
    variances = [slot for slot in found.layout.slots if slot.name == "norm.running_var"]
    assert (found.layout.view(state, variances[0]) > 0).all()
    kept = found.remembered("previous_buffers")
    assert len({tuple(row.tolist()) for row in kept.values()}) == 6


def test_the_frozen_models_cost_no_draw_of_dropout(population: Population) -> None:
    """With a term too small to be seen, dropout masks are those of plain training."""
    runs = [go(population, build(Normed, seed=0), local, rounds=2) for local in (LocalSGD(), Moon(mu=1e-30))]
    torch.testing.assert_close(runs[0].params, runs[1].params, rtol=1e-5, atol=1e-6)


def test_models_without_hidden_features_are_refused(population: Population, model: nn.Module) -> None:
    with pytest.raises(ConfigError, match="this model trains nothing before it; take a model with a hidden layer"):
        Clients(population, model, Moon())
    with pytest.raises(ConfigError, match="what enters the last linear layer, and Sequential has none"):
        Clients(population, nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten()), Moon())


def test_features_of_a_sequence() -> None:
    """[b, t, L] is compared as one vector of t L numbers."""
    z, glob, previous = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    wanted = contrast(z.reshape(4, 30), glob.reshape(4, 30), previous.reshape(4, 30), T)
    assert torch.equal(contrast(z, glob, previous, T), wanted)


@pytest.mark.parametrize("settings", [{"mu": -1}, {"temperature": 0}, {"temperature": None}])
def test_impossible_settings(settings: dict[str, Any]) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(ConfigError, match=f"local.{name} must be a number >=? 0; got {value}"):
        Moon(**settings)
