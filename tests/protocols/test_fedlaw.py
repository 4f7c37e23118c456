"""FedLAW as a strategy: what it tries on the proxy, what it reports, and what it refuses."""

import copy
import logging
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedagg import Cohort, ConfigError, LocalGrid, run
from fedagg.models import logistic_regression
from strategies import NNM, Bucketing, ByExamples, FedDisco, FedLAW, Median
from strategies.protocols.fedlaw import learn_coefficients
from tests.protocols.fedlaw_inputs import CLASSES, FEATURES, Normalised, Tied, cohort_of, loaded, made, proxy

# The merged model


@pytest.mark.parametrize("make", [lambda: logistic_regression((FEATURES,), CLASSES), Tied], ids=["linear", "tied"])
def test_it_learns_on_the_merged_model(make: Any) -> None:
    """With one batch an epoch the order is no matter. The reference writes every model that is tried into a module."""
    model, (x, y) = made(make), proxy()
    cohort = cohort_of(model)
    strategy = FedLAW(model, (x, y), lr=0.05)
    delta = strategy.aggregate(cohort)

    def loss(flat: Tensor, batch: object) -> Tensor:
        module = loaded(model, flat.detach())
        value = functional.cross_entropy(module(x), y)
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        slope = torch.cat([grad.flatten() for grad in torch.autograd.grad(value, trained)])
        return value.detach() + slope @ (flat - flat.detach())

    weights = torch.tensor([0.3, 0.1, 0.2, 0.4])
    lam, gamma = learn_coefficients(cohort.params + cohort.updates, weights, loss, [None], lr=0.05)
    assert (lam - weights).abs().max() > 0.05
    wanted = gamma * (lam @ (cohort.params + cohort.updates)) - cohort.params
    torch.testing.assert_close(delta, wanted, rtol=1e-3, atol=1e-4)
    before = functional.cross_entropy(loaded(model, cohort.params + weights @ cohort.updates)(x), y)
    after = functional.cross_entropy(loaded(model, cohort.params + wanted)(x), y)
    assert strategy.last_info["proxy_loss_before"] == pytest.approx(before.item(), rel=1e-4)
    assert strategy.last_info["proxy_loss_after"] == pytest.approx(after.item(), rel=1e-3)
    assert strategy.last_info["lam"] == pytest.approx(dict(zip([1, 4, 7, 10], lam.tolist(), strict=True)), rel=1e-3)
    assert strategy.last_info["gamma"] == pytest.approx(gamma.item(), rel=1e-3)
    assert after < before


def test_without_epochs_it_is_the_weighted_mean() -> None:
    model = made(lambda: logistic_regression((FEATURES,), CLASSES))
    cohort = cohort_of(model)
    delta = FedLAW(model, proxy(), epochs=0).aggregate(cohort)
    torch.testing.assert_close(delta, torch.tensor([0.3, 0.1, 0.2, 0.4]) @ cohort.updates)
    for plain in (FedLAW(model, proxy(), "quad", epochs=0), FedLAW(model, proxy(), epochs=0, weighting=None)):
        torch.testing.assert_close(plain.aggregate(cohort), cohort.updates.mean(dim=0))


def test_one_client() -> None:
    model = made(lambda: logistic_regression((FEATURES,), CLASSES))
    cohort = cohort_of(model, n=1)
    strategy = FedLAW(model, proxy())
    delta = strategy.aggregate(cohort)
    gamma = strategy.last_info["gamma"]
    torch.testing.assert_close(delta, gamma * (cohort.params + cohort.updates[0]) - cohort.params)
    assert gamma != 1.0
    assert strategy.last_info["lam"] == {1: 1.0}
    assert "coherence" not in strategy.round_metrics
    assert strategy.round_metrics["lambda_entropy"] == 0.0


def test_what_it_reports() -> None:
    model = made(lambda: logistic_regression((FEATURES,), CLASSES))
    cohort = cohort_of(model)
    strategy = FedLAW(model, proxy(), epochs=3, batch_size=8)
    strategy.aggregate(cohort)
    metrics, lam = strategy.round_metrics, list(strategy.last_info["lam"].values())
    assert metrics["lambda_min"] == min(lam)
    assert metrics["lambda_max"] == max(lam)
    assert metrics["lambda_entropy"] == pytest.approx(-sum(share * math.log(share) for share in lam))
    pairs = [
        functional.cosine_similarity(cohort.updates[i], cohort.updates[j], dim=0).item()
        for i in range(4)
        for j in range(4)
        if i != j
    ]
    assert metrics["coherence"] == pytest.approx(sum(pairs) / 12, abs=1e-6)
    assert metrics["learning_steps"] == 12  # 30 examples are four batches
    assert strategy.last_info["client_weights"] == strategy.last_info["lam"]


def test_batches_cover_the_proxy_and_no_example_is_left_alone() -> None:
    seen: list[int] = []

    class Counting(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                seen.append(len(x))
            return super().forward(x)

    model = Counting(FEATURES, CLASSES)
    FedLAW(model, proxy(33), epochs=2, batch_size=16).aggregate(cohort_of(model))
    assert seen == [16, 17] * 2


def test_the_order_of_the_proxy_depends_on_seed_and_round_alone() -> None:
    model = made(lambda: logistic_regression((FEATURES,), CLASSES))

    def step(seed: int = 0, round: int = 1, **settings: Any) -> Tensor:
        return FedLAW(model, proxy(), batch_size=8, seed=seed, **settings).aggregate(cohort_of(model, round=round))

    assert torch.equal(step(), step())
    assert not torch.equal(step(), step(seed=1))
    assert not torch.equal(step(), step(round=2))
    own = [step(seed, generator=torch.Generator().manual_seed(4)) for seed in (0, 1)]
    assert torch.equal(*own)  # a generator that was given is the only source


def test_it_draws_from_no_generator_that_others_share() -> None:
    """Dropout takes torch's own, which is seeded for the round and put back."""
    model = made(lambda: Normalised(p=0.5))
    steps = []
    for start in (1, 2):
        torch.manual_seed(start)
        expected = torch.rand(3)
        torch.manual_seed(start)
        steps.append(FedLAW(model, proxy()).aggregate(cohort_of(model)))
        assert torch.equal(torch.rand(3), expected)
    assert torch.equal(*steps)
    assert not torch.equal(steps[0], FedLAW(made(Normalised), proxy()).aggregate(cohort_of(model)))


def test_inputs_and_the_model_stay_as_they_are() -> None:
    model = made(Normalised).eval()
    cohort, before = cohort_of(model), copy.deepcopy(model.state_dict())
    updates = cohort.updates.clone()
    FedLAW(model, proxy()).aggregate(cohort)
    assert torch.equal(cohort.updates, updates)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(layer.training for layer in model.modules())


# Numbers that leave their range


def test_a_client_that_is_far_out_does_not_make_the_model_nan(caplog: pytest.LogCaptureFixture) -> None:
    """A finite row of 1e38 is more than the merged model can stand; what is left is the start, and it is said once."""
    model = made(Normalised)
    strategy, cohort = FedLAW(model, proxy()), cohort_of(model)
    cohort.updates[2] = 1e38
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            delta = strategy.aggregate(cohort)
    assert torch.isfinite(delta).all()
    torch.testing.assert_close(delta, torch.tensor([0.3, 0.1, 0.2, 0.4]) @ cohort.updates)
    assert strategy.round_metrics["learning_steps"] == 0
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    clients = {"float_buffers": torch.zeros(12), "int_buffers": torch.tensor([1])}
    assert torch.isfinite(strategy.buffers(clients)["float_buffers"]).all()


def test_a_last_step_out_of_range_is_taken_back(caplog: pytest.LogCaptureFixture) -> None:
    """A single step to gamma = e^88: coefficients and model are numbers still, the loss is not."""
    proxy = torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 1])
    cohort = Cohort(1, [3, 7], torch.tensor([[0.1, 0.1], [0.3, -0.1]]), torch.tensor([2.0, -2.0]), torch.tensor([10, 30]))
    strategy = FedLAW(nn.Linear(1, 2, bias=False), proxy, epochs=1, lr=88.0)
    assert strategy.aggregate(cohort).tolist() == pytest.approx([0.25, -0.05])
    metrics = strategy.round_metrics
    assert (metrics["gamma"], metrics["learning_steps"]) == (1.0, 0.0)
    assert metrics["proxy_loss_after"] == metrics["proxy_loss_before"] == pytest.approx(math.log1p(math.exp(-4.3)), rel=1e-5)
    assert "stopped after 0 steps, beyond which loss or coefficients are not finite; is lr=88 too high?" in caplog.text


def test_too_high_a_rate_is_said(caplog: pytest.LogCaptureFixture) -> None:
    model = made(lambda: logistic_regression((FEATURES,), CLASSES))
    strategy = FedLAW(model, proxy(), lr=500.0)
    delta = strategy.aggregate(cohort_of(model))
    assert torch.isfinite(delta).all()
    assert math.isfinite(strategy.last_info["proxy_loss_after"])
    assert 0 < strategy.last_info["gamma"] < math.inf
    assert "is lr=500 too high?" in caplog.text


# What must be there


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ((None, None), "no model and no proxy"),
        ((None, proxy()), "no model"),
        ((nn.Linear(FEATURES, CLASSES), None), "no proxy"),
    ],
)
def test_without_model_or_proxy_the_first_round_does_not_start(
    given: tuple[Any, Any], missing: str, grid: LocalGrid, model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "send_and_receive", lambda *args, **kwargs: pytest.fail("a client was asked"))
    with pytest.raises(ConfigError, match=rf"has {missing}: give FedLAW\(model=.*trusted=200"):
        run(grid, FedLAW(*given), model, rounds=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FedLAW(proxy="test"), r"pair of tensors, inputs \[m, ...\] and classes \[m\]; got 'test'"),  # type: ignore[arg-type]
        (lambda: FedLAW(proxy=(torch.zeros(3, 4), torch.zeros(2).long())), r"m >= 1; got \[3, 4\] and \[2\]"),
        (lambda: FedLAW(proxy=(torch.zeros(0, 4), torch.zeros(0).long())), r"m >= 1; got \[0, 4\] and \[0\]"),
        (
            lambda: FedLAW(proxy=(torch.zeros(2, 4), torch.zeros(2))),
            r"integer classes .*; got \[2, 4\] and \[2\] torch.float32",
        ),
        (lambda: FedLAW(rule=Median()), "FedLAW merges models itself, so rule=Median would have no effect"),
        (lambda: FedLAW(batch_norm="refreshed"), r"one of refresh, average; got refreshed \(did you mean refresh\?\)"),
        (lambda: FedLAW(parametrization="square"), "one of exp, quad; got square"),
        (lambda: FedLAW(batch_size=0), "integer batch_size >= 1; got 0"),
    ],
)
def test_impossible_settings(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_model_that_is_not_the_clients() -> None:
    with pytest.raises(ConfigError, match="FedLAW's model has 15 parameters, that of the clients 650"):
        FedLAW(nn.Linear(FEATURES, CLASSES), proxy()).aggregate(cohort_of(nn.Linear(64, 10)))


def test_classes_that_the_model_does_not_know() -> None:
    model = nn.Linear(FEATURES, 2)
    with pytest.raises(ConfigError, match="model knows classes 0 to 1; its proxy has 0 to 2"):
        FedLAW(model, proxy()).aggregate(cohort_of(model))


def test_classes_missing_in_the_proxy_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Linear(FEATURES, 5)
    strategy = FedLAW(model, proxy(classes=3))
    for _ in range(2):
        assert torch.isfinite(strategy.aggregate(cohort_of(model))).all()
    assert [record.getMessage() for record in caplog.records] == [
        "the proxy has no example of classes [3, 4]: what a model knows of them does not count"
    ]


# Beside other parts


def test_behind_pre_aggregators() -> None:
    """Rows that stand for nobody start alike; nothing then says what a client got."""
    model = made(lambda: logistic_regression((FEATURES,), CLASSES))
    mixed = FedLAW(model, proxy(), epochs=0, weighting=None, pre_aggregators=[Bucketing(s=2, generator=torch.Generator())])
    torch.testing.assert_close(mixed.aggregate(cohort_of(model)), cohort_of(model).updates.mean(dim=0))
    assert mixed.last_info["lam"] == pytest.approx({0: 0.5, 1: 0.5})
    assert "client_weights" not in mixed.last_info
    near = FedLAW(model, proxy(), pre_aggregators=[NNM(f=1)])
    assert torch.isfinite(near.aggregate(cohort_of(model))).all()
    with pytest.raises(ConfigError, match="Bucketing leaves no row that stands for one"):
        FedLAW(model, proxy(), pre_aggregators=[Bucketing(s=2)])


def test_quad_starts_at_the_plain_mean_and_has_no_use_for_another_weighting() -> None:
    with pytest.raises(ConfigError, match="'quad' starts from 1/n, so weighting=FedDisco would have no effect; leave it out"):
        FedLAW(parametrization="quad", weighting=FedDisco())
    for weighting in (None, ByExamples()):  # what strategy=fedlaw gives unasked
        FedLAW(parametrization="quad", weighting=weighting)
    FedLAW(weighting=FedDisco())
