"""What tests of studies share: a small study in a folder of its own, and what a run leaves."""

import csv
import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from fedagg.hydra_app import compose_with_choices
from fedagg.results import run_id
from fedagg.study import Study
from fedagg.study.work import Task

TINY = {"population": 4, "rounds": 2, "model": "logistic_regression", "partition": "iid"}
FLAGS = [f"{key}={value}" for key, value in TINY.items()]


def write_study(folder: Path, **keys: Any) -> Path:
    """Write a study of tiny runs and return its folder; its store lies beside it. YAML reads JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = {"store": str(folder / "store"), **keys, "config": {**TINY, **keys.get("config", {})}}
    (folder / "study.yaml").write_text(json.dumps(keys))
    return folder


def load(folder: Path, **keys: Any) -> Study:
    return Study.load(write_study(folder, **keys))


def task(directory: Path, *overrides: str, retry: bool = False) -> Task:
    """One run, with the small settings."""
    cfg, choices = compose_with_choices([*FLAGS, *overrides])
    config: dict[str, Any] = OmegaConf.to_container(cfg)  # type: ignore[assignment]
    return Task(directory.name, str(directory), config, choices, "fedagg run", retry)


def name_of(*overrides: str) -> str:
    """The name of the run with these overrides."""
    return run_id(OmegaConf.to_container(compose_with_choices([*FLAGS, *overrides])[0], resolve=True))  # type: ignore[arg-type]


def files_in(directory: Path) -> dict[str, bytes]:
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def table(file: Path) -> list[dict[str, str]]:
    with open(file, newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))
