"""Which executor, device, precision and batch a run gets, what is refused, and what the record and the plan say of it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from fedagg import Clients, ConfigError, LocalSGD, Population
from fedagg.clients import choice
from fedagg.clients.choice import resolve_device
from fedagg.experiment import build
from fedagg.hydra_app import compose
from tests.running import SMALL, run_into

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def test_a_cpu_trains_one_at_a_time_unless_asked(
    uneven: Population, model: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Clients(uneven, model).engine
    assert (engine.name, engine.why, engine.batch) == ("one_at_a_time", "auto: quicker on a CPU", 1)
    assert Clients(uneven, nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))).engine.name == "one_at_a_time"
    assert caplog.records == []  # nobody asked to batch it
    engine = Clients(uneven, model, executor="batched").engine
    assert (engine.name, engine.why) == ("batched", "as asked")


def test_a_model_that_cannot_be_batched_says_why_in_the_plan(uneven: Population) -> None:
    engine = Clients(uneven, nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10)), executor="batched").engine
    assert engine.why.startswith("they cannot be batched: 1 (BatchNorm1d): ")


def test_the_batch_is_what_a_share_of_the_memory_holds(
    uneven: Population, model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """650 parameters four times, and of each example its 64 pixels twice: all that a linear layer keeps for its gradient."""
    engine = Clients(uneven, model, LocalSGD(batch_size=20), executor="batched").engine
    assert engine.client_bytes == 4 * 650 * 4 + 2 * 20 * 64 * 4
    assert engine.batch == 7  # all there are
    monkeypatch.setattr(choice, "CPU_BUDGET", 3 * engine.client_bytes + 1)
    assert Clients(uneven, model, LocalSGD(batch_size=20), executor="batched").engine.batch == 3
    monkeypatch.setattr(choice, "CPU_BUDGET", 1)
    assert Clients(uneven, model, executor="batched").engine.batch == 1
    assert Clients(uneven, model, executor="batched", batch=5).engine.batch == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"executor": "vectorised"}, "engine.executor must be auto, one_at_a_time or batched; got vectorised"),
        ({"precision": "float16"}, "engine.precision must be float32 or bfloat16; got float16"),
        ({"batch": 0}, "engine.batch must be an integer >= 1, or null; got 0"),
        ({"batch": True}, "engine.batch must be an integer >= 1, or null; got True"),
        ({"batch": 2.0}, "engine.batch must be an integer >= 1, or null; got 2.0"),
    ],
)
def test_impossible_settings_are_refused(
    uneven: Population, model: nn.Module, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Clients(uneven, model, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["warp", "mps", "cuda:x", "cuda:", "cuda:99", "CPU", ""])
def test_devices_that_are_not_there_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"engine.device={name} cannot be used here: .*; there is cpu"):
        resolve_device(name)


@no_gpu
def test_auto_is_the_cpu_where_there_is_no_gpu() -> None:
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"engine\.device=cuda cannot be used here: .*; there is cpu$"):
        resolve_device("cuda")


@no_gpu
def test_the_record_holds_what_was_chosen(tmp_path: Path) -> None:
    _, auto = run_into(tmp_path / "auto")
    assert {key: auto.config["engine"][key] for key in ("device", "executor", "precision", "batch")} == {
        "device": "cpu",
        "executor": "one_at_a_time",
        "precision": "float32",
        "batch": None,
    }
    _, batched = run_into(tmp_path / "batched", "engine.executor=batched")
    assert (batched.config["engine"]["executor"], batched.config["engine"]["batch"]) == ("batched", 6)
    for a, b in zip(auto.series("loss")[1], batched.series("loss")[1], strict=True):
        assert a == pytest.approx(b, rel=1e-5)


def test_a_run_of_what_cannot_be_batched_records_what_it_did(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _, done = run_into(
            tmp_path,
            "engine.executor=batched",
            "model._target_=tests.clients.test_choice.with_batch_norm",
            "engine.device=cpu",
        )
    assert done.config["engine"]["executor"] == "one_at_a_time"
    assert len([record for record in caplog.records if "cannot be batched" in record.getMessage()]) == 1


def with_batch_norm(**settings: object) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))


def test_the_plan_says_how_and_how_much() -> None:
    """An MLP of 55,210 parameters: 20 rows of 220,840 bytes are 4.4 MB; a client alone takes two vectors."""
    overrides = ["model=mlp", "population=20", "engine.device=cpu"]
    plan = build(compose(overrides)).plan()
    assert "rounds    30 x 20 of 20 clients, in this process" in plan
    assert "executor  one client at a time on cpu, float32, 1 thread (auto: quicker on a CPU)" in plan
    (memory,) = (line for line in plan if line.startswith("memory"))
    assert memory == "memory    about 5 MB beside the rule's own: updates 4 MB, training under 1 MB, data under 1 MB"
    plan = build(compose([*overrides, "cohort=8", "engine.executor=batched", "engine.precision=bfloat16"])).plan()
    assert "executor  8 clients at once on cpu, bfloat16, 1 thread (as asked)" in plan


def test_a_wrong_setting_is_an_error_of_the_config() -> None:
    with pytest.raises(ConfigError, match=r"engine\.executor must be"):
        build(compose([*SMALL, "engine.executor=many"]))
