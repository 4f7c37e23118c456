"""The attacks in the world they are made for: what the engine lends them, and that nothing is left to chance."""

import pytest
import torch

from fedagg import run
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
