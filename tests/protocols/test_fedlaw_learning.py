"""The pure functions of FedLAW, against hand-made values and a slow twin that keeps a graph over all models."""

import math
import warnings

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fedagg import ConfigError
from strategies.protocols._fedlaw_learning import Learning, _Adam, _Point
from strategies.protocols.fedlaw import coefficients, coherence, initial_coefficients, learn_coefficients, merged_delta

DOUBLE = torch.float64
MODELS = torch.tensor([[1.0], [2.0], [4.0]], dtype=DOUBLE)
WEIGHTS = torch.tensor([0.2, 0.3, 0.5], dtype=DOUBLE)


def parabola(flat: Tensor, batch: object) -> Tensor:
    return ((flat - 1.0).square() / 2).sum()


def problem(n: int = 5, features: int = 4, classes: int = 3, dtype: torch.dtype = DOUBLE):
    """Random linear classifiers, and batches to try them on."""
    draw = torch.Generator().manual_seed(7)
    models = torch.randn(n, features * classes, generator=draw, dtype=DOUBLE)
    x = torch.randn(24, features, generator=draw, dtype=DOUBLE)
    y = torch.randint(0, classes, (24,), generator=draw)
    weights = torch.tensor([5.0, 1.0, 3.0, 2.0, 9.0][:n], dtype=DOUBLE)

    def loss(flat: Tensor, rows: Tensor) -> Tensor:
        return functional.cross_entropy(x.to(flat)[rows] @ flat.view(features, classes), y[rows])

    batches = list(torch.arange(24).split(10))
    return models.to(dtype), (weights / weights.sum()).to(dtype), loss, batches


def shares(logits: Tensor, g: Tensor, parametrization: str) -> tuple[Tensor, Tensor]:
    if parametrization == "exp":
        return logits.exp() / logits.exp().sum(), g.exp()
    return logits**2 / (logits**2).sum(), g**2


def slow(models, weights, loss, batches, *, parametrization, rates, optimizer="adam", swa=False):
    """The coefficients by automatic differentiation through the merged model, with Adam and SGD written out.

    ``rates`` is one list of learning rates for all numbers or, with ``swa``, one for the logits and one for g.
    """
    n = len(models)
    logits = weights.log() if parametrization == "exp" else torch.full((n,), math.sqrt(1 / n), dtype=models.dtype)
    both = torch.cat([logits, logits.new_tensor([0.0 if parametrization == "exp" else 1.0])])

    def phase(both: Tensor, rates: list[float], moves: Tensor) -> tuple[Tensor, list[Tensor]]:
        first, second, count, ends = torch.zeros_like(both), torch.zeros_like(both), 0, []
        for rate in rates:
            for batch in batches:
                both = both.detach().requires_grad_()
                lam, gamma = shares(both[:n], both[n], parametrization)
                (grad,) = torch.autograd.grad(loss(gamma * (lam[:, None] * models).sum(dim=0), batch), both)
                count += 1
                if optimizer == "adam":
                    first = 0.5 * first + 0.5 * grad
                    second = 0.999 * second + 0.001 * grad**2
                    step = (first / (1 - 0.5**count)) / ((second / (1 - 0.999**count)).sqrt() + 1e-8)
                else:
                    step = first = 0.9 * first + grad
                both = both.detach() - rate * moves * step
            ends.append(both.clone())
        return both, ends

    of_logits = torch.ones_like(both)
    of_logits[n] = 0
    if not swa:
        both, _ = phase(both, rates, torch.ones_like(both))
        return shares(both[:n], both[n], parametrization)
    start = both
    _, ends = phase(both, rates[0], of_logits)
    both = sum(ends[6:]) / len(ends[6:]) if len(ends) > 6 else start
    both, _ = phase(both, rates[1], 1 - of_logits)
    return shares(both[:n], both[n], parametrization)


# Where it starts, and the maps


def test_exp_starts_at_the_weights_and_quad_at_the_mean() -> None:
    logits, g = initial_coefficients(WEIGHTS, "exp")
    assert logits.tolist() == pytest.approx([math.log(0.2), math.log(0.3), math.log(0.5)])
    assert g.item() == 0.0
    lam, gamma = coefficients(logits, g, "exp")
    assert lam.tolist() == pytest.approx([0.2, 0.3, 0.5])
    assert gamma.item() == 1.0
    logits, g = initial_coefficients(WEIGHTS, "quad")
    assert logits.tolist() == pytest.approx([3**-0.5] * 3)
    assert g.item() == 1.0
    lam, gamma = coefficients(logits, g, "quad")
    assert lam.tolist() == pytest.approx([1 / 3] * 3)
    assert gamma.item() == 1.0


def test_the_maps_by_hand() -> None:
    logits, g = torch.tensor([0.0, math.log(3.0)]), torch.tensor(math.log(0.5))
    lam, gamma = coefficients(logits, g, "exp")
    assert lam.tolist() == pytest.approx([0.25, 0.75])
    assert gamma.item() == pytest.approx(0.5)
    lam, gamma = coefficients(torch.tensor([1.0, -3.0]), torch.tensor(-0.9), "quad")
    assert lam.tolist() == pytest.approx([0.1, 0.9])
    assert gamma.item() == pytest.approx(0.81)


def test_merged_delta_by_hand() -> None:
    """theta = (10, 20), models (11, 20) and (10, 24), their mean at 1/4 and 3/4 is (10.25, 23), of which 0.9."""
    params, updates = torch.tensor([10.0, 20.0]), torch.tensor([[1.0, 0.0], [0.0, 4.0]])
    lam = torch.tensor([0.25, 0.75])
    assert merged_delta(params, updates, lam, 0.9).tolist() == pytest.approx([0.9 * 10.25 - 10, 0.9 * 23 - 20])
    assert merged_delta(params, updates, lam, torch.tensor(1.0)).tolist() == [0.25, 3.0]


def test_coherence_by_hand() -> None:
    rows = torch.tensor([[3.0, 0.0], [1.0, 1.0], [-2.0, 0.0], [0.0, 0.0]])
    half = math.sqrt(0.5)
    wanted = [[1.0, half, -1.0, 0.0], [half, 1.0, -half, 0.0], [-1.0, -half, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    torch.testing.assert_close(coherence(rows), torch.tensor(wanted))
    assert coherence(rows.double()).dtype == DOUBLE
    assert coherence(torch.randn(1, 3)).tolist() == [[1.0]]


@pytest.mark.parametrize("scale", [1e-25, 1e18])
def test_coherence_has_no_scale(scale: float) -> None:
    rows = torch.randn(4, 50, generator=torch.Generator().manual_seed(1))
    reference = functional.cosine_similarity(rows[:, None], rows[None], dim=-1)
    torch.testing.assert_close(coherence(scale * rows), reference, rtol=1e-4, atol=1e-5)


# Gradients


@pytest.mark.parametrize(
    ("parametrization", "logits", "g"),
    [  # exp: the spec's numbers. quad: merged 7/3, lam_i = 1/3, dL/dl_i = (2 l_i / 1) (4/3) (m_i - 7/3), dL/dg = 2 (4/3) (7/3)
        ("exp", [-0.648, -0.432, 1.08], 5.04),
        ("quad", [2 / math.sqrt(3) * 4 / 3 * (m - 7 / 3) for m in (1, 2, 4)], 56 / 9),
    ],
)
def test_gradients_by_hand(parametrization: str, logits: list[float], g: float) -> None:
    point = _Point(torch.zeros(1), MODELS, parabola, parametrization, *initial_coefficients(WEIGHTS, parametrization))
    slope = point.slope(None)
    assert slope is not None
    assert slope.tolist() == pytest.approx([*logits, g])


@pytest.mark.parametrize("parametrization", ["exp", "quad"])
def test_gradients_are_those_of_finite_differences(parametrization: str) -> None:
    models, _, loss, batches = problem()
    logits = torch.tensor([0.3, -0.8, 0.5, 1.1, -0.4], dtype=DOUBLE)
    g = torch.tensor(0.7, dtype=DOUBLE)

    def at(moved: Tensor, scale: Tensor) -> float:
        lam, gamma = shares(moved, scale, parametrization)
        return float(loss(gamma * lam @ models, batches[0]))

    base = torch.randn(12, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)
    point = _Point(base, models - base, loss, parametrization, logits.clone(), g.clone())
    slope = point.slope(batches[0])
    assert slope is not None
    h = 1e-6
    for i in range(5):
        step = h * torch.eye(5, dtype=DOUBLE)[i]
        assert slope[i].item() == pytest.approx((at(logits + step, g) - at(logits - step, g)) / (2 * h), abs=1e-8)
    assert slope[5].item() == pytest.approx((at(logits, g + h) - at(logits, g - h)) / (2 * h), abs=1e-8)


# Learning


def test_the_first_step_in_closed_form() -> None:
    """Adam's first step is lr times the sign of the gradient, SGD's lr times the gradient."""
    lam, gamma = learn_coefficients(MODELS, WEIGHTS, parabola, [None], epochs=1, lr=0.01)
    up, down = math.exp(0.01), math.exp(-0.01)
    total = 0.5 * up + 0.5 * down
    assert lam.tolist() == pytest.approx([0.2 * up / total, 0.3 * up / total, 0.5 * down / total], rel=1e-7)
    assert gamma.item() == pytest.approx(down, rel=1e-7)
    lam, gamma = learn_coefficients(MODELS, WEIGHTS, parabola, [None], epochs=1, lr=0.01, optimizer="sgd")
    parts = [0.2 * math.exp(0.00648), 0.3 * math.exp(0.00432), 0.5 * math.exp(-0.0108)]
    assert lam.tolist() == pytest.approx([part / sum(parts) for part in parts], rel=1e-12)
    assert gamma.item() == pytest.approx(math.exp(-0.0504), rel=1e-12)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("parametrization", ["exp", "quad"])
def test_it_is_gradient_descent_through_the_merged_model(parametrization: str, optimizer: str) -> None:
    """Nine epochs of three batches; the rate is halved after every fourth."""
    models, weights, loss, batches = problem()
    how = {"parametrization": parametrization, "optimizer": optimizer}
    lam, gamma = learn_coefficients(models, weights, loss, batches, epochs=9, lr=0.05, step_size=4, **how)
    rates = [0.05] * 4 + [0.025] * 4 + [0.0125]
    wanted, scale = slow(models, weights, loss, batches, rates=rates, **how)
    torch.testing.assert_close(lam, wanted, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(gamma, scale, rtol=1e-8, atol=1e-10)
    start = weights if parametrization == "exp" else torch.full_like(weights, 1 / 5)
    assert (lam - start).abs().max() > 0.02


def test_by_default_the_rate_is_halved_after_twenty_epochs() -> None:
    models, weights, loss, batches = problem()
    lam, gamma = learn_coefficients(models, weights, loss, batches, epochs=22)
    wanted, scale = slow(models, weights, loss, batches, parametrization="exp", rates=[0.01] * 20 + [0.005] * 2)
    torch.testing.assert_close(lam, wanted, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(gamma, scale, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("epochs", [19, 20])
def test_averaged_logits_first_then_the_scale(epochs: int) -> None:
    models, weights, loss, batches = problem()
    half = epochs // 2
    cosine = [0.01 * (1 + math.cos(math.pi * epoch / 100)) / 2 for epoch in range(6)]
    learned = Learning(epochs=epochs, swa=True).learn(models[0], models - models[0], weights, loss, batches)
    rates = [[*cosine, *[0.05] * (half - 6)], [0.01] * half]
    wanted, scale = slow(models, weights, loss, batches, parametrization="exp", rates=rates, swa=True)
    torch.testing.assert_close(learned.lam, wanted, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(learned.gamma, scale, rtol=1e-8, atol=1e-10)
    assert learned.steps == 2 * half * len(batches)


@pytest.mark.parametrize(("epochs", "stays"), [(13, True), (14, False)])
def test_the_average_needs_more_than_six_epochs(epochs: int, stays: bool) -> None:
    models, weights, loss, batches = problem()
    learned = Learning(epochs=epochs, swa=True).learn(models[0], models - models[0], weights, loss, batches)
    assert torch.allclose(learned.lam, weights, rtol=1e-12) == stays
    assert learned.gamma != 1.0


@pytest.mark.parametrize("parametrization", ["exp", "quad"])
def test_one_model_has_all_the_weight_and_is_shrunk(parametrization: str) -> None:
    lam, gamma = learn_coefficients(MODELS[1:2], WEIGHTS[:1], parabola, [None], parametrization=parametrization)
    assert lam.tolist() == [1.0]
    assert 0.7 < gamma.item() < 0.9  # 20 steps of 0.01 towards 1/2, at which 2 becomes the optimum 1


def test_no_epoch_leaves_it_at_the_start() -> None:
    lam, gamma = learn_coefficients(MODELS, WEIGHTS, parabola, [None], epochs=0)
    assert lam.tolist() == pytest.approx([0.2, 0.3, 0.5])
    assert gamma.item() == 1.0


def test_who_has_no_examples_keeps_no_weight() -> None:
    weights = torch.tensor([0.0, 0.4, 0.6], dtype=DOUBLE)
    for swa in (False, True):
        learned = Learning(swa=swa).learn(MODELS[0], MODELS - MODELS[0], weights, parabola, [None])
        assert learned.lam[0] == 0.0
        assert learned.lam.sum().item() == pytest.approx(1.0)
        assert learned.complete


def test_single_precision_agrees_with_double() -> None:
    """Models that differ by a thousandth of their length, as after one local epoch."""
    models, weights, loss, batches = problem()
    models = 30.0 * models[:1] + 0.03 * models
    lam, gamma = learn_coefficients(models, weights, loss, batches)
    single, scale = learn_coefficients(models.float(), weights.float(), loss, batches)
    assert single.dtype == scale.dtype == torch.float32
    assert (lam - weights).abs().max() > 0.01
    torch.testing.assert_close(single.double(), lam, rtol=2e-3, atol=0)
    torch.testing.assert_close(scale.double(), gamma, rtol=1e-4, atol=0)


def test_inputs_stay_as_they_are_and_nothing_carries_a_graph() -> None:
    models, weights, loss, batches = problem()
    before = models.clone(), weights.clone()
    lam, gamma = learn_coefficients(models, weights, loss, batches)
    assert torch.equal(models, before[0])
    assert torch.equal(weights, before[1])
    assert not lam.requires_grad
    assert not gamma.requires_grad


@pytest.mark.parametrize(("growth", "moved"), [(1.0, 0.4), (1.1, 0.686), (3.0, 0.975)])
def test_how_far_adam_goes_in_forty_steps_of_a_hundredth(growth: float, moved: float) -> None:
    """As many rates as steps for a gradient that stays as it is, and more for one that grows.

    By Cauchy and Schwarz step t is at most sqrt(sum_k a_k^2 / b_k) rates long, where a_k and b_k are the shares of the k-th
    gradient in the two means: 0.995 in all.
    """
    bound = 0.0
    for t in range(1, 41):
        a = [0.5 ** (t - k + 1) / (1 - 0.5**t) for k in range(1, t + 1)]
        b = [0.001 * 0.999 ** (t - k) / (1 - 0.999**t) for k in range(1, t + 1)]
        bound += 0.01 * math.sqrt(sum(x * x / y for x, y in zip(a, b, strict=True)))
    assert bound == pytest.approx(0.995, abs=1e-3)
    adam = _Adam(0.5, 0.999)
    found = 0.01 * sum(adam(torch.tensor([growth**t], dtype=DOUBLE)).item() for t in range(40))
    assert found == pytest.approx(moved, abs=1e-3)
    assert found < bound


@pytest.mark.parametrize("far", [3.0, 1e6, -1e6])
@pytest.mark.parametrize("loss", [parabola, lambda flat, batch: flat.abs().sum()], ids=["parabola", "distance"])
def test_a_logit_moves_by_about_the_steps_times_the_rate(loss, far: float) -> None:
    """The whole of the protection: in 40 steps of 0.01 the odds of two models change by e^0.8 or less, however bad one is.

    Four models at 1 and one far away from it, which the loss pushes out at every step.
    """
    models = torch.tensor([[1.0], [1.0], [1.0], [1.0], [far]], dtype=DOUBLE)
    lam, gamma = learn_coefficients(models, torch.full((5,), 0.2, dtype=DOUBLE), loss, [0, 1])
    odds = (lam[0] / lam[4]).item()
    assert math.exp(0.3) < odds < math.exp(0.8)
    assert lam[4] > 0.1
    assert math.exp(-0.45) < gamma.item() < math.exp(0.45)  # a growing gradient makes steps a little longer than the rate


# Numbers that leave their range


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("parametrization", ["exp", "quad"])
@pytest.mark.parametrize("lr", [1e3, 1e30])
def test_too_high_a_rate_is_said_and_gives_numbers(lr: float, parametrization: str, optimizer: str) -> None:
    """Shrunk models are better here, so that exp(g) becomes 0; where all is still a number nothing has to be said."""
    models, weights, loss, batches = problem()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        lam, gamma = learn_coefficients(
            1e3 * models, weights, loss, batches, lr=lr, parametrization=parametrization, optimizer=optimizer
        )
    assert torch.isfinite(lam).all()
    assert lam.sum().item() == pytest.approx(1.0)
    assert 0 < gamma.item() < math.inf
    assert torch.isfinite(loss(gamma * lam @ models, batches[0]))
    if parametrization == "exp":
        assert any(f"lower lr (now {lr})" in str(warning.message) for warning in said)


def test_a_loss_that_is_no_number_ends_it_where_it_was_one() -> None:
    """A loss that is NaN where the merged model is below 2.7: two steps from the start at 2.8."""

    def edge(flat: Tensor, batch: object) -> Tensor:
        return parabola(flat, batch) if flat > 2.7 else flat.sum() * math.nan

    with pytest.warns(RuntimeWarning, match="stopped after [1-9] steps, beyond which loss or coefficients are not finite"):
        lam, gamma = learn_coefficients(MODELS, WEIGHTS, edge, [None])
    assert 2.7 < float(gamma * lam @ MODELS) < 2.8


def test_a_loss_that_is_never_a_number_leaves_the_start() -> None:
    with pytest.warns(RuntimeWarning, match="stopped after 0 steps"):
        lam, gamma = learn_coefficients(MODELS, WEIGHTS, lambda flat, batch: flat.sum() * math.nan, [None])
    assert lam.tolist() == pytest.approx([0.2, 0.3, 0.5])
    assert gamma.item() == 1.0


# Errors


@pytest.mark.parametrize("weights", [[0.0, 0.0], [-0.1, 1.1], [math.nan, 1.0], [math.inf, 1.0], []])
def test_impossible_weights(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="n finite weights >= 0, one of them > 0"):
        initial_coefficients(torch.tensor(weights))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parametrization": "quadratic"}, r"parametrization to be one of exp, quad; got quadratic \(did you mean quad\?\)"),
        ({"optimizer": "adamw"}, r"optimizer to be one of adam, sgd; got adamw \(did you mean adam\?\)"),
        ({"epochs": -1}, "integer epochs >= 0; got -1"),
        ({"epochs": 2.5}, "integer epochs >= 0; got 2.5"),
        ({"lr": 0.0}, "finite lr > 0; got 0.0"),
        ({"lr": math.nan}, "finite lr > 0; got nan"),
    ],
)
def test_impossible_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        learn_coefficients(MODELS, WEIGHTS, parabola, [None], **settings)  # type: ignore[arg-type]
