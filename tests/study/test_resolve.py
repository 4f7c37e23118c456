"""A study's configs are those of ``fedagg run``, and its runs are named by them."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from fedagg import ConfigError
from fedagg.hydra_app import compose, compose_with_choices
from fedagg.results import run_id
from fedagg.study.plan import Job, Study
from fedagg.study.resolve import Planned, resolve
from tests.study.parts import name_of, write_study

Resolve = Callable[[Sequence[str]], Planned]
CALLBACK = "+callbacks.x={_target_: fedagg.Callback}"


@pytest.fixture(name="of", scope="module")
def _of(tmp_path_factory: pytest.TempPathFactory) -> Resolve:
    """Resolve one job of a study that has a config group of its own."""
    folder = write_study(tmp_path_factory.mktemp("mine"))
    (folder / "attack").mkdir()
    (folder / "attack" / "strong.yaml").write_text("defaults: [sign_flip, _self_]\nfraction: 0.4\n")
    study = Study.load(folder)

    def of(overrides: Sequence[str]) -> Planned:
        (planned,) = resolve(study, [Job({"axis": "here"}, 3, tuple(overrides))])
        return planned

    return of


@pytest.mark.parametrize(
    "words",
    [
        "",
        "strategy=krum attack=alie attack.fraction=0.25 rounds=7 seed=3",
        "local.lr=0.3 strategy=trimmed_mean local.epochs=2 local.lr=0.4",  # values set before a group is chosen
        "model=mlp partition=shards partition.per_client=3",
        "engine=ray engine.workers=3 engine.threads=2",
        "f=null sanitize=true evaluation.every=5",
        f"{CALLBACK.replace(' ', '')} callbacks.x._target_=a.B",
        "+callbacks.x._target_=a.B +callbacks.x.n=2 rounds=5",
        "local.lr=0.3 ++local.lr=0.2",
        "++local.lr=0.2 local.lr=0.3",
        "+local.new=1 local.new=2",
        "cohort=3 population=${rounds} rounds=9",
        "server_optimizer=adam faults=lossy participation=bernoulli",
        "attack.method={_target_:a.B,x:1}",
        "~evaluation.holdout rounds=4",
        "local={lr:0.7}",
    ],
)
def test_as_composed_alone(of: Resolve, words: str) -> None:
    overrides = words.split()
    planned, alone = of(overrides), compose_with_choices(overrides)
    assert planned.config == OmegaConf.to_container(compose(overrides))
    assert planned.choices == alone[1]
    assert planned.run == run_id(OmegaConf.to_container(alone[0], resolve=True))  # type: ignore[arg-type]


def test_jobs_do_not_share_a_config(of: Resolve) -> None:
    """Those that choose alike are composed once."""
    assert of(["rounds=7", "local.epochs=3"]).config["rounds"] == 7
    assert of([]).config == OmegaConf.to_container(compose([]))


def test_a_group_beside_the_file(of: Resolve) -> None:
    planned = of(["attack=strong", "rounds=3"])
    assert (planned.choices["attack"], planned.config["attack"]["fraction"]) == ("strong", 0.4)
    assert planned.config["attack"]["method"] == OmegaConf.to_container(compose(["attack=sign_flip"]).attack)["method"]  # type: ignore[index,call-overload]
    assert of(["attack=strong", "attack.fraction=0.1"]).config["attack"]["fraction"] == 0.1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("rouns=3", r"no setting rouns \(did you mean rounds\?\)"),
        ("local.lrr=3", r"no setting local\.lrr \(did you mean local\.lr\?\)"),
        ("strategy=krumm", r"strategy has no choice krumm \(did you mean krum\?\)"),
        ("attack=strng", r"attack has no choice strng \(did you mean strong\?\)"),
        ("stratgy=krum", r"stratgy \(did you mean strategy\?\)"),
        ("rounds=x", r"rounds must be an integer >= 1; got x"),
        ("rounds=null", r"rounds must be an integer >= 1; got None"),
        ("rounds=true", r"rounds must be an integer >= 1; got True"),
        ("engine.threads=0", r"engine\.threads must be an integer >= 1; got 0"),
        ("~engine.threads", r"engine\.threads"),
        ("cohort=${nothing}", "nothing"),
    ],
)
def test_mistakes_name_the_job(of: Resolve, words: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^axis=here seed=3: .*{message}"):
        of([words])


# The names of runs


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("local.lr=0.3 seed=1", "seed=1 local.lr=0.30"),
        ("strategy=fedavg", ""),
        ("cohort=4", "cohort=${population}"),
        ("+callbacks.x._target_=a.B", "+callbacks.x={_target_:a.B}"),
        ("engine=ray engine.workers=3", "engine=ray"),
        ("checkpoint.every=3 checkpoint.seconds=1 checkpoint.keep=9", "resume=auto"),
        ("logger=tensorboard", ""),
    ],
)
def test_alike(of: Resolve, one: str, other: str) -> None:
    assert of(["population=4", *one.split()]).run == of(["population=4", *other.split()]).run


@pytest.mark.parametrize(
    "words",
    [
        "seed=1",
        "rounds=31",
        "engine.threads=2",
        "engine.precision=bfloat16",
        "engine.executor=batched",
        "f=1",
        "local.lr=0.100001",
        "+callbacks.x._target_=a.B",
        "evaluation.clients=true",
        "strategy=mean",
    ],
)
def test_different(of: Resolve, words: str) -> None:
    assert of([words]).run != of([]).run


def test_a_name_by_hand(of: Resolve) -> None:
    """SHA-256 of the settings as JSON with dotted keys in order, but for those that cannot change a result."""
    config: dict[str, Any] = yaml.safe_load(OmegaConf.to_yaml(compose(["strategy=krum", "seed=5"]), resolve=True))
    settings: dict[str, Any] = {}

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict) and node:
            for key, value in node.items():
                walk(value, f"{path}.{key}" if path else key)
        elif path.split(".")[0] not in ("checkpoint", "resume", "logger"):
            settings[path] = node

    walk(config, "")
    result = ("device", "executor", "precision", "threads", "batch")
    kept = {key: value for key, value in settings.items() if not key.startswith("engine.") or key.split(".", 1)[1] in result}
    assert "engine.grid._target_" in settings.keys() - kept.keys()
    name = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]
    assert of(["strategy=krum", "seed=5"]).run == name


def test_a_folder_with_an_odd_name(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "é, my study")
    (folder / "attack").mkdir()
    (folder / "attack" / "strong.yaml").write_text("defaults: [sign_flip]\n")
    study = Study.load(folder).with_overrides(["attack=strong"])
    assert resolve(study, study.jobs())[0].run == name_of("attack=sign_flip", "seed=0")
