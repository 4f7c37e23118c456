"""MLflow: what its own client finds in a local database."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedagg.hydra_app import compose
from fedagg.results import read_info
from fedagg.trackers import About
from tests.trackers.parts import ROOT, go_on, kill, shown, table

pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'fedagg[mlflow]'")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("restored_logging")]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Artifacts go where the command runs; so does the database, but MLflow opens that once in a process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store("mlflow.db"))


def store(file: str) -> str:
    return f"sqlite:///{Path(file).absolute()}"


def client(file: str = "mlflow.db") -> Any:
    from mlflow import MlflowClient

    return MlflowClient(store(file))


def runs(file: str = "mlflow.db") -> list[Any]:
    found = client(file).get_experiment_by_name("fedagg")
    return list(client(file).search_runs([found.experiment_id]))


def history(run: Any, file: str = "mlflow.db") -> dict[str, list[tuple[int, float]]]:
    keys = run.data.metrics
    return {key: [(m.step, m.value) for m in client(file).get_metric_history(run.info.run_id, key)] for key in keys}


def test_a_run(tmp_path: Path) -> None:
    shown(tmp_path / "run", "logger=mlflow", "evaluation.clients=true", "local.lr=0.25")
    (run,) = runs()
    assert history(run) == table(tmp_path / "run")
    assert (run.info.status, run.info.run_name) == ("FINISHED", "fedavg x ipm, seed 5")
    assert read_info(tmp_path / "run")["trackers"] == {"mlflow": run.info.run_id}
    for name, value in {"local.lr": "0.25", "rounds": "6", "partition._target_": "fedagg.data.IID", "resume": "null"}.items():
        assert run.data.params[name] == value
    for name, value in {"strategy": "fedavg", "attack": "ipm", "seed": "5", "directory": str(tmp_path / "run")}.items():
        assert run.data.tags[name] == value
    assert "error" not in run.data.tags
    for name in ("config.yaml", "metrics.csv", "run.json"):
        saved = Path(client().download_artifacts(run.info.run_id, name))
        assert saved.read_bytes() == (tmp_path / "run" / name).read_bytes()


def test_a_run_that_was_killed_goes_on_in_the_same_record(tmp_path: Path) -> None:
    kill(tmp_path / "run", "logger=mlflow")
    (before,) = runs()
    assert before.info.status == "RUNNING"
    assert [round for round, _ in history(before)["test/loss"]] == [0, 1, 2, 3, 4, 5]
    go_on(tmp_path / "run", "logger=mlflow")
    (run,) = runs()
    assert (run.info.run_id, run.info.status) == (before.info.run_id, "FINISHED")
    assert history(run) == table(tmp_path / "run")


def test_another_store_gets_all_rounds(tmp_path: Path) -> None:
    kill(tmp_path / "run", "logger=mlflow")
    go_on(tmp_path / "run", "logger=mlflow", f"logger.mlflow.tracking_uri={store('other.db')}")
    (run,) = runs("other.db")
    assert history(run, "other.db") == table(tmp_path / "run")
    assert read_info(tmp_path / "run")["trackers"] == {"mlflow": run.info.run_id}


def test_the_environment_may_name_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compose(["logger=mlflow"]).logger.mlflow.tracking_uri == store("mlflow.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert compose(["logger=mlflow"]).logger.mlflow.tracking_uri == "sqlite:///mlflow.db"


@pytest.mark.parametrize(("status", "shown_as"), [("failed", "FAILED"), ("interrupted", "KILLED")])
def test_other_ends(tmp_path: Path, begun: Callable[[], Any], status: str, shown_as: str) -> None:
    tracker = begun()
    tracker.finish(status, [], "a reason" if status == "failed" else None)
    (run,) = runs()
    assert run.info.status == shown_as
    assert run.data.tags.get("error") == ("a reason" if status == "failed" else None)


def test_values_that_are_no_numbers(begun: Callable[[], Any]) -> None:
    tracker = begun()
    tracker.log(0, {"test/loss": float("nan"), "train/loss": float("inf")})
    (run,) = runs()
    assert run.data.metrics["test/loss"] != run.data.metrics["test/loss"]
    assert run.data.metrics["train/loss"] > 1e300


@pytest.fixture(name="begun")
def _begun(tmp_path: Path) -> Callable[[], Any]:
    def begin() -> Any:
        from fedagg.trackers import MLflow

        tracker = MLflow(store("mlflow.db"))
        tracker.start(About(tmp_path, {"a": {"b": 1}}, {"strategy": "krum"}, 0, 3), None)
        return tracker

    return begin


def test_processes_that_make_the_store_at_the_same_time(tmp_path: Path) -> None:
    """As the workers of a sweep do."""
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from fedagg.trackers import About, MLflow
tracker = MLflow("sqlite:///together.db")
tracker.start(About(Path("x"), {{}}, {{}}, int(sys.argv[1]), 1), None)
tracker.log(0, {{"test/loss": 1.0}})
"""
    processes = [subprocess.Popen([sys.executable, "-c", code, str(seed)], cwd=tmp_path) for seed in range(3)]
    assert [process.wait(100) for process in processes] == [0, 0, 0]
    assert sorted(run.data.tags["seed"] for run in runs("together.db")) == ["0", "1", "2"]
