"""FedExP: how long its step is, which model is measured, and what it demands beside a robust rule."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from fedagg import Cohort, ConfigError, LocalGrid, LocalSGD, Strategy, Weighting, run
from fedagg.clients import Clients
from fedagg.loop import Callback, Round
from fedagg.server_optimizers import Step
from strategies import NNM, AverageAll, ByExamples, FedAU, FedExP, GeometricMedian, Mean, Median, TrimmedMean, Uniform
from tests.oracle import EXECUTORS, Number, local, population, trajectory
from tests.resume.parts import KillAfter, Killed
from tests.running import run_into

from .inputs import cohort

APART = [[1.0, 0.0], [-0.8, 0.1]]


def eta(strategy: FedExP, seen: Cohort) -> float:
    """How many times the plain aggregate the step is."""
    plain = Strategy(strategy.rule, strategy.weighting, strategy.pre_aggregators).aggregate(seen)
    step = strategy.aggregate(seen)
    factor = strategy.round_metrics["eta_g"]
    torch.testing.assert_close(step, factor * plain, rtol=1e-12, atol=0)
    return factor


@pytest.mark.parametrize(("rows", "wanted"), [([[1.0, 0.0], [0.0, 1.0]], 1.0), (APART, 30.5555555556)])
def test_golden_steps(rows: list[list[float]], wanted: float) -> None:
    assert eta(FedExP(eps=1e-3), cohort([1, 1], rows=rows)) == pytest.approx(wanted, abs=1e-8)


def test_weights_count() -> None:
    """D = 0.75 (1, 0) + 0.25 (-0.8, 0.1) = (0.55, 0.025), and 0.75 + 0.25 * 0.65 over 2 (0.303125 + eps)."""
    found = eta(FedExP(eps=1e-3, weighting=ByExamples()), cohort([3, 1], rows=APART))
    assert found == pytest.approx(0.9125 / (2 * 0.304125), abs=1e-8)
    assert eta(FedExP(weighting=Uniform()), cohort([3, 1], rows=APART)) == eta(FedExP(), cohort([1, 1], rows=APART))


def test_who_agrees_makes_a_plain_step() -> None:
    seen = cohort([1, 4, 2], rows=[[0.3, -2.0]] * 3)
    strategy = FedExP(weighting=ByExamples())
    assert strategy.aggregate(seen).tolist() == pytest.approx([0.3, -2.0], abs=1e-15)
    assert strategy.round_metrics == {"eta_g": 1.0}


def everybody(rows: list[list[float]], population: int) -> Cohort:
    return replace(cohort([1] * len(rows), rows=rows), population=population)


@pytest.mark.parametrize("weighting", [AverageAll(), FedAU()], ids=str)
def test_weights_that_divide_by_all_clients_keep_doing_so(weighting: Weighting) -> None:
    """Four clients of forty agree: eta is 1, and the step a tenth of what they sent."""
    strategy = FedExP(weighting=weighting)
    step = strategy.aggregate(everybody([[3.0, -1.0]] * 4, population=40))
    assert strategy.round_metrics == {"eta_g": 1.0}
    assert step.tolist() == pytest.approx([0.3, -0.1], abs=1e-15)


def test_only_the_ratios_of_weights_make_the_step_longer() -> None:
    """Weights 1/8 each: D = (0.2, 0.1) / 8, D / W = (0.1, 0.05), so eta = 0.825 / (2 (0.0125 + eps)) = 30.5555555556."""
    found = eta(FedExP(eps=1e-3, weighting=AverageAll()), everybody(APART, population=8))
    assert found == pytest.approx(30.5555555556, abs=1e-8)


@dataclass(frozen=True)
class Nothing(Weighting):
    """Nobody counts."""

    def __call__(self, cohort: Cohort) -> torch.Tensor:
        return torch.zeros(cohort.n, dtype=torch.float64)


def test_weights_that_are_all_0_make_no_step() -> None:
    strategy = FedExP(weighting=Nothing())
    assert strategy.aggregate(cohort([1, 1], rows=APART)).tolist() == [0.0, 0.0]
    assert strategy.round_metrics == {"eta_g": 1.0}


def test_a_cap_holds_a_pair_that_cancels() -> None:
    lying = cohort([1] * 4, rows=[[1.0, 0.0], [1.0, 0.1], [1e6, 1e6], [-1e6, -1e6]])
    assert eta(FedExP(), lying) > 1e9
    assert eta(FedExP(eta_max=3.0), lying) == 3.0
    assert eta(FedExP(eta_max=3.0, rule=TrimmedMean(f=1)), lying) == 3.0


def test_a_robust_rule_needs_a_cap() -> None:
    for parts in ({"rule": Median()}, {"rule": GeometricMedian()}, {"pre_aggregators": [NNM(f=1)]}):
        with pytest.raises(ConfigError, match=r"FedExP with .*(Median|NNM-1).* needs a cap on its step, strategy.eta_max"):
            FedExP(**parts)  # type: ignore[arg-type]
        FedExP(eta_max=2.0, **parts)  # type: ignore[arg-type]
    FedExP(rule=Mean())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eta_max": 0.5}, "eta_max >= 1, or None for no cap; got eta_max=0.5"),
        ({"eps": 0.0}, "eps > 0; got eps=0.0"),
    ],
)
def test_impossible_settings(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FedExP(**arguments)


def test_repr_pastes_back() -> None:
    strategy = FedExP(eta_max=4.0, eps=0.01, rule=Mean(), weighting=ByExamples(), cohort=3)
    assert repr(eval(repr(strategy))) == repr(strategy)


def by_hand(rounds: int, eps: float) -> tuple[list[float], list[float]]:
    """The model, and what it was multiplied by, of every round on the two parabolas: two local steps, equal weights."""
    w, models, factors = 0.0, [], []
    for _ in range(rounds):
        changes = [0.19 * (1 - w), 0.36 * (-1 - w)]
        mean = sum(changes) / 2
        factors.append(max(1.0, sum(change**2 for change in changes) / (4 * (mean**2 + eps))))
        w += factors[-1] * mean
        models.append(w)
    return models, factors


@pytest.mark.parametrize(("executor", "allowed"), EXECUTORS.items())
def test_two_parabolas(executor: str, allowed: float, tmp_path: Path) -> None:
    wanted, factors = by_hand(12, eps=0.01)
    assert max(factors) > 2
    found = trajectory(FedExP(eps=0.01), local(), rounds=12, executor=executor)
    assert found.w == pytest.approx(wanted, abs=10 * allowed)
    again = trajectory(FedExP(eps=0.01), local(), rounds=12, executor=executor, resumed_in=tmp_path)
    assert again.w == found.w


def test_the_mean_of_two_iterates_is_measured(tmp_path: Path) -> None:
    class Look(Callback):
        def round_finished(self, done: Round) -> None:
            iterates.append(float(done.arrays["w"].numpy()[0]))
            if done.round:
                factors.append(done.value("server", "eta_g") or 0.0)

    iterates, factors, measured = list[float](), list[float](), list[float]()

    def measure(arrays: object) -> dict[str, float]:
        measured.append(float(arrays["w"].numpy()[0]))  # type: ignore[index]
        return {}

    grid = LocalGrid(Clients(population(), Number(), local(LocalSGD), seed=0))
    result = run(grid, FedExP(eps=0.01), Number(), 5, evaluate=measure, callbacks=[Look()])
    wanted, wanted_factors = by_hand(5, eps=0.01)
    assert iterates == pytest.approx([0.0, *wanted], abs=1e-12)
    assert factors == pytest.approx(wanted_factors, abs=1e-9)
    means = [(a + b) / 2 for a, b in zip([0.0, *wanted], wanted, strict=False)]
    assert measured == pytest.approx([0.0, *means], abs=1e-12)
    assert result.arrays["w"].numpy()[0] == pytest.approx(means[-1], abs=1e-12)


def test_state() -> None:
    strategy, params = FedExP(), torch.tensor([2.0, 4.0], dtype=torch.float64)
    assert strategy.state_dict() == {}
    assert torch.equal(strategy.evaluated(params), params)
    seen = cohort([1, 1], rows=APART)
    strategy.aggregate(seen)
    assert strategy.evaluated(params).tolist() == [1.0, 2.0]  # the cohort received the origin
    saved = strategy.state_dict()
    other = FedExP()
    other.load_state_dict(saved)
    saved["previous"].fill_(7)
    assert other.evaluated(params).tolist() == strategy.evaluated(params).tolist() == [1.0, 2.0]
    other.load_state_dict({})
    assert torch.equal(other.evaluated(params), params)
    assert params.tolist() == [2.0, 4.0]


def test_a_round_without_a_step_reports_none_and_a_resumed_run_writes_the_same(tmp_path: Path) -> None:
    """Nobody can be reached in round 3, the first after the checkpoint."""
    trace = tmp_path / "trace.csv"
    trace.write_text("1,1,1,1,1,1\n1,0,1,0,1,0\n0,0,0,0,0,0\n1,1,1,1,1,1\n")
    settings = ["strategy=fedexp", "participation=trace", f"participation.file={trace}", "rounds=4", "checkpoint.every=2"]
    run_into(tmp_path / "whole", *settings)
    with pytest.raises(Killed):
        run_into(tmp_path / "killed", *settings, watch=lambda _: [KillAfter(3)])
    _, resumed = run_into(tmp_path / "killed", *settings, resume=True)
    table = (resumed.path / "metrics.csv").read_text()
    assert table == (tmp_path / "whole" / "metrics.csv").read_text()
    assert [line.split(",")[0] for line in table.splitlines() if ",eta_g," in line] == ["1", "2", "4"]


def test_the_server_optimizer_comes_after() -> None:
    found = trajectory(FedExP(eps=0.01, server_optimizer=Step(lr=0.5)), local(), rounds=1).w
    assert found == pytest.approx([by_hand(1, 0.01)[0][0] / 2], abs=1e-12)
