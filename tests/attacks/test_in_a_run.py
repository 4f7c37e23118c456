"""The attacks in the world they are made for: what the engine lends them, and that nothing is left to chance."""

import pytest
import torch

from fedagg import ConfigError, run
from fedagg.attacks import ALIE
from fedagg.experiment import build
from fedagg.hydra_app import compose

WORLD = ["model=logistic_regression", "partition=iid", "population=7", "rounds=3", "attack.fraction=0.28"]


def finish(*overrides):
    """Run, and return the experiment and the final state of the model."""
    experiment = build(compose([*WORLD, *overrides]))
    result = run(experiment.grid, experiment.strategy, experiment.model, experiment.cfg.rounds)
    assert all(void == 0.0 for _, void in result.series("attack_void", "server"))
    return experiment, experiment.clients.layout.read(result.arrays)


def attack_after(*overrides):
    return finish(*overrides)[0].grid.attack


@pytest.mark.parametrize("attack", ["optimal_alie", "optimal_ipm"])
def test_an_optimal_attack_is_lent_the_rule_that_runs(attack):
    """The mean is moved most by what goes furthest; Krum is not."""
    against_mean = attack_after(f"attack={attack}", "strategy=fedavg")
    against_krum = attack_after(f"attack={attack}", "strategy=krum")
    assert against_mean.last_info["t"] == 51.2
    assert against_krum.last_info["t"] < 51.2
    assert against_krum.aggregator is None


def test_a_rule_of_its_own_is_kept():
    surrogate = "attack.method.aggregator={_target_: strategies.Mean}"
    attack = attack_after("attack=optimal_alie", "strategy=krum", surrogate)
    assert attack.last_info["t"] == 51.2
    assert repr(attack.aggregator) == "Mean()"


@pytest.mark.parametrize(
    "attack",
    [
        ["backdoor"],
        ["dba", "attack.method.fraction=0.3"],
        ["model_replacement"],
        ["neurotoxin"],
        ["fang_trimmed_mean"],
        ["free_rider", "attack.method.std=0.1"],
        ["mimic", "attack.method.warmup=2"],
    ],
    ids=lambda attack: attack[0],
)
def test_the_same_seed_gives_the_same_model(attack):
    models = [finish(f"attack={attack[0]}", *attack[1:], f"seed={seed}")[1].params for seed in (0, 0, 1)]
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])


def taken_for(target, experiment, state, trigger):
    """The share of the other classes' stamped test images that the model calls ``target``."""
    data = experiment.clients.population.dataset
    experiment.clients.layout.scatter(state, experiment.model)
    others = data.y_test != target
    with torch.no_grad():
        called = experiment.model(trigger(data.features(data.x_test[others]))).argmax(dim=1)
    return float((called == target).double().mean())


@pytest.mark.parametrize("attack", ["backdoor", "model_replacement", "neurotoxin"])
def test_a_backdoor_is_learnt(attack):
    """Three of seven clients stamp half of their digits; what bears the square is then called by its class."""
    path = "attack.method" if attack == "backdoor" else "attack.method.backdoor"
    overrides = [f"{path}.fraction=0.5", f"{path}.target=3", "attack.fraction=0.43", "rounds=30"]
    overrides += ["attack.method.gamma=1.5"] if attack == "model_replacement" else []
    experiment, state = finish(f"attack={attack}", *overrides)
    trigger = experiment.grid.attack.trigger
    assert taken_for(3, experiment, state, trigger) > 0.9
    assert taken_for(3, experiment, state, lambda x: x) < 0.1
    assert taken_for(3, *finish("rounds=30"), trigger) < 0.12


@pytest.mark.parametrize("attack", [["alie", "+attack.method.formula=n"], ["alie"], ["rop"]])
def test_attackers_who_see_only_each_other_know_how_many_clients_there_are(attack):
    """Of 12 clients 4 are corrupted, so s = 3: z is Phi^-1(9/12) by n, and Phi^-1(5/8) = 0.318639 as in the paper.

    Were there only the 4 and as many others, z would be Phi^-1(7/8) and Phi^-1(3/4).
    """
    overrides = ["attack.knowledge=corrupted", "attack.fraction=0.334", "population=12"]
    experiment = build(compose([*WORLD, f"attack={attack[0]}", *attack[1:], *overrides]))
    shift, found = ALIE.shift, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ALIE, "shift", lambda self, n, f: found.append(shift(self, n, f)) or found[-1])
        run(experiment.grid, experiment.strategy, experiment.model, 1)
    assert found == [pytest.approx(0.674490 if attack[1:] else 0.318639, abs=1e-6)]


def test_a_cohort_of_attackers_alone_has_no_supporters():
    experiment = build(compose([*WORLD, "attack=alie", "attack.fraction=1", "f=0"]))
    result = run(experiment.grid, experiment.strategy, experiment.model, 1)
    assert result.last("attack_void", "server") == 1.0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["attack=fang_krum", "population=10"],
            r"FangKrum needs h >= f \+ 3 honest updates .*; got h=3, f=3. attack.knowledge=corrupted shows it 3 rows, "
            r"those of the attackers; leave it out",
        ),
        (["attack=alie", "cohort=3"], r"ALIE needs h - ddof >= 1 .*; got h=1, ddof=1. attack.knowledge=corrupted .* or raise"),
    ],
)
def test_an_attack_that_the_corrupted_clients_cannot_make_is_refused_at_the_start(overrides, message):
    with pytest.raises(ConfigError, match=message):
        build(compose([*WORLD, "attack.knowledge=corrupted", *overrides]))
