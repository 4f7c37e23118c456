"""Server optimizers: goldens, plain Python, torch's own where they are the same, and what they must never touch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from flwr.serverapp import strategy as flower
from torch import Tensor, nn

from fedagg import Clients, ConfigError, LocalGrid, LocalSGD, Population, Strategy, run
from fedagg.checkpoint import Checkpoints
from fedagg.experiment import build
from fedagg.hydra_app import compose
from fedagg.loop import Callback, Round
from fedagg.params import Layout, ModelState
from fedagg.server_optimizers import FedAdagrad, FedAdam, FedAvgM, FedYogi, ServerOptimizer, Step, TorchOptimizer
from tests.test_strategy import one_round

ADAPTIVE = [FedAdagrad(beta1=0.9), FedAdam(), FedYogi(lr=0.1)]
WITH_STATE = [FedAvgM(), *ADAPTIVE]
every_one = pytest.mark.parametrize("optimizer", WITH_STATE, ids=lambda optimizer: type(optimizer).__name__)


def fresh(optimizer: ServerOptimizer) -> ServerOptimizer:
    """An equal one that has not been used."""
    return replace(optimizer)  # type: ignore[type-var]


def path(optimizer: ServerOptimizer, deltas: Tensor, start: Tensor | None = None) -> list[Tensor]:
    """Where ``deltas`` [T, d] lead."""
    params, found = torch.zeros(deltas.shape[1], dtype=deltas.dtype) if start is None else start, []
    for delta in deltas:
        params = optimizer(params, delta)
        found.append(params)
    return found


def draw(rounds: int, d: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(rounds, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


ONE = torch.ones(1, 1, dtype=torch.float64)


@pytest.mark.parametrize(
    ("optimizer", "wanted"),
    [
        (FedAdagrad(lr=0.1, beta1=0.9), 0.0099900050),
        (FedYogi(lr=0.1), 0.0990049999),
        (FedAdam(lr=0.1), 0.0990050489),
        (FedAdagrad(lr=0.1, beta1=0.9, v0=0), 0.0099900100),
        (FedYogi(lr=0.1, v0=0), 0.0990099010),
        (FedAdam(lr=0.1, v0=0), 0.0990099010),
        (FedAdagrad(v0=0), 0.0999000999),  # with its own beta1 = 0: 0.1 / 1.001
    ],
    ids=repr,
)
def test_golden_first_steps(optimizer: ServerOptimizer, wanted: float) -> None:
    assert path(fresh(optimizer), ONE)[0].item() == pytest.approx(wanted, abs=1e-10)


def test_golden_momentum() -> None:
    deltas = torch.tensor([[1.0], [-0.5], [2.0]], dtype=torch.float64)
    assert [params.item() for params in path(FedAvgM(lr=1.0, beta=0.9), deltas)] == pytest.approx([1.0, 1.4, 3.76], abs=1e-12)
    assert [params.item() for params in path(FedAvgM(lr=0.5, beta=0.9), deltas)] == pytest.approx([0.5, 0.7, 1.88], abs=1e-12)


def grown(optimizer: object, v: float, square: float) -> float:
    if isinstance(optimizer, FedAdagrad):
        return v + square
    if isinstance(optimizer, FedYogi):
        return v - (1 - optimizer.beta2) * square * math.copysign(1, v - square)
    assert isinstance(optimizer, FedAdam)
    return optimizer.beta2 * v + (1 - optimizer.beta2) * square


@pytest.mark.parametrize("v0", [None, 0.0, 0.04])
@pytest.mark.parametrize("optimizer", ADAPTIVE, ids=lambda optimizer: type(optimizer).__name__)
def test_against_the_formula(optimizer: FedAdam, v0: float | None) -> None:
    """Thirty rounds of one coordinate in plain Python; aggregates get small, where Yogi and Adam part."""
    optimizer = replace(optimizer, v0=v0, tau=0.02)
    deltas = draw(30, 1) * torch.linspace(2, 0.01, 30, dtype=torch.float64)[:, None]
    w, m, v, wanted = 0.0, 0.0, 0.0004 if v0 is None else v0, []
    for delta in deltas.flatten().tolist():
        m = optimizer.beta1 * m + (1 - optimizer.beta1) * delta
        v = grown(optimizer, v, delta**2)
        w += 0.1 * m / (math.sqrt(v) + 0.02)
        wanted.append(w)
    assert [params.item() for params in path(optimizer, deltas)] == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (FedAvgM(lr=0.3, beta=0.8), partial(torch.optim.SGD, lr=0.3, momentum=0.8)),
        (FedAdagrad(lr=0.3, tau=0.01), partial(torch.optim.Adagrad, lr=0.3, eps=0.01, initial_accumulator_value=0.0001)),
    ],
    ids=["SGD", "Adagrad"],
)
def test_torch_where_it_is_the_same(ours: ServerOptimizer, theirs: Callable[..., torch.optim.Optimizer]) -> None:
    deltas = draw(8, 5)
    for a, b in zip(path(fresh(ours), deltas), path(TorchOptimizer(theirs), deltas), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_adam_of_torch_is_another_one() -> None:
    """It corrects the bias of both moments: its first step is lr, and FedAdam's 0.1 / sqrt(0.01) of that, less tau."""
    theirs = path(TorchOptimizer(partial(torch.optim.Adam, lr=0.1, betas=(0.9, 0.99), eps=1e-3)), ONE)[0].item()
    assert theirs == pytest.approx(0.1 / 1.001, abs=1e-6)
    assert path(FedAdam(lr=0.1), ONE)[0].item() < 0.9915 * theirs


@pytest.mark.parametrize(
    ("theirs", "wanted"),
    [
        (flower.FedAdam(eta=0.1, beta_1=0.9, beta_2=0.99, tau=1e-3), 0.0735108701),
        (flower.FedYogi(eta=0.1, beta_1=0.9, beta_2=0.99, tau=1e-3), 0.0990099010),
        (flower.FedAdagrad(eta=0.1, tau=1e-3), 0.0999001),
    ],
    ids=lambda theirs: type(theirs).__name__ if isinstance(theirs, flower.FedAvg) else "",
)
def test_first_steps_of_flowers_own(theirs: flower.FedAvg, wanted: float) -> None:
    """What docs/weightings.md says of them: FedAdam's correction of the bias is neither the paper's nor torch's."""
    params, _ = one_round(theirs, [[1.0], [1.0]])  # type: ignore[arg-type]
    assert params is not None
    assert params.item() == pytest.approx(wanted, abs=1e-7)


def test_without_memory_it_is_a_step() -> None:
    deltas = draw(4, 3, torch.float32)
    for a, b in zip(path(FedAvgM(lr=0.7, beta=0.0), deltas), path(Step(lr=0.7), deltas), strict=True):
        assert torch.equal(a, b)


@every_one
def test_state_goes_on_to_the_bit(optimizer: ServerOptimizer) -> None:
    optimizer = fresh(optimizer)
    assert optimizer.state_dict() == {}
    deltas = draw(6, 4, torch.float32)
    whole = path(fresh(optimizer), deltas)
    middle = path(optimizer, deltas[:3])[-1]
    saved = optimizer.state_dict()
    kept = {name: moment.clone() for name, moment in saved.items()}
    for moment in optimizer.state_dict().values():
        moment.fill_(7)  # of a copy
    assert torch.equal(path(optimizer, deltas[3:], middle)[-1], whole[-1])
    assert all(torch.equal(saved[name], kept[name]) for name in kept)
    other = fresh(optimizer)
    other.load_state_dict(saved)
    for moment in saved.values():
        moment.fill_(7)
    assert torch.equal(path(other, deltas[3:], middle)[-1], whole[-1])
    other.reset()
    assert other.state_dict() == {}
    assert torch.equal(path(other, deltas)[-1], whole[-1])
    other.load_state_dict({})
    assert torch.equal(path(other, deltas)[-1], whole[-1])


@every_one
def test_manners(optimizer: ServerOptimizer) -> None:
    optimizer = fresh(optimizer)
    params, delta = torch.ones(3), torch.tensor([1.0, 0.0, -2.0])
    new = optimizer(params, delta)
    assert new.dtype == torch.float32
    assert new.isfinite().all()
    assert params.tolist() == [1.0, 1.0, 1.0]
    assert delta.tolist() == [1.0, 0.0, -2.0]
    assert new[1] == 1.0
    again = optimizer.state_dict()
    new.fill_(7)
    assert all(torch.equal(moment, again[name]) for name, moment in optimizer.state_dict().items())
    assert eval(repr(optimizer)) == optimizer


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FedAvgM(beta=1.0), r"server_optimizer.beta must lie in \[0, 1\); got 1.0"),
        (lambda: FedAdam(beta1=-0.1), r"server_optimizer.beta1 must lie in \[0, 1\); got -0.1"),
        (lambda: FedYogi(beta2=1.0), r"server_optimizer.beta2 must lie in \[0, 1\); got 1.0"),
        (lambda: FedAdagrad(lr=0.0), "the server's learning rate must be > 0; got 0.0"),
        (lambda: FedAdam(tau=0.0), "FedAdam needs tau > 0 and v0 >= 0, or v0=None; got tau=0.0, v0=None"),
        (lambda: FedAdagrad(v0=-1.0), "got tau=0.001, v0=-1.0"),
    ],
)
def test_impossible_settings(make: Callable[[], ServerOptimizer], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("fedavgm", FedAvgM(lr=1.0, beta=0.9)),
        ("fedadagrad", FedAdagrad(lr=0.1, beta1=0.0, tau=1e-3)),
        ("fedyogi", FedYogi(lr=0.01, beta1=0.9, beta2=0.99, tau=1e-3)),
        ("fedadam", FedAdam(lr=0.1, beta1=0.9, beta2=0.99, tau=1e-3)),
    ],
)
def test_configs(name: str, wanted: ServerOptimizer) -> None:
    strategy = build(compose(["model=logistic_regression", f"server_optimizer={name}"])).strategy
    assert isinstance(strategy, Strategy)
    assert strategy.server_optimizer == wanted


# In a run


class Normed(nn.Module):
    """A model with running statistics: floats, and an integer count of batches."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.last = nn.BatchNorm1d(64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(x.flatten(1)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("optimizer", [Step(), *WITH_STATE], ids=lambda optimizer: type(optimizer).__name__)
def test_buffers_are_left_alone(population: Population, optimizer: ServerOptimizer) -> None:
    """After one round from the same model every server has the same buffers, however far it moved the parameters."""
    model = Normed()
    layout = Layout.of_model(model)

    def after(optimizer: ServerOptimizer, rounds: int) -> ModelState:
        clients = Clients(population, model, LocalSGD(), seed=0)
        result = run(LocalGrid(clients), Strategy(server_optimizer=optimizer), model, rounds)
        state = layout.read(result.arrays)
        return ModelState(state.params, state.float_buffers, state.int_buffers)

    plain, found = after(Step(), 1), after(fresh(optimizer), 1)
    assert torch.equal(found.float_buffers, plain.float_buffers)
    assert torch.equal(found.int_buffers, plain.int_buffers)
    later = after(fresh(optimizer), 6)
    assert later.int_buffers.dtype == torch.int64
    variance = next(slot for slot in layout.slots if slot.name == "norm.running_var")
    assert (later.float_buffers[variance.offset : variance.offset + variance.size] >= 0).all()


class StopAfter(Callback):
    def __init__(self, round: int) -> None:
        self.round = round

    def round_finished(self, done: Round) -> None:
        self.paused = done.round == self.round


@every_one
def test_a_run_goes_on_to_the_bit(clients: Clients, model: nn.Module, optimizer: ServerOptimizer, tmp_path: Path) -> None:
    def go(folder: Path | None, *callbacks: Callback) -> Tensor:
        checkpoints = None if folder is None else Checkpoints(folder, every=1)
        strategy = Strategy(server_optimizer=fresh(optimizer), cohort=3)
        result = run(LocalGrid(clients), strategy, model, 4, callbacks=callbacks, checkpoints=checkpoints)
        return clients.layout.read(result.arrays).params.clone()

    whole = go(None)
    stopped = go(tmp_path, StopAfter(2))
    assert not torch.equal(stopped, whole)
    assert torch.equal(go(tmp_path), whole)
