"""Every YAML: it composes, it builds, its first line is a command that works, and what it names is what is run."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fedagg import Adversary, DatasetUnavailable, FedaggError, Strategy, run
from fedagg.attacks import NaNAttack
from fedagg.console import config_dir
from fedagg.experiment import Experiment, build
from fedagg.hydra_app import compose
from fedagg.instantiate import class_of
from fedagg.loop import Result

CONFIGS = config_dir()
GROUPS = sorted(folder.name for folder in CONFIGS.iterdir() if folder.is_dir() and folder.name != "machine")
CHOICES = [(group, file.stem) for group in GROUPS for file in sorted((CONFIGS / group).glob("*.yaml"))]
PUBLIC = [(group, name) for group, name in CHOICES if not name.startswith("_")]
DEFAULTS = {
    key.removeprefix("optional "): value
    for entry in yaml.safe_load((CONFIGS / "config.yaml").read_text())["defaults"]
    if isinstance(entry, dict)
    for key, value in entry.items()
}
QUICK = ["model=logistic_regression", "partition=iid", "rounds=2"]

every_choice = pytest.mark.parametrize(("group", "name"), PUBLIC)


def command_of(file: Path) -> list[str]:
    """The overrides of the command in a file's first line; prose may follow after a colon."""
    first = file.read_text().splitlines()[0]
    assert first.startswith("# fedagg run "), f"{file.name} must begin with the command that uses it; it begins with {first!r}"
    return first.removeprefix("# fedagg run ").split(": ")[0].split()


def names_in(group: str) -> list[str]:
    return [name for folder, name in PUBLIC if folder == group]


def needs(group: str, name: str) -> list[str]:
    """The other choices without which this one makes no sense, as its command has them."""
    words = command_of(CONFIGS / group / f"{name}.yaml")
    return [word for word in words if word.split("=")[0] in {"strategy", "local", "model"} - {group}]


def targets(node: Any) -> Iterator[str]:
    """Every ``_target_`` in a config, at any depth."""
    if isinstance(node, dict):
        if node.get("_target_") is not None:
            yield node["_target_"]
        for value in node.values():
            yield from targets(value)


def test_there_is_something_to_test() -> None:
    assert {"attack", "data", "engine", "local", "model", "participation", "partition", "server_optimizer", "strategy"} <= set(
        GROUPS
    )
    assert len(PUBLIC) >= 30


@every_choice
def test_every_choice_builds_with_the_command_in_its_first_line(group: str, name: str) -> None:
    file = CONFIGS / group / f"{name}.yaml"
    overrides = command_of(file)
    parsed = {override.key_or_group: override.value() for override in OverridesParser.create().parse_overrides(overrides)}
    if group in parsed:
        assert parsed[group] == name
    else:  # the default choice: its command shows one of its keys
        assert DEFAULTS[group] == name
        assert any(key.startswith(f"{group}.") for key in parsed)
    cfg = compose(overrides)
    composed = OmegaConf.to_container(cfg[group], resolve=False)
    assert isinstance(composed, dict)
    if any(target.startswith("flwr_datasets.") for target in targets(composed)):
        pytest.importorskip("flwr_datasets", reason="pip install flwr-datasets")
    assert all(callable(class_of(target, group)) for target in targets(composed))
    for key, value in yaml.safe_load(file.read_text()).items():
        if key != "defaults" and not any(f"{changed}.".startswith(f"{group}.{key}.") for changed in parsed):
            assert composed[key] == value  # nothing else wrote over what the file says
    try:
        experiment = build(cfg)
    except DatasetUnavailable as error:
        pytest.skip(str(error))
    for key, value in parsed.items():
        if key not in GROUPS:
            assert OmegaConf.select(experiment.cfg, key) == value


def test_hidden_choices_are_shared_by_public_ones() -> None:
    shared = {(group, name) for group, name in CHOICES if name.startswith("_")}
    used = set()
    for group, name in PUBLIC:
        own = yaml.safe_load((CONFIGS / group / f"{name}.yaml").read_text())
        used |= {(group, entry) for entry in own.get("defaults", []) if isinstance(entry, str) and entry != "_self_"}
    assert used == shared


def test_every_group_has_a_default() -> None:
    assert sorted(DEFAULTS) == sorted([*GROUPS, "machine"])


def test_settings_of_this_machine_are_taken_where_they_exist(tmp_path: Path) -> None:
    (tmp_path / "machine").mkdir()
    (tmp_path / "machine" / "default.yaml").write_text("# @package _global_\nengine: {threads: 2}\n")
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
        cfg = hydra.compose("config", overrides=[f"hydra.searchpath=[file://{tmp_path}]"])
    assert cfg.engine.threads == 2


@pytest.mark.parametrize("kind", ["nan", "inf", "huge"])
def test_kinds_that_a_command_line_reads_as_numbers(kind: str) -> None:
    experiment = build(compose(["attack=nan_attack", f"attack.method.kind={kind}"]))
    assert isinstance(experiment.grid, Adversary)
    assert experiment.grid.attack == NaNAttack(kind)  # type: ignore[arg-type]


@cache
def two_rounds(*overrides: str) -> tuple[Experiment, Result, torch.Tensor]:
    """Run, and return the final parameters as well."""
    experiment = build(compose([*QUICK, *overrides]))
    result = run(experiment.grid, experiment.strategy, experiment.model, experiment.cfg.rounds)
    return experiment, result, experiment.clients.layout.read(result.arrays).params


@pytest.mark.parametrize("strategy", ["fedavg", "trimmed_mean"])
@pytest.mark.parametrize("attack", [name for name in names_in("attack") if name != "none" and not needs("attack", name)])
def test_every_attack_runs_and_has_an_effect(attack: str, strategy: str) -> None:
    """Two rounds, five clients, one of them Byzantine: the model stays finite and is not the one without the attack."""
    overrides = ["population=5", f"strategy={strategy}", "f=1"]
    experiment, result, attacked = two_rounds(*overrides, f"attack={attack}", "attack.fraction=0.2")
    assert isinstance(experiment.grid, Adversary)
    assert result.series("byzantine", "server") == [(1, 1.0), (2, 1.0)]
    assert torch.isfinite(attacked).all()
    assert not torch.equal(attacked, two_rounds(*overrides)[2])


@pytest.mark.parametrize("strategy", names_in("strategy"))
def test_every_strategy_runs_under_attack_and_asks_the_cohort(strategy: str) -> None:
    """Two rounds, seven of nine clients; two of the nine are Byzantine. Flower's own, which know fractions, ask seven too."""
    attack = ["attack=ipm", "attack.fraction=0.2", "f=1"]
    half = needs("strategy", strategy)
    attack = attack if "local=edge_popup" not in half else ["attack=rank_reversal", *attack[1:]]
    experiment, result, final = two_rounds("population=9", "cohort=7", f"strategy={strategy}", *attack, *half)
    assert isinstance(experiment.strategy, Strategy) == (not strategy.startswith("flwr_"))
    assert result.series("asked", "server") == result.series("answered", "server") == [(1, 7.0), (2, 7.0)]
    assert torch.isfinite(final).all()
    assert not torch.equal(final, experiment.clients.layout.gather(experiment.model).params)


def test_an_unavailable_data_set_names_the_command_that_brings_it(tmp_path: Path) -> None:
    with pytest.raises(FedaggError, match="apt-get install dataset-fashion-mnist"):
        build(compose(["data=fashion_mnist", f"data.dir={tmp_path}"]))
