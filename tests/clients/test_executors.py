"""Both executors against a slow reference and against each other: every local algorithm, models of all kinds, uneven data.

Rows agree to 1e-5 of their length, losses to 1e-5. float32 carries 6e-8; a few steps of a small network multiply that by less
than a hundred.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fedagg.clients
from fedagg import Clients, LocalSGD, Population
from fedagg.attacks import LabelFlip
from fedagg.clients import Ditto, EdgePopup, FedBN, FedDyn, FedProx, Moon, Scaffold, WorkerMomentum
from fedagg.clients.local import LocalTraining
from fedagg.data import Dataset
from fedagg.params import Layout
from tests.clients import reference
from tests.clients.conftest import ROUND, SIZES, Fit
from tests.clients.models import NAMES, model_and_twin

EXECUTORS = ["one_at_a_time", "batched"]
TOLERANCE = 1e-5
LOCALS = {
    "one epoch": LocalSGD(lr=0.1),
    "momentum and weight decay": LocalSGD(lr=0.05, momentum=0.9, weight_decay=0.01, epochs=2),
    "momentum": LocalSGD(lr=0.05, momentum=0.7, epochs=2),
    "weight decay": LocalSGD(lr=0.1, weight_decay=0.1),
    "small batches": LocalSGD(lr=0.05, batch_size=10, epochs=2),
    "worker momentum": WorkerMomentum(lr=0.1, beta=0.5),
    "single examples": LocalSGD(lr=0.01, batch_size=1),
    "all at once": LocalSGD(lr=0.2, batch_size=1000, epochs=3),
}
CORRECTED = [  # what changes steps; each has its reference in tests/clients/local
    FedProx(lr=0.05, mu=0.5, momentum=0.5, batch_size=16),
    Scaffold(lr=0.05, batch_size=16),
    FedDyn(lr=0.05, alpha=0.2, clip_norm=1.0, batch_size=16),
    Moon(lr=0.05, mu=2.0, batch_size=16),
    FedBN(lr=0.05, batch_size=16),
    Ditto(lr=0.05, lam=0.5, batch_size=16),
]


def apart(a: Tensor, b: Tensor) -> float:
    """The largest distance between two rows, as a share of the length of the second."""
    return float(((a - b).norm(dim=-1) / b.norm(dim=-1)).max())


def concrete_locals() -> set[type]:
    """Every local algorithm that the package ships."""
    for module in pkgutil.iter_modules(fedagg.clients.__path__, "fedagg.clients."):
        importlib.import_module(module.name)
    found, waiting = set(), [LocalTraining]
    while waiting:
        kinds = waiting.pop().__subclasses__()
        waiting += kinds
        found |= {kind for kind in kinds if kind.__module__.startswith("fedagg.") and not kind.__abstractmethods__}
    return found


def test_every_local_algorithm_is_compared() -> None:
    """EdgePopup, which makes another model of each of these, in its own file."""
    assert {type(local) for local in [*LOCALS.values(), *CORRECTED]} == concrete_locals() - {EdgePopup}


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("algorithm", LOCALS)
def test_rows_and_metrics_are_those_of_the_reference(
    fit: Fit, uneven: Population, executor: str, name: str, algorithm: str
) -> None:
    model, twin = model_and_twin(name)
    local = LOCALS[algorithm]
    ids = [1, 3, 4, 6] if "dropout" in name and algorithm != "one epoch" else range(len(SIZES))  # the reference takes seconds
    done = fit(executor, model, local, ids=ids)
    assert done.training.client_ids == list(ids)
    assert done.training.num_examples == [SIZES[client] for client in ids]
    assert all(done.training.finite)
    for row, client in enumerate(ids):
        update, loss = reference.train(twin, local, *uneven.train(client), seed=11, round=ROUND, client=client)
        assert apart(done.rows[row], update) < TOLERANCE
        metrics = done.training.metrics[row]
        assert metrics["loss"] == pytest.approx(loss, rel=TOLERANCE)
        assert metrics["local_steps"] == local.epochs * -(-SIZES[client] // local.batch_size)


@pytest.mark.parametrize("name", NAMES)
def test_the_executors_agree_and_leave_constant_buffers_alone(fit: Fit, name: str) -> None:
    model, _ = model_and_twin(name)
    local = LocalSGD(lr=0.1, epochs=2, batch_size=16, momentum=0.5)
    one, many = (fit(executor, model, local) for executor in EXECUTORS)
    assert apart(many.rows, one.rows) < TOLERANCE
    state = Layout.of_model(model).gather(model)
    for done in (one, many):
        for kind in ("float_buffers", "int_buffers"):
            rows = getattr(done.training.block, kind)
            assert torch.equal(rows, getattr(state, kind).expand_as(rows))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("local", CORRECTED, ids=lambda local: type(local).__name__)
def test_the_executors_agree_on_what_is_remembered_and_received(uneven: Population, local: LocalSGD, name: str) -> None:
    """From memories of noise; seven clients with one to five steps, the last uneven; constant buffers stay constant."""
    model, _ = model_and_twin(name)
    if isinstance(local, FedBN) and not any(isinstance(layer, nn.GroupNorm) for layer in model.modules()):
        pytest.skip("nothing to keep")
    if isinstance(local, Moon) and name == "logistic regression":
        pytest.skip("no features")
    draw, found = torch.Generator().manual_seed(1), []
    state = Layout.of_model(model).gather(model)
    first = local.prepared(model, Layout.of_model(model)).first(state)
    noise = {
        name: 0.0 if "buffers" in name else 0.05 * torch.randn(len(SIZES), len(first[name]), generator=draw) for name in first
    }
    kept = {name: vector.expand(len(SIZES), -1) + noise[name] for name, vector in first.items()}
    received = {name: 0.05 * torch.randn(len(state.params), generator=draw) for name in local.receives}
    before = {name: vector.clone() for name, vector in kept.items()}
    for executor in EXECUTORS:
        clients = Clients(uneven, model, local, seed=11, executor=executor)
        assert clients.engine.name == executor
        done = clients.fit(state, range(len(SIZES)), ROUND, kept=kept, received=received)
        assert all(done.finite)
        assert all(torch.equal(kept[name], before[name]) for name in kept)
        kinds = {"rows": done.block.updates, **{f"kept {name}": rows for name, rows in done.kept.items()}, **done.extras}
        found.append({name: rows.clone() for name, rows in kinds.items() if rows.numel()})
    assert found[0].keys() == found[1].keys()
    for name, rows in found[0].items():
        assert apart(found[1][name], rows) < 5 * TOLERANCE, name  # a control variate is a difference, divided by K lr


@pytest.mark.parametrize("name", ["mlp", "dropout"])
def test_a_client_is_the_same_alone_and_in_any_company(fit: Fit, name: str) -> None:
    model, _ = model_and_twin(name)
    local = LocalSGD(lr=0.1, batch_size=8)
    alone = fit("batched", model, local, ids=[4]).rows[0]
    for ids in ([1, 4, 6], range(7)):
        for batch in (2, 3, 7):
            among = fit("batched", model, local, ids=ids, batch=batch).rows[list(ids).index(4)]
            assert apart(among, alone) < TOLERANCE


@pytest.mark.parametrize("executor", EXECUTORS)
def test_the_matrix_may_hold_more_rows_than_clients_and_serve_again(fit: Fit, executor: str) -> None:
    model, _ = model_and_twin("mlp")
    done = fit(executor, model)
    state, clients = Layout.of_model(model).gather(model), done.clients
    first = done.rows.clone()
    clients.fit(state, [0, 1], 8)
    assert torch.equal(clients.fit(state, range(7), ROUND).block.updates, first)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_poison_changes_its_client_only(fit: Fit, uneven: Population, executor: str) -> None:
    model, twin = model_and_twin("logistic regression")
    flip = LabelFlip(num_classes=10).poison
    clean, poisoned = fit(executor, model), fit(executor, model, poison={2: flip})
    others = [0, 1, 3, 4, 5, 6]
    assert torch.equal(poisoned.rows[others], clean.rows[others])
    x, y = uneven.train(2)
    update, _ = reference.train(twin, LocalSGD(), x, 9 - y, seed=11, round=ROUND, client=2)
    assert apart(poisoned.rows[2], update) < TOLERANCE


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_client_whose_data_cannot_be_read_has_no_row(fit: Fit, uneven: Population, executor: str) -> None:
    class Broken(Population):
        def train(self, client_id: int) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            if client_id == 3:
                raise OSError("unreadable")
            return super().train(client_id)

    model, _ = model_and_twin("mlp")
    done = fit(executor, model, population=Broken(uneven.dataset, uneven.indices))
    assert done.training.client_ids == [0, 1, 2, 4, 5, 6]
    assert list(done.training.errors) == [3]
    assert "OSError: unreadable" in str(done.training.errors[3])
    assert apart(done.rows, fit(executor, model, ids=[0, 1, 2, 4, 5, 6]).rows) < TOLERANCE


def test_a_group_that_fails_names_the_client_and_says_so_once(
    fit: Fit, uneven: Population, caplog: pytest.LogCaptureFixture
) -> None:
    def class_ten(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x, y + 10

    model, _ = model_and_twin("dropout")
    done = fit("batched", model, poison={3: class_ten}, batch=5)
    assert done.training.client_ids == [0, 1, 2, 4, 5, 6]
    assert list(done.training.errors) == [3]
    assert "IndexError" in str(done.training.errors[3])
    assert apart(done.rows, fit("batched", model, ids=[0, 1, 2, 4, 5, 6]).rows) < TOLERANCE
    done.clients.fit(Layout.of_model(model).gather(model), range(7), 9, {3: class_ten})
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage().split(":")[0] for record in warned] == [
        "5 clients trained one at a time, because together they fail"
    ]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_client_that_diverges_is_marked_and_touches_nobody(fit: Fit, executor: str) -> None:
    def infinite(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x = x.clone()
        x[0] = torch.inf
        return x, y

    model, _ = model_and_twin("mlp")
    done = fit(executor, model, LocalSGD(batch_size=8), poison={2: infinite})
    assert done.training.finite == [client != 2 for client in range(7)]
    others = [0, 1, 3, 4, 5, 6]
    assert apart(done.rows[others], fit(executor, model, LocalSGD(batch_size=8)).rows[others]) < TOLERANCE


@pytest.mark.parametrize("executor", EXECUTORS)
def test_bfloat16_is_near_float32_and_keeps_float32(fit: Fit, executor: str) -> None:
    """8 bits of mantissa: a step is off by some hundredths. Updates in bfloat16 could not tell apart most of their values."""
    model, _ = model_and_twin("mlp")
    full, low = fit(executor, model), fit(executor, model, precision="bfloat16")
    assert 1e-4 < apart(low.rows, full.rows) < 0.15
    assert low.rows.dtype == torch.float32
    assert not torch.equal(low.rows, low.rows.bfloat16().float())
    for a, b in zip(low.training.metrics, full.training.metrics, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=0.02)
    state = Layout.of_model(model).gather(model)
    assert low.clients.test(state)["loss"] == pytest.approx(full.clients.test(state)["loss"], rel=0.02)


def test_a_buffer_that_is_replaced_is_sent_and_starts_anew_with_each_client(uneven: Population) -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 10)
            self.register_buffer("steps", torch.tensor(0))
            self.register_buffer("seen", torch.tensor(False))

        def forward(self, x: Tensor) -> Tensor:
            self.steps = self.steps + 1  # another tensor, not the same one changed
            self.seen = self.seen | True
            return self.layer(x.flatten(1))

    model = Counting()
    clients = Clients(uneven, model, LocalSGD(batch_size=10))
    for _ in range(2):
        done = clients.fit(Layout.of_model(model).gather(model), range(7), 1)
        assert done.block.int_buffers.tolist() == [[-(-size // 10), 1] for size in SIZES]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_the_global_generators_are_left_alone(fit: Fit, executor: str) -> None:
    before = torch.get_rng_state()
    fit(executor, model_and_twin("dropout")[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_features_are_as_the_population_says(dataset: Dataset) -> None:
    """A population may make its own features; both executors ask it."""

    class Dark(Population):
        def train(self, client_id: int) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            x, y = super().train(client_id)
            return torch.zeros_like(x), y

    model, _ = model_and_twin("logistic regression")
    population = Dark(dataset, [np.arange(20), np.arange(20, 50)])
    for executor in EXECUTORS:
        clients = Clients(population, model, executor=executor)
        rows = clients.fit(Layout.of_model(model).gather(model), [0, 1], 1).block.updates
        assert not rows[:, :640].any()  # black pictures move the bias alone
        assert rows[:, 640:].all()
