"""What cannot be trained many at once is trained one at a time, and one warning names the layer and the reason."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedagg import Clients, LocalSGD, Population
from fedagg.clients.local import Memory
from fedagg.params import Layout
from tests.clients.models import NAMES, model_and_twin


def mlp(*middle: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), *middle, nn.Linear(12, 10))


class Sub(nn.Module):
    """A linear layer and something around it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 12)
        self.register_buffer("steps", torch.tensor(0.0))


class FunctionalDropout(Sub):
    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(self.layer(x), 0.5, self.training)


class Branching(Sub):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else self.layer(-x)


class AttentionOverTheBatch(Sub):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer((x @ x.T).softmax(dim=1) @ x)


class CountingInPlace(Sub):
    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        return self.layer(x)


class CountingAnew(Sub):
    def forward(self, x: Tensor) -> Tensor:
        self.steps = self.steps + 1
        return self.layer(x)


CASES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "batch norm": (lambda: mlp(nn.BatchNorm1d(12)), r"2 \(BatchNorm1d\): .*in-place"),
    "batch norm without statistics": (
        lambda: mlp(nn.BatchNorm1d(12, track_running_stats=False)),
        r"2 \(BatchNorm1d\): .*other",
    ),
    "instance norm": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.InstanceNorm2d(3, track_running_stats=True), nn.Flatten(), nn.Linear(108, 10)
        ),
        r"1 \(InstanceNorm2d\): ",
    ),
    "alpha dropout": (lambda: mlp(nn.AlphaDropout(0.5)), r"2 \(AlphaDropout\): .*random"),
    "randomised relu": (lambda: mlp(nn.RReLU()), r"2 \(RReLU\): "),
    "functional dropout": (
        lambda: mlp(nn.Sequential(nn.ReLU(), FunctionalDropout())),
        r"2\.1 \(FunctionalDropout\): .*random",
    ),
    "branches": (lambda: mlp(Branching()), r"2 \(Branching\): .*data-dependent"),
    "attention over the batch": (lambda: mlp(AttentionOverTheBatch()), r"2 \(AttentionOverTheBatch\): .*other examples"),
    "a counter in place": (lambda: mlp(CountingInPlace()), r"2 \(CountingInPlace\): .*in-place"),
    "a counter made anew": (lambda: mlp(CountingAnew()), r"2 \(CountingAnew\): its buffer steps changes"),
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", CASES)
def test_a_model_that_cannot_be_batched_falls_back(
    uneven: Population, caplog: pytest.LogCaptureFixture, case: str, precision: str
) -> None:
    make, reason = CASES[case]
    model = make()
    generator = torch.get_rng_state()
    clients = Clients(uneven, model, executor="batched", precision=precision)
    assert torch.equal(torch.get_rng_state(), generator)
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert warning.getMessage().startswith("clients train one at a time, because they cannot be batched: ")
    assert re.search(f"cannot be batched: {reason}", warning.getMessage())
    assert (clients.engine.name, clients.engine.batch) == ("one_at_a_time", 1)
    alone = Clients(uneven, model, executor="one_at_a_time", precision=precision)
    state = Layout.of_model(model).gather(model)
    expected, done = (one.fit(state, [2, 4, 5], 1) for one in (alone, clients))
    assert done.client_ids == [2, 4, 5]
    assert torch.equal(done.block.updates, expected.block.updates)
    assert torch.equal(done.block.float_buffers, expected.block.float_buffers)
    assert len(caplog.records) == 1


def test_what_can_be_batched_is_batched_without_a_word(uneven: Population, caplog: pytest.LogCaptureFixture) -> None:
    for name in NAMES:
        assert Clients(uneven, model_and_twin(name)[0], executor="batched").engine.name == "batched"
    assert Clients(uneven, mlp(nn.LayerNorm(12), nn.Tanh()), executor="batched").engine.name == "batched"
    assert caplog.records == []


class OwnTraining(LocalSGD):
    def train(self, *args: object, **kwargs: object) -> dict[str, float]:
        return {"loss": 0.0, "local_steps": 0.0}


class ClippedTogether(LocalSGD):
    """Clips the length of all gradients: right for one client, but many share one length."""

    def step(self, params: list[Tensor], grads: list[Tensor], memory: Memory) -> None:
        length = torch.stack([grad.norm() for grad in grads]).norm()
        super().step(params, [grad * 0.1 / length for grad in grads], memory)


class IgnoresTheMask(LocalSGD):
    def loss(self, logits: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        return super().loss(logits, y)


class Impossible(LocalSGD):
    def loss(self, logits: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            raise ValueError("no mask")
        return super().loss(logits, y, mask)


@pytest.mark.parametrize(
    ("local", "reason"),
    [
        (OwnTraining(), "OwnTraining has a train() of its own, which trains one client"),
        (ClippedTogether(), "ClippedTogether: its clients end elsewhere together than alone"),
        (IgnoresTheMask(), "IgnoresTheMask: its clients end elsewhere together than alone"),
        (IgnoresTheMask(batch_size=3), "IgnoresTheMask: its clients end elsewhere together than alone"),
        (Impossible(), "no mask"),
    ],
)
def test_local_training_that_cannot_be_batched_falls_back(
    uneven: Population, caplog: pytest.LogCaptureFixture, local: LocalSGD, reason: str
) -> None:
    clients = Clients(uneven, mlp(nn.ReLU()), local, executor="batched")
    assert clients.engine.name == "one_at_a_time"
    assert [record.getMessage().endswith(reason) for record in caplog.records] == [True]


@pytest.mark.parametrize("size", [1, 2])
def test_tiny_batches_need_no_mask(uneven: Population, size: int) -> None:
    """One example twice has the mean of one."""
    assert Clients(uneven, mlp(nn.ReLU()), IgnoresTheMask(batch_size=size), executor="batched").engine.name == "batched"
