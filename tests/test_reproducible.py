"""The same config and seed give the same numbers, to the last bit: in one process, in two, after whatever came before."""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.running import SMALL, run_into

FLOWER = ["strategy=flwr_fedavg", "cohort=5"]
VARIANTS = [
    "strategy=fedavg",
    "strategy=flwr_fedavg cohort=5",
    "strategy=flwr_krum f=1 attack=alie",
    "strategy=flwr_fedadam cohort=4",
    "strategy=krum attack=gaussian_noise cohort=5 f=1",
    "strategy=trimmed_mean attack=gaussian_noise attack.method.add=true attack.sampling=cohort attack.fraction=0.34",
    "attack=label_flip cohort=4",
    "attack=alie attack.sampling=cohort attack.fraction=0.5 cohort=4",
    "participation=bernoulli",
    "participation=bernoulli strategy=flwr_fedmedian",
    "partition=dirichlet partition.alpha=0.3",
    "partition=k_classes",
    "partition=shards",
    "server_optimizer=adam",
    "evaluation.clients=true attack=ipm",
    "data=breast_cancer local.batch_size=7 local.momentum=0.9",
    "model=cnn",
    "local=worker_momentum cohort=5 attack=label_flip attack.every=2",
]


def scramble(seed: int) -> None:
    """Leave the global generators somewhere else, as other code in the same process would."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.mark.parametrize("variant", VARIANTS)
def test_twice_the_same_and_another_seed_another_result(tmp_path: Path, variant: str) -> None:
    written, models = [], []
    for number, seed in enumerate((3, 3, 4)):
        scramble(number)
        _, run = run_into(tmp_path / str(number), *variant.split(), "population=9", f"seed={seed}", "rounds=2")
        assert run.status == "completed"
        written.append((run.path / "metrics.csv").read_bytes())
        models.append(run.info["parameters"])
    assert written[0] == written[1] != written[2]
    assert models[0] == models[1] != models[2]


def test_two_processes_agree_with_each_other_and_with_this_one(tmp_path: Path) -> None:
    """Flower's FedAvg samples from a set of node ids, whose order depends on how Python hashes in that process."""
    overrides = [*SMALL, *FLOWER, "population=9", "attack=gaussian_noise", "seed=11"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "fedagg.cli", "run", *overrides, f"hydra.run.dir={tmp_path}/{salt}"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONHASHSEED": str(salt), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for salt in (1, 2)
    ]
    for process in processes:
        out, _ = process.communicate(timeout=200)
        assert process.returncode == 0, out
    run_into(tmp_path / "here", *overrides)
    one, two, here = ((tmp_path / name / "metrics.csv").read_bytes() for name in ("1", "2", "here"))
    assert one == two == here


def test_more_rounds_begin_with_the_same_rounds(tmp_path: Path) -> None:
    """Nothing random depends on how long the run will be."""
    overrides = ["attack=gaussian_noise", "cohort=4", "participation=bernoulli"]
    short, _ = run_into(tmp_path / "short", *overrides, "rounds=2")
    long, _ = run_into(tmp_path / "long", *overrides, "rounds=4")
    assert [row for row in long.rows if row[0] <= 2] == short.rows


def test_the_world_is_the_same_for_every_strategy(tmp_path: Path) -> None:
    """Who holds what, who is Byzantine, who is asked and where the model starts do not depend on who aggregates."""
    overrides = ["population=12", "cohort=6", "attack=sign_flip", "partition=dirichlet", "f=1", "seed=2"]
    runs = [run_into(tmp_path / rule, *overrides, f"strategy={rule}")[1] for rule in ("mean", "median", "trimmed_mean")]
    for run in runs[1:]:
        assert run.info["data"] == runs[0].info["data"]
        assert run.info["byzantine"] == runs[0].info["byzantine"]
        for name, split in (("byzantine", "server"), ("local_steps", "train")):
            assert run.series(name, split)[1].tolist() == runs[0].series(name, split)[1].tolist()
        assert run.series("accuracy")[1][0] == runs[0].series("accuracy")[1][0]
        assert run.series("accuracy")[1].tolist() != runs[0].series("accuracy")[1].tolist()
