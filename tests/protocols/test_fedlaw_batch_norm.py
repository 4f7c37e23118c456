"""FedLAW and running statistics: which are used while it learns, and which the new model gets."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedagg import Clients, LocalGrid, LocalSGD, Population, run
from fedagg.data import Dataset, Dirichlet
from fedagg.params import ModelState
from strategies import FedLAW
from tests.protocols.fedlaw_inputs import CLASSES, FEATURES, Normalised, cohort_of, loaded, made, proxy


def moved_statistics(model: nn.Module, params: list[Tensor], batches: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Running mean and variance after these models saw these batches, by the definition."""
    mean, variance = torch.zeros(6), torch.ones(6)
    for flat, x in zip(params, batches, strict=True):
        hidden = loaded(model, flat)[0](x)  # type: ignore[index]
        mean = 0.9 * mean + 0.1 * hidden.mean(dim=0)
        variance = 0.9 * variance + 0.1 * hidden.var(dim=0, unbiased=True)
    return mean.detach(), variance.detach()


def test_running_statistics_are_those_of_the_proxy() -> None:
    """A rate so low that the merged model stays where it is: five passes over the whole proxy."""
    model, (x, y) = made(Normalised), proxy()
    cohort = cohort_of(model)
    strategy = FedLAW(model, (x, y), epochs=5, lr=1e-12)
    step = strategy.aggregate(cohort)
    clients = {"float_buffers": torch.full((12,), 7.0), "int_buffers": torch.tensor([9])}
    merged = strategy.buffers(clients)
    mean, variance = moved_statistics(model, [cohort.params + step] * 5, [x] * 5)
    torch.testing.assert_close(merged["float_buffers"], torch.cat([mean, variance]), rtol=1e-4, atol=1e-5)
    assert merged["int_buffers"].tolist() == [5]
    assert FedLAW(model, (x, y), batch_norm="average").buffers(clients) is clients


def test_a_round_goes_on_from_the_statistics_that_were_sent() -> None:
    model = made(Normalised)
    strategy = FedLAW(model, proxy(), epochs=5)
    cohort = cohort_of(model)
    strategy._state = ModelState(cohort.params, torch.full((12,), 100.0), torch.tensor([40]))
    strategy.aggregate(cohort)
    merged = strategy.buffers({})
    assert merged["int_buffers"].tolist() == [45]
    assert 50 < merged["float_buffers"].mean() < 70  # 100 * 0.9^5, and what the proxy adds


def test_either_way_the_statistics_of_the_batch_are_used() -> None:
    """Running statistics that are far off change nothing of what is learned, nor of what is said about it."""
    model, steps, losses = made(Normalised), [], []
    for batch_norm in ("refresh", "average"):
        for start in (0.0, 100.0):
            strategy, cohort = FedLAW(model, proxy(), batch_norm=batch_norm), cohort_of(model)
            strategy._state = ModelState(cohort.params, torch.full((12,), start), torch.tensor([0]))
            steps.append(strategy.aggregate(cohort))
            losses.append((strategy.last_info["proxy_loss_before"], strategy.last_info["proxy_loss_after"]))
    assert all(torch.equal(step, steps[0]) for step in steps)
    assert set(losses) == {losses[0]}


def test_averaged_statistics_count_as_much_as_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(3)
    x, y = draw.normal(size=(60, FEATURES)).astype(np.float32), draw.integers(0, CLASSES, 60)
    data = Dataset("noise", x, y, x[:5], y[:5], CLASSES, source="drawn")
    model, sent = made(Normalised), {}
    grid = LocalGrid(Clients(Population.split(data, Dirichlet(0.5), num_clients=3, seed=0), model, LocalSGD(lr=0.1), seed=0))
    ask = grid.send_and_receive

    def listen(*args: Any, **kwargs: Any) -> Any:
        replies = list(ask(*args, **kwargs))
        for reply in replies:
            arrays = reply.content["arrays"]
            sent[reply.metadata.src_node_id] = torch.tensor(arrays["1.running_mean"].numpy())
        return replies

    monkeypatch.setattr(grid, "send_and_receive", listen)
    strategy = FedLAW(model, proxy(), batch_norm="average", lr=0.2)
    arrays = run(grid, strategy, model, rounds=1).arrays
    lam = strategy.last_info["lam"]
    assert max(lam.values()) > 0.6
    wanted = sum(lam[client] * sent[client] for client in sent)
    torch.testing.assert_close(torch.tensor(arrays["1.running_mean"].numpy()), wanted)


def test_a_run_with_batch_normalisation(dataset: Any) -> None:
    """The statistics that are left behind: of the proxy, or the clients', weighted by what was learned."""
    population = Population.split(dataset, Dirichlet(0.3), num_clients=5, seed=0, trusted=100)
    model = made(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10)))
    x, y = dataset.features(dataset.x_train[population.trusted]), torch.tensor(dataset.y_train[population.trusted])
    left: dict[str, Mapping[str, Tensor]] = {}
    for batch_norm in ("refresh", "average"):
        grid = LocalGrid(Clients(population, model, LocalSGD(lr=0.1), seed=0))
        strategy = FedLAW(model, (x, y), batch_norm=batch_norm)
        result = run(grid, strategy, model, rounds=6)
        assert result.last() > 0.6
        left[batch_norm] = {name: torch.from_numpy(result.arrays[name].numpy()) for name in result.arrays}
    hidden = functional.linear(x.flatten(1), left["refresh"]["1.weight"], left["refresh"]["1.bias"])
    apart = {name: (state["2.running_mean"] - hidden.mean(dim=0)).abs().mean() for name, state in left.items()}
    assert left["refresh"]["2.num_batches_tracked"] == 6 * 20  # one batch of 100 an epoch, and the clients' do not count
    assert apart["refresh"] < apart["average"]
