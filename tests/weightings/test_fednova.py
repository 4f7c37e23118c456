"""FedNova: alone, around other weightings, and on two parabolas with 2 and 5 local steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedagg import LocalSGD, Strategy
from strategies import ByExamples, FedDisco, FedNova, Uniform
from tests.oracle import CURVATURES, EXECUTORS, local, trajectory

from . import reference
from .inputs import Rounds, cohort, reordered


def test_golden_step() -> None:
    seen = cohort([1, 1], rows=[[-2.0], [-8.0]], a_norm=[2, 4])
    assert (FedNova()(seen) @ seen.updates).tolist() == [-4.5]
    assert (ByExamples()(seen) @ seen.updates).tolist() == [-5.0]


def test_golden_weights_of_unequal_sizes() -> None:
    """640 and 320 examples in batches of 64: tau = 25/3, and 5/9 for each; what is left of the old model is -1/9."""
    assert FedNova()(cohort([640, 320], a_norm=[10, 5])).tolist() == pytest.approx([5 / 9, 5 / 9], abs=1e-15)


@pytest.mark.parametrize("base", [None, Uniform(), FedDisco()], ids=str)
def test_equal_steps_change_nothing(base: Uniform | FedDisco | None) -> None:
    seen = cohort([3, 5, 9], labels=[[1, 2], [5, 0], [4, 5]], a_norm=[7.3] * 3)
    torch.testing.assert_close(FedNova(base)(seen), (base or ByExamples())(seen), rtol=1e-14, atol=0)


def test_equal_steps_change_nothing_where_weights_do_not_sum_to_one() -> None:
    assert FedNova(Rounds())(cohort([1, 1], a_norm=[4, 4])).tolist() == [1.0, 1.0]


def test_around_feddisco() -> None:
    labels, steps = [[8, 2], [5, 5], [1, 30]], [2.0, 3.0, 9.0]
    shares = reference.feddisco([10, 10, 31], labels, 0.5, 0.1, "kl", [1, 1], normalize=True)
    tau = sum(p * a for p, a in zip(shares, steps, strict=True))
    wanted = [p * tau / a for p, a in zip(shares, steps, strict=True)]
    weighting = FedNova(FedDisco())
    assert weighting(cohort([10, 10, 31], labels=labels, a_norm=steps)).tolist() == pytest.approx(wanted, abs=1e-12)
    assert weighting.needs == {"a_norm", "label_counts"}
    assert FedNova().needs == {"a_norm"}
    assert str(weighting) == "FedNova-base=FedDisco"


def test_nobody_counts() -> None:
    silent = FedNova(Rounds())
    silent.base.asked = -1  # type: ignore[union-attr]
    assert silent(cohort([1, 1], a_norm=[1, 2])).tolist() == [0.0, 0.0]


def test_state_is_that_of_the_base() -> None:
    weighting, seen = FedNova(Rounds()), cohort([1, 1], a_norm=[2, 2])
    assert [weighting(seen)[0].item() for _ in range(2)] == [1.0, 2.0]
    saved = weighting.state_dict()
    weighting.reset()
    assert weighting(seen)[0].item() == 1.0
    weighting.load_state_dict(saved)
    assert weighting(seen)[0].item() == 3.0
    for without in (FedNova(), FedNova(Uniform())):
        assert not hasattr(without, "state_dict")


def test_the_order_of_clients_does_not_matter() -> None:
    order, seen = [2, 0, 1], cohort([3, 5, 9], a_norm=[1, 5, 3])
    torch.testing.assert_close(FedNova()(reordered(seen, order)), FedNova()(seen)[order], rtol=1e-14, atol=0)


@pytest.mark.parametrize("norm", [0.0, -1.0])
def test_a_client_without_a_step_is_refused(norm: float) -> None:
    with pytest.raises(ValueError, match=f"made a local step; client 8 reports a_norm={norm}"):
        FedNova()(cohort([1, 1], a_norm=[1, norm], ids=[4, 8]))


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="FedNova needs every client to report a_norm; client 4 does not"):
        FedNova()(cohort([1, 1], ids=[4, 8]))
    with pytest.raises(ValueError, match="client 8 does not"):
        FedNova()(cohort([1, 1], a_norm=[1, float("nan")], ids=[4, 8]))
    with pytest.raises(ValueError, match="FedNova needs a weighting as base, or None; got base='uniform'"):
        FedNova("uniform")  # type: ignore[arg-type]


# On two parabolas


def fednova() -> Strategy:
    return Strategy(weighting=FedNova(Uniform()))


@pytest.mark.parametrize(("executor", "allowed"), EXECUTORS.items())
def test_two_and_five_steps(executor: str, allowed: float, tmp_path: Path) -> None:
    found = trajectory(fednova(), local(), rounds=60, steps=(2, 5), executor=executor).w
    assert found[0] == pytest.approx(-0.069062, abs=allowed)
    assert found[-1] == pytest.approx(-0.1719834048, abs=1e-10 + allowed)
    assert trajectory(fednova(), local(), rounds=3, steps=(2, 5), executor=executor, resumed_in=tmp_path).w == found[:3]


@pytest.mark.parametrize(("lr", "limit"), [(0.01, -0.31769), (0.001, -0.33178)])
def test_smaller_steps_tend_to_the_optimum(lr: float, limit: float) -> None:
    """A round is affine in w, so its fixed point and the way there follow from how far a step pulls w to 1 and to -1."""
    pulls = [(1 - (1 - lr * a) ** k) / k for a, k in zip(CURVATURES, (2, 5), strict=True)]
    fixed = (pulls[0] - pulls[1]) / sum(pulls)
    assert fixed == pytest.approx(limit, abs=5e-6)
    rate = 3.5 * sum(pulls) / 2  # tau = (2 + 5) / 2
    found = trajectory(fednova(), local(lr=lr), rounds=100, steps=(2, 5)).w
    assert found == pytest.approx([fixed * (1 - (1 - rate) ** t) for t in range(1, 101)], abs=1e-12)


@pytest.mark.parametrize(("momentum", "steps", "wanted"), [(0.0, 7, 7.0), (0.9, 5, 13.1441), (0.9, 1, 1.0), (0.5, 1, 1.0)])
def test_how_local_sgd_adds_up_gradients(momentum: float, steps: int, wanted: float) -> None:
    assert LocalSGD(momentum=momentum).a_norm(steps) == pytest.approx(wanted, abs=1e-12)
