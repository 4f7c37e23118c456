"""q-FedAvg and TERM: weights that follow the losses that clients claim, and the caps that hold them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedagg import Weighting
from strategies import TERM, ByExamples, FedDisco, FedNova, Mean, QFedAvg, Uniform

from . import reference
from .inputs import cohort, reordered

losses_and_q = st.tuples(st.lists(st.floats(0.01, 20.0), min_size=1, max_size=6), st.sampled_from([0.0, 0.3, 1.0, 2.5]))


def test_golden_step_of_q_fedavg() -> None:
    seen = cohort([1, 1], rows=[[1.0, 0.0], [0.0, 2.0]], loss_before=[1, 3])
    step = Mean()(seen.updates, QFedAvg(q=1, lr=0.1)(seen))
    assert step.tolist() == pytest.approx([0.0185185185, 0.1111111111], abs=1e-10)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(losses_and_q, st.sampled_from([0.01, 0.1, 1.0]))
def test_q_fedavg_against_the_formula(drawn: tuple[list[float], float], lr: float) -> None:
    losses, q = drawn
    rows = torch.randn(len(losses), 3, generator=torch.Generator().manual_seed(len(losses)), dtype=torch.float64)
    seen = cohort([1] * len(losses), rows=rows.tolist(), loss_before=losses)
    found = QFedAvg(q=q, lr=lr)(seen) @ seen.updates
    assert found.tolist() == pytest.approx(reference.q_fedavg(rows.tolist(), losses, q, lr), rel=1e-9, abs=1e-14)


def test_no_fairness_is_the_mean() -> None:
    seen = cohort([1, 2, 3], loss_before=[0.0, 1.0, 1e300])
    assert torch.equal(QFedAvg(q=0, lr=0.1)(seen), Uniform()(seen))


@pytest.mark.parametrize("q", [0.5, 1.0, 50.0])
def test_losses_of_any_size_have_a_weight(q: float) -> None:
    """F^q overflows beyond 1e308, and F^(q - 1) has no value at 0."""
    found = QFedAvg(q=q, lr=0.1)(cohort([1, 1, 1], loss_before=[0.0, 1e-200, 1e300]))
    assert found.isfinite().all()
    assert (found >= 0).all()
    if q >= 1:
        assert found.tolist() == pytest.approx([0.0, 0.0, 1.0], abs=1e-9)


def test_a_loss_of_zero_counts_as_a_tiny_one() -> None:
    rows, q, lr = [[1.0, 0.0], [0.0, 2.0]], 0.5, 0.1
    seen = cohort([1, 1], rows=rows, loss_before=[0.0, 3.0])
    found = QFedAvg(q=q, lr=lr)(seen) @ seen.updates
    assert found.tolist() == pytest.approx(reference.q_fedavg(rows, [1e-10, 3.0], q, lr), rel=1e-9)


def test_golden_weights_of_term() -> None:
    found = TERM(t=1)(cohort([5, 5, 5], loss_before=[1, 2, 3]))
    assert found.tolist() == pytest.approx([0.0900305732, 0.2447284711, 0.6652409558], abs=1e-10)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(losses_and_q, st.sampled_from([-2.0, -0.1, 0.5, 3.0]))
def test_term_against_the_formula(drawn: tuple[list[float], float], t: float) -> None:
    losses, _ = drawn
    counts = [3 * i + 1 for i in range(len(losses))]
    values = [m * math.exp(t * loss) for m, loss in zip(counts, losses, strict=True)]
    found = TERM(t=t)(cohort(counts, loss_before=losses))
    assert found.tolist() == pytest.approx([value / sum(values) for value in values], rel=1e-9, abs=1e-300)


def test_no_tilt_is_federated_averaging() -> None:
    seen = cohort([10, 30, 60], loss_before=[5, 0, 9])
    torch.testing.assert_close(TERM(t=0)(seen), ByExamples()(seen), rtol=1e-14, atol=0)
    torch.testing.assert_close(TERM(t=0, base=Uniform())(seen), Uniform()(seen), rtol=1e-14, atol=0)


def test_who_has_no_weight_gets_none() -> None:
    assert TERM(t=1)(cohort([0, 4], loss_before=[100, 1])).tolist() == [0.0, 1.0]


def test_an_extreme_tilt_is_finite() -> None:
    assert TERM(t=1e6)(cohort([1, 1, 1], loss_before=[1e5, 3, 2e5])).tolist() == [0.0, 0.0, 1.0]
    assert TERM(t=-1e6)(cohort([1, 1, 1], loss_before=[1e5, 3, 2e5])).tolist() == [0.0, 1.0, 0.0]
    assert TERM(t=1e6)(cohort([1, 1, 1], loss_before=[1e305, 3, 1e306])).tolist() == [0.5, 0.0, 0.5]
    assert TERM(t=-1e6, weight_cap=0.5)(cohort([1, 1], loss_before=[1e305, 1e306])).tolist() == [0.5, 0.5]


def test_term_needs_what_its_base_needs() -> None:
    assert TERM(t=1).needs == {"loss_before"}
    assert TERM(t=1, base=FedNova(FedDisco())).needs == {"loss_before", "a_norm", "label_counts"}


# Caps


@pytest.mark.parametrize("make", [partial(QFedAvg, q=2, lr=0.1), partial(TERM, t=1)], ids=["q-FedAvg", "TERM"])
def test_one_liar_owns_the_model_unless_there_is_a_cap(make: Callable[..., Weighting]) -> None:
    seen = cohort([1] * 10, rows=[[0.01]] * 10, loss_before=[1.0] * 9 + [1e6])

    def liars_share(**caps: float) -> float:
        weights = make(**caps)(seen)
        return float(weights[-1] / weights.sum())

    assert liars_share() > 0.99
    assert liars_share(weight_cap=0.2) == pytest.approx(0.2, abs=1e-12)
    assert liars_share(loss_cap=1.0) == pytest.approx(0.1, abs=1e-12)


def test_what_is_cut_off_goes_to_the_others_in_proportion() -> None:
    found = TERM(t=1, weight_cap=0.5)(cohort([1, 1, 1], loss_before=[1, 2, 3]))
    rest = 0.5 / (1 + math.e)
    assert found.tolist() == pytest.approx([rest, rest * math.e, 0.5], abs=1e-12)


def test_a_cap_keeps_what_no_float_could() -> None:
    """The liar's e^(10^6) drowns the others; once it is cut, they share what is left as if it were not there."""
    found = TERM(t=1, weight_cap=0.4)(cohort([1, 1, 1], loss_before=[0, math.log(2), 1e6]))
    assert found.tolist() == pytest.approx([0.2, 0.4, 0.4], abs=1e-12)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.floats(0.0, 30.0), min_size=3, max_size=8), st.floats(0.34, 1.0))
def test_caps_against_cutting_one_by_one(losses: list[float], cap: float) -> None:
    found = TERM(t=1, weight_cap=cap)(cohort([1] * len(losses), loss_before=losses)).tolist()
    assert found == pytest.approx(reference.capped([math.exp(loss) for loss in losses], cap), rel=1e-7, abs=1e-12)
    assert max(found) <= cap * (1 + 1e-9)
    assert math.fsum(found) == pytest.approx(1, abs=1e-12)


def test_a_cap_of_1_over_n_makes_all_equal() -> None:
    for n in (1, 3, 7, 10, 49):
        seen = cohort([1] * n, loss_before=[float(i) for i in range(n)])
        assert TERM(t=1, weight_cap=1 / n)(seen).tolist() == pytest.approx([1 / n] * n, abs=1e-12)


def test_a_weight_cap_lowers_the_weight_of_a_loss_in_step_and_length() -> None:
    """Losses 1, 1 and 4 with q = 1: the share 2/3 becomes 1/2, as if the loss's weight were 2 and not 4."""
    seen = cohort([1] * 3, rows=[[1.0], [0.0], [3.0]], loss_before=[1, 1, 4])
    weights = torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64)
    h = [1 * (1 / 1 * 10 * 1 + 1), 1 * (0 + 1), 2 * (1 / 4 * 10 * 9 + 1)]
    torch.testing.assert_close(QFedAvg(q=1, lr=0.1, weight_cap=0.5)(seen), weights / sum(h), rtol=1e-12, atol=0)


# What both do


BOTH = [QFedAvg(q=1.5, lr=0.1), QFedAvg(q=1, lr=0.1, weight_cap=0.4), TERM(t=0.7), TERM(t=-3, weight_cap=0.4)]


@pytest.mark.parametrize("weighting", BOTH, ids=str)
def test_the_order_of_clients_does_not_matter(weighting: Weighting) -> None:
    order, seen = [2, 0, 3, 1], cohort([4, 2, 9, 4], loss_before=[0.5, 2.5, 2.5, 1.0])
    torch.testing.assert_close(weighting(reordered(seen, order)), weighting(seen)[order], rtol=1e-12, atol=0)


@pytest.mark.parametrize("weighting", BOTH, ids=str)
def test_what_both_refuse(weighting: Weighting) -> None:
    with pytest.raises(ValueError, match=r"needs every client to report loss_before; client 5 does not"):
        weighting(cohort([1, 1], ids=[5, 9]))
    with pytest.raises(ValueError, match=r"client 9 does not"):
        weighting(cohort([1, 1], loss_before=[1, math.nan], ids=[5, 9]))
    with pytest.raises(ValueError, match=r"needs losses >= 0; client 9 reports loss_before=-0.5"):
        weighting(cohort([1, 1], loss_before=[1, -0.5], ids=[5, 9]))


def test_a_cap_that_too_few_clients_can_fill() -> None:
    """Five clients, one of them without examples."""
    seen = cohort([1, 1, 1, 1, 0], loss_before=[1, 2, 3, 4, 5])
    with pytest.raises(
        ValueError, match=r"TERM needs weight_cap >= 1/n, .*got weight_cap=0.2, n=4 clients of positive weight"
    ):
        TERM(t=1, weight_cap=0.2)(seen)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QFedAvg(q=-1, lr=0.1), "QFedAvg needs a finite q >= 0; got q=-1"),
        (lambda: QFedAvg(q=1, lr=0), "the clients' learning rate, lr > 0; got lr=0"),
        (lambda: QFedAvg(q=1, lr=0.1, loss_cap=0), "loss_cap > 0, or None for no cap; got loss_cap=0"),
        (lambda: TERM(t=1, weight_cap=1.5), "TERM needs 0 < weight_cap <= 1, or None for no cap; got weight_cap=1.5"),
        (lambda: TERM(t=math.inf), "TERM needs a finite t; got t=inf"),
        (lambda: TERM(t=1, base=3), "TERM needs a weighting as base, or None; got base=3"),  # type: ignore[arg-type]
    ],
)
def test_impossible_settings(make: Callable[[], Weighting], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_there_must_be_a_weight_to_tilt() -> None:
    class Negative(Uniform):
        def __call__(self, cohort: object) -> torch.Tensor:
            return -super().__call__(cohort)  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=r"TERM needs weights >= 0, not all 0, to tilt; Negative gives \[-0.5, -0.5\]"):
        TERM(t=1, base=Negative())(cohort([1, 1], loss_before=[1, 2]))
