"""The oracle itself: gradient descent on two parabolas, worked out by hand. Every algorithm's own tests stand on it."""

from pathlib import Path

import pytest

from fedagg import Strategy
from strategies import ByExamples, Uniform
from tests.oracle import CENTRES, CURVATURES, EXECUTORS, LR, local, trajectory

every_executor = pytest.mark.parametrize(("executor", "allowed"), EXECUTORS.items())


@every_executor
def test_federated_averaging_settles_beside_the_optimum(executor: str, allowed: float) -> None:
    """After two steps a client has come 1 - 0.9^2 = 0.19 of its way to 1, or 1 - 0.8^2 = 0.36 of its way to -1."""
    found = trajectory(Strategy(weighting=Uniform()), local(), rounds=90, executor=executor).w
    assert found[:2] == pytest.approx([(0.19 - 0.36) / 2, -0.146625], abs=allowed)
    assert found[-1] == pytest.approx(-17 / 55, abs=allowed)


@every_executor
def test_uneven_steps(executor: str, allowed: float) -> None:
    found = trajectory(Strategy(weighting=Uniform()), local(), rounds=60, steps=(2, 5), executor=executor).w
    assert found[0] == pytest.approx(-0.24116, abs=allowed)
    assert found[-1] == pytest.approx(-0.5593283236, abs=1e-10 + allowed)


def test_one_step_a_round_is_gradient_descent() -> None:
    w, wanted = 0.0, []
    for _ in range(5):
        w -= LR * sum(a * (w - b) for a, b in zip(CURVATURES, CENTRES, strict=True)) / 2
        wanted.append(w)
    assert trajectory(Strategy(), local(), rounds=5, steps=(1, 1)).w == pytest.approx(wanted, abs=1e-15)


def test_examples_weigh() -> None:
    """One step each, for a client with one example and one with three."""
    found = trajectory(Strategy(weighting=ByExamples()), local(batch_size=3), rounds=1, steps=(1, 3)).w
    assert found == pytest.approx([0.25 * 0.1 - 0.75 * 0.2], abs=1e-15)


@every_executor
def test_going_on_from_a_checkpoint_changes_nothing(executor: str, allowed: float, tmp_path: Path) -> None:
    whole = trajectory(Strategy(), local(), rounds=3, executor=executor).w
    assert trajectory(Strategy(), local(), rounds=3, executor=executor, resumed_in=tmp_path).w == whole
