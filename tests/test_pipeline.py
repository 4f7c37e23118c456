"""Pre-aggregators and a rule in a row: their order, their draws, the attackers already found out, and what is refused."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from fedagg import Cohort, ConfigError, PreAggregator, Rule, Strategy, rng
from fedagg.experiment import build
from fedagg.hydra_app import compose, compose_with_choices
from fedagg.pipeline import Pipeline
from fedagg.results import run_id
from strategies import (
    GAS,
    NNM,
    Bucketing,
    ByExamples,
    FlagAggregator,
    FoolsGold,
    Mean,
    Median,
    MoNNA,
    MultiKrum,
    RobustLearningRate,
    Zeno,
)
from tests.running import SMALL


def cohort_of(rows: Tensor) -> Cohort:
    return Cohort(1, range(10, 10 + len(rows)), rows, torch.zeros(rows.shape[1]), torch.ones(len(rows)))


@dataclass(frozen=True)
class Noise(PreAggregator):
    random = True
    generator: torch.Generator | None = field(default=None, repr=False, compare=False)

    def __call__(self, updates: Tensor) -> Tensor:
        return updates + torch.randn(updates.shape, generator=self.generator)


@dataclass(frozen=True)
class Pairs(PreAggregator):
    keeps_clients = False

    def __call__(self, updates: Tensor) -> Tensor:
        return updates.view(len(updates) // 2, 2, -1).mean(dim=1)


@dataclass(frozen=True)
class Tolerant(Rule):
    """Returns the f it is called with."""

    f: int

    def __call__(self, updates: Tensor, weights: Tensor | None = None) -> Tensor:
        if 2 * self.f >= len(updates):
            raise ValueError(f"Tolerant needs n > 2f; got n={len(updates)}, f={self.f}")
        return torch.full_like(updates[0], float(self.f))


@dataclass(frozen=True)
class Around(Rule):
    """Adds its own f to a hundred times that of the rule it is built around."""

    f: int
    rule: Rule

    def __call__(self, updates: Tensor, weights: Tensor | None = None) -> Tensor:
        return self.f + 100 * self.rule(updates)


class Following(Rule):
    needs = frozenset({"client_ids"})

    def __call__(self, updates: Tensor, weights: Tensor | None = None, *, client_ids: Sequence[int] = ()) -> Tensor:
        return torch.tensor([float(client) for client in client_ids])


def test_parts_are_called_in_their_order() -> None:
    rows = torch.tensor([[1.0], [3.0], [10.0], [20.0], [30.0], [50.0]])
    assert Pipeline((Pairs(),), Median())(cohort_of(rows)).tolist() == [15.0]  # of 2, 15, 40
    assert Pipeline((), Following())(cohort_of(rows)).tolist() == [10.0, 11.0, 12.0, 13.0, 14.0, 15.0]


def test_weights_go_to_the_rule() -> None:
    rows = torch.tensor([[1.0], [3.0]])
    assert Pipeline((), Mean())(cohort_of(rows), torch.tensor([0.25, 0.75])).tolist() == [2.5]


def test_every_random_part_has_draws_of_its_own() -> None:
    rows, first, second = torch.zeros(4, 3), Noise(), Noise()
    pipeline = Pipeline((first, second), Mean())
    with pipeline.prepared(seed=7, round=2, found_out=0):
        got = pipeline(cohort_of(rows))
    draws = [torch.randn(4, 3, generator=rng.generator(7, "rule", 2, place)) for place in (1, 2)]
    torch.testing.assert_close(got, (draws[0] + draws[1]).mean(dim=0))
    assert first.generator is second.generator is None


def test_attackers_who_were_found_out_lower_f_inside_other_rules_too() -> None:
    rule = Around(f=3, rule=Around(f=2, rule=Tolerant(f=1)))
    pipeline = Pipeline((), rule)
    with pipeline.prepared(seed=0, round=1, found_out=2):
        assert pipeline(cohort_of(torch.zeros(9, 1))).tolist() == [1 + 100 * (0 + 100 * 0)]
    assert pipeline(cohort_of(torch.zeros(9, 1))).tolist() == [3 + 100 * (2 + 100 * 1)]


def test_a_bound_that_is_broken_says_which_numbers_to_change() -> None:
    advice = r"Lower f \(or attack.fraction\) or raise cohort"
    with pytest.raises(ConfigError, match=rf"^Tolerant .* got n=5, f=3 \(10 clients became 5 rows in Pairs\). {advice}$"):
        Pipeline((Pairs(),), Tolerant(f=3)).check(10, weights=False, trusted=False)
    Pipeline((Pairs(),), Tolerant(f=2)).check(10, weights=False, trusted=False)


@pytest.mark.parametrize(
    ("rule", "ends"),
    [
        (RobustLearningRate(theta=9), "got n=8, theta=9"),
        (MultiKrum(f=1, m=9), "got n=8, f=1, m=9"),
        (MoNNA(f=1, reference=8), "got n=8, f=1, reference=8"),
        (MoNNA(f=4), "got n=8, f=4, reference=0. Lower f (or attack.fraction) or raise cohort"),
        (FlagAggregator(r=9), "got n=8, r=9"),
        (Zeno(f=8), "got n=8, f=8. Lower f (or attack.fraction) or raise cohort"),
    ],
    ids=str,
)
def test_no_other_bound_is_said_to_be_about_f(rule: Rule, ends: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Pipeline((), rule).check(8, weights=False, trusted=True)
    assert str(caught.value).endswith(ends)


def test_a_rule_that_weighs_clients_alike_takes_mixtures_of_them() -> None:
    build(compose([*SMALL, "strategy=robust_learning_rate", "strategy.rule.theta=2", "pre_aggregators=bucketing"]))


def test_a_weighting_bears_parts_that_keep_clients_apart_and_no_others() -> None:
    Strategy(Mean(), ByExamples(), [Noise()])
    with pytest.raises(ConfigError, match="weighting=ByExamples speaks of clients, but Pairs leaves no row"):
        Strategy(Mean(), ByExamples(), [Noise(), Pairs()])


def test_pre_aggregators_are_chosen_on_the_command_line_in_their_order() -> None:
    def names(*overrides: str) -> list[str]:
        strategy = build(compose([*SMALL, "strategy=median", "f=1", *overrides])).strategy
        assert isinstance(strategy, Strategy)
        return [str(part) for part in strategy.pre_aggregators]

    assert names() == names("pre_aggregators=none") == []
    assert names("pre_aggregators=nnm") == ["NNM-1"]
    assert names("pre_aggregators=[arc,nnm]", "pre_aggregators.arc.f=2") == ["ARC-2", "NNM-1"]
    assert names("pre_aggregators=[nnm,arc]") == ["NNM-1", "ARC-1"]


def test_a_chain_is_part_of_a_runs_label_and_of_its_name() -> None:
    chains = ["pre_aggregators=nnm", "pre_aggregators=[nnm,arc]", "pre_aggregators=[arc,nnm]"]
    composed = [compose_with_choices([chain]) for chain in chains]
    assert [choices["pre_aggregators"] for _, choices in composed] == ["nnm", "nnm,arc", "arc,nnm"]
    assert len({run_id(OmegaConf.to_container(cfg, resolve=True)) for cfg, _ in composed}) == 3  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["pre_aggregators=nmm"], "pre_aggregators has no choice nmm (did you mean nnm?)"),
        (
            ["pre_aggregators=[nnm,ark]"],
            "pre_aggregators has no choice ark (did you mean arc?). Choices: arc, bucketing, nnm",
        ),
        (["pre_aggregators=nnm", "strategy=flwr_fedavg"], "pre_aggregators have no effect on flwr.serverapp.strategy.FedAvg"),
        (["pre_aggregators=bucketing", "strategy=fedavg"], "strategy.weighting=null leaves out a strategy's own"),
    ],
)
def test_what_cannot_be_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(compose([*SMALL, *overrides]))
    assert message in str(caught.value)


@pytest.mark.parametrize("s", [1, 2])  # s = 1 shuffles: as many rows as clients, and none in its place
@pytest.mark.parametrize("rule", [MoNNA(f=1), GAS(f=1, rule=MoNNA(f=1)), FoolsGold()], ids=str)
def test_a_rule_that_follows_clients_is_refused_behind_buckets(rule: Rule, s: int) -> None:
    with pytest.raises(ConfigError, match=r"follows clients, but Bucketing.* leaves no row that stands for one"):
        Strategy(rule, pre_aggregators=[Bucketing(s=s)], cohort=10).check(10)
    Strategy(rule, pre_aggregators=[NNM(f=1)], cohort=10).check(10)
