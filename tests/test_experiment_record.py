"""The directory of a run: what is in it when all went well, and what is left whatever went wrong."""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

import fedagg
from fedagg import Adversary, Callback, ClientError, LocalSGD
from fedagg.experiment import build
from fedagg.hydra_app import compose
from fedagg.loop import Result, Round
from fedagg.results import Run, read_run
from tests.running import SMALL, run_into


@pytest.fixture(scope="module", name="done")
def _done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Run]:
    overrides = ["attack=sign_flip", "attack.fraction=0.34", "f=1", "seed=4", "evaluation.every=2"]
    choices = {"strategy": "fedavg", "attack": "sign_flip"}
    directory = tmp_path_factory.mktemp("runs") / "a" / "run"
    return run_into(directory, *overrides, choices=choices, command="fedagg run seed=4")


def test_the_files_of_a_run(done: tuple[Result, Run]) -> None:
    names = {file.name for file in done[1].path.iterdir()}
    assert names == {"config.yaml", "run.json", "metrics.csv", "timing.csv", "model.pt"}


def test_it_is_on_record_what_attackers_see(done: tuple[Result, Run], tmp_path: Path) -> None:
    assert done[1].info["knowledge"] == "honest"
    assert run_into(tmp_path / "a", "attack=alie", "attack.knowledge=corrupted")[1].info["knowledge"] == "corrupted"
    assert run_into(tmp_path / "b")[1].info["knowledge"] is None


def test_the_config_is_kept_as_it_was_resolved(done: tuple[Result, Run]) -> None:
    text = (done[1].path / "config.yaml").read_text()
    assert "${" not in text
    config = yaml.safe_load(text)
    assert config == done[1].config
    assert (config["population"], config["cohort"], config["rounds"], config["seed"], config["f"]) == (6, 6, 3, 4, 1)
    assert config["task"] == {"input_shape": [1, 8, 8], "num_classes": 10}
    assert config["model"]["input_shape"] == [1, 8, 8]
    assert config["attack"]["method"]["_target_"] == "fedagg.attacks.SignFlip"


def test_the_record_of_a_run(done: tuple[Result, Run]) -> None:
    info = json.loads((done[1].path / "run.json").read_text())
    assert (info["status"], info["error"]) == ("completed", None)
    assert (info["seed"], info["rounds"], info["rounds_done"]) == (4, 3, 3)
    assert info["label"] == {"strategy": "fedavg", "attack": "sign_flip"}
    assert info["command"] == "fedagg run seed=4"
    assert info["started"] < info["finished"]
    assert info["versions"]["torch"] == torch.__version__
    assert info["versions"]["fedagg"] == fedagg.__version__
    assert {"flwr", "numpy", "python", "commit"} <= set(info["versions"])
    assert info["hardware"]["device"] == "cpu"
    assert info["hardware"]["threads"] == 1
    population = build(compose([*SMALL, "seed=4"])).clients.population
    assert info["data"]["name"] == "digits"
    assert info["data"]["fingerprint"] == population.dataset.fingerprint
    assert info["data"]["partition fingerprint"] == population.fingerprint
    assert info["data"]["size_max"] == max(len(rows) for rows in population.indices)


def test_the_metrics_are_tidy_and_the_clock_is_elsewhere(done: tuple[Result, Run]) -> None:
    result, run = done
    with open(run.path / "metrics.csv", newline="") as file:
        header, *table = csv.reader(file)
    assert header == ["round", "split", "client", "metric", "value"]
    written = [tuple(row) for row in table if row[3] != "byzantine_over_f"]
    assert written == [(str(r), s, "", m, repr(v)) for r, s, _, m, v in result.rows]
    per_round = {number: [f"{s}/{m}" for r, s, _, m, _ in table if int(r) == number] for number in range(4)}
    test = ["test/loss", "test/accuracy"]
    rest = [f"server/{name}" for name in ("clients", "rejected", "not_finite", "asked", "answered", "client_errors")]
    rest += ["server/bytes_down", "server/bytes_up"]
    rest += ["server/byzantine", "server/byzantine_over_f", "server/attack_void", "train/loss", "train/local_steps"]
    assert sorted(per_round[0]) == sorted(test)
    assert sorted(per_round[1]) == sorted(rest)  # evaluation.every=2
    assert sorted(per_round[2]) == sorted(per_round[3]) == sorted(test + rest)
    with open(run.path / "timing.csv", newline="") as file:
        header, *times = csv.reader(file)
    assert header == ["round", "phase", "seconds"]
    assert {(int(number), phase) for number, phase, _ in times} == {
        *((number, phase) for number in (1, 2, 3) for phase in ("train", "aggregate")),
        *((number, "evaluate") for number in (0, 2, 3)),
    }
    assert all(float(seconds) > 0 for *_, seconds in times)


def test_who_was_byzantine_is_recorded(done: tuple[Result, Run], tmp_path: Path) -> None:
    experiment = build(compose([*SMALL, "attack=sign_flip", "attack.fraction=0.34", "seed=4"]))
    assert isinstance(experiment.grid, Adversary)
    assert done[1].info["byzantine"] == sorted(experiment.grid.byzantine)
    assert len(done[1].info["byzantine"]) == 2
    assert done[1].series("byzantine", "server")[1].tolist() == [2, 2, 2]
    assert done[1].series("byzantine_over_f", "server")[1].tolist() == [1, 1, 1]  # two, where the server believes one
    _, drawn_anew = run_into(tmp_path / "b", "attack=sign_flip", "attack.fraction=0.34", "attack.sampling=cohort")
    assert drawn_anew.info["byzantine"] == []
    assert drawn_anew.series("byzantine_over_f", "server")[1].tolist() == [0, 0, 0]
    _, peaceful = run_into(tmp_path / "c")
    assert peaceful.info["byzantine"] == []
    assert not {"server/byzantine", "server/byzantine_over_f"} & set(peaceful.names)


def test_byzantine_over_f_follows_the_cohort(tmp_path: Path) -> None:
    """Three of six are Byzantine and two are asked, so their number varies; f = 1 is implied."""
    _, run = run_into(tmp_path / "run", "attack=sign_flip", "attack.fraction=0.5", "cohort=2", "rounds=12")
    counts = run.series("byzantine", "server")[1].tolist()
    assert set(counts) == {0, 1, 2}
    assert run.series("byzantine_over_f", "server")[1].tolist() == [max(0, count - 1) for count in counts]


@pytest.mark.parametrize("strategy", ["fedavg", "flwr_fedavg"])
def test_the_final_model_is_a_plain_state_dict(tmp_path: Path, strategy: str) -> None:
    result, run = run_into(tmp_path / "run", f"strategy={strategy}")
    state = torch.load(tmp_path / "run" / "model.pt", weights_only=True)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    model.load_state_dict(state)
    for name, array in result.arrays.items():
        assert torch.equal(state[name], torch.from_numpy(array.numpy()))
    test = build(compose(SMALL)).clients.population.test()
    accuracy = (model(test[0]).argmax(dim=1) == test[1]).double().mean().item()
    assert accuracy == pytest.approx(run.series("accuracy")[1][-1])
    values = b"".join(array.numpy().tobytes() for array in result.arrays.values())
    assert run.info["parameters"] == hashlib.sha256(values).hexdigest()
    assert not list(run.path.glob("*.tmp"))


def test_the_hash_tells_models_apart(done: tuple[Result, Run], tmp_path: Path) -> None:
    again = ["attack=sign_flip", "attack.fraction=0.34", "f=1", "evaluation.every=2"]
    assert run_into(tmp_path / "same", *again, "seed=4")[1].info["parameters"] == done[1].info["parameters"]
    assert run_into(tmp_path / "other", *again, "seed=5")[1].info["parameters"] != done[1].info["parameters"]


# When something goes wrong


class Fails(Callback):
    """Raises after a round; also found by the config of a test."""

    def __init__(self, error: BaseException | None = None, after: int = 2) -> None:
        self.error, self.after = error or ZeroDivisionError("from the callback"), after

    def round_finished(self, done: Round) -> None:
        if done.round == self.after:
            raise self.error


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (ZeroDivisionError("nothing to divide"), "failed", "ZeroDivisionError: nothing to divide"),
        (KeyboardInterrupt(), "interrupted", None),
    ],
    ids=["failed", "interrupted"],
)
def test_a_run_that_ends_early_keeps_what_was_computed(
    tmp_path: Path, error: BaseException, status: str, text: str | None
) -> None:
    with pytest.raises(type(error)) as caught:
        run_into(tmp_path / "run", "rounds=5", watch=lambda _: [Fails(error)])
    assert caught.value is error
    run = read_run(tmp_path / "run")
    assert (run.status, run.info["error"], run.info["rounds_done"]) == (status, text, 2)
    assert run.info["finished"] is not None
    assert run.info["parameters"] is None
    assert not (tmp_path / "run" / "model.pt").exists()
    run_into(tmp_path / "whole", "rounds=2")
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == (tmp_path / "whole" / "metrics.csv").read_bytes()


def test_a_failing_client_is_named_and_earlier_rounds_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, calls = LocalSGD.train, []

    def fragile(*args: Any) -> dict[str, float]:
        calls.append(args)
        if len(calls) == 6 + 3:  # the third client of round 2
            raise RuntimeError("the battery is empty")
        return train(*args)

    monkeypatch.setattr(LocalSGD, "train", fragile)
    with pytest.raises(ClientError, match=r"client 2 failed in round 2 while it was asked to train:(?s:.*)battery is empty"):
        run_into(tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert (run.status, run.info["rounds_done"]) == ("failed", 1)
    assert run.info["error"].startswith("ClientError: client 2 failed in round 2")
    assert run.series("accuracy")[0].tolist() == [0, 1]


def test_a_failing_client_is_dropped_and_counted_where_the_config_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, calls = LocalSGD.train, []

    def fragile(*args: Any) -> dict[str, float]:
        calls.append(args)
        if len(calls) == 6 + 3:
            raise RuntimeError("the battery is empty")
        return train(*args)

    monkeypatch.setattr(LocalSGD, "train", fragile)
    _, run = run_into(tmp_path / "run", "on_client_error=drop")
    assert run.status == "completed"
    assert run.series("client_errors", "server")[1].tolist() == [0, 1, 0]
    assert run.series("answered", "server")[1].tolist() == [6, 5, 6]


def test_a_model_that_cannot_be_written_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="disk full"):
        run_into(tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert (run.status, run.info["error"], run.info["rounds_done"]) == ("failed", "OSError: disk full", 3)


def test_callbacks_of_the_config_are_told_after_the_round_is_on_disk(tmp_path: Path) -> None:
    added = f"+callbacks.mine={{_target_: {__name__}.Fails, after: 1}}"
    with pytest.raises(ZeroDivisionError, match="from the callback"):
        run_into(tmp_path / "run", added)
    assert read_run(tmp_path / "run").series("accuracy")[0].tolist() == [0, 1]
