"""Our strategy and clients as a Flower app: under Flower's simulation engine, and what Flower needs to know to start it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, Message, RecordDict
from flwr.common.config import get_fused_config_from_dir, get_project_config
from flwr.supercore.object_ref import load_app

import fedagg.flower
from fedagg import Adversary, ConfigError, FedaggError, LocalGrid, run
from fedagg.experiment import Experiment, build
from fedagg.hydra_app import compose
from tests.flower.engine import EXPERIMENTS, NODES, SHARED, Keep, keeping

ROOT = Path(__file__).parents[2]

Rounds = list[dict[str, Any]]
Kept = Callable[[str], Rounds]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run all experiments under Flower's engine, in a process of its own: Ray outlives what starts it."""
    directory = tmp_path_factory.mktemp("engine")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"}
    command = [sys.executable, "-m", "tests.flower.engine", str(directory)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    assert {file.stem for file in directory.iterdir()} == set(EXPERIMENTS), done.stderr[-6000:]
    return directory


@pytest.fixture(name="kept")
def _kept(engine: Path) -> Kept:
    return lambda name: torch.load(engine / f"{name}.pt", weights_only=True)


def local(name: str, tmp_path: Path, byzantine: int | None = None) -> Rounds:
    """Run the same experiment in a LocalGrid, with this client as the Byzantine one."""
    experiment = build(compose([f"population={NODES}", *SHARED.split(), *EXPERIMENTS[name].split()]))
    grid = experiment.grid
    if byzantine is not None:
        assert isinstance(grid, Adversary)
        candidates = (Adversary(grid.grid, grid.attack, 1 / NODES, seed=seed) for seed in range(100))
        grid = next(candidate for candidate in candidates if candidate.byzantine == {byzantine})
    return finished(experiment, grid, tmp_path / f"{name} {byzantine}.pt")


def finished(experiment: Experiment, grid: Any, file: Path) -> Rounds:
    cfg = experiment.cfg
    run(grid, experiment.strategy, experiment.model, cfg.rounds, seed=cfg.seed, callbacks=[Keep(str(file))])
    rounds: Rounds = torch.load(file, weights_only=True)
    return rounds


def flat(done: dict[str, Any]) -> torch.Tensor:
    return torch.cat([tensor.ravel() for tensor in done["arrays"].values()])


def values(done: dict[str, Any], split: str, metric: str) -> list[float]:
    return sorted(value for _, s, _, m, value in done["rows"] if (s, m) == (split, metric))


# Under Flower's engine


@pytest.mark.parametrize("name", ["fedavg", "flower_fedavg"])
def test_flowers_engine_gives_the_parameters_of_a_local_grid(kept: Kept, tmp_path: Path, name: str) -> None:
    """All four clients in every round. Replies come in the order of random node ids, so sums may be rounded differently:
    measured at most 1.5e-8 on parameters that move by 0.1; asked for: 1e-6."""
    there, here = kept(name), local(name, tmp_path)
    assert len(there) == len(here) == 3
    for theirs, ours in zip(there, here, strict=True):
        assert theirs["arrays"].keys() == ours["arrays"].keys()
        torch.testing.assert_close(flat(theirs), flat(ours), rtol=0, atol=1e-6)
        for split, metric in (("test", "accuracy"), ("test", "loss"), ("train", "loss"), ("client", "accuracy")):
            assert values(theirs, split, metric) == pytest.approx(values(ours, split, metric), abs=1e-5)
    assert len(values(there[2], "client", "accuracy")) == NODES
    assert (flat(there[2]) - flat(there[0])).abs().max() > 0.05


@pytest.mark.parametrize("name", ["attacked_mean", "attacked_median"])
def test_an_attack_around_flowers_grid_is_the_attack_in_a_local_grid(kept: Kept, tmp_path: Path, name: str) -> None:
    """Which client a node is differs from run to run, so the Byzantine one is any of four; the result must be that of one
    of them (to 1e-6) and clearly not that of the others, which are 0.026 to 0.077 away."""
    there = kept(name)
    assert [values(done, "server", "byzantine") for done in there[1:]] == [[1.0], [1.0]]
    distances = [
        float((flat(there[2]) - flat(local(name, tmp_path, byzantine=client)[2])).abs().max()) for client in range(NODES)
    ]
    assert min(distances) < 1e-6
    assert sorted(distances)[1] > 1e-3


def test_an_attack_around_flowers_grid_has_its_effect(kept: Kept) -> None:
    """Accuracy after two rounds: 0.72 in peace; one of four sends -10 times the honest mean: mean 0.00, median 0.60."""
    peace, mean, median = (
        values(kept(name)[2], "test", "accuracy") for name in ("fedavg", "attacked_mean", "attacked_median")
    )
    assert mean[0] < 0.2 < 0.4 < median[0] < peace[0]


def test_our_strategy_samples_flowers_nodes(kept: Kept) -> None:
    for done in kept("sampled")[1:]:
        assert [values(done, "server", name) for name in ("asked", "answered", "clients")] == [[2.0]] * 3


def test_data_behind_flowers_grid_are_out_of_reach(engine: Path) -> None:
    assert "out of reach of an attack" in (engine / "label_flip.txt").read_text()


# The app itself


def context_of(overrides: str, **node_config: int) -> Context:
    return Context(0, 0, dict(node_config), RecordDict(), {"overrides": overrides})


@pytest.mark.parametrize("name", ["fedavg", "attacked_mean"])
def test_the_app_in_a_local_grid_is_the_experiment(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    """Not a bit differs: the same clients, called one by one with the messages of the same strategy."""
    directory, overrides = tmp_path_factory.mktemp("app"), f"{SHARED} {EXPERIMENTS[name]}"
    grid = LocalGrid(fedagg.flower.client, num_clients=NODES, run_config={"overrides": overrides})
    fedagg.flower.server(grid, context_of(keeping(overrides, directory / "app.pt")))
    app = torch.load(directory / "app.pt", weights_only=True)
    experiment = build(compose([f"population={NODES}", *overrides.split()]))
    plain = finished(experiment, experiment.grid, directory / "plain.pt")
    assert [done["rows"] for done in app] == [done["rows"] for done in plain]
    assert all(torch.equal(flat(a), flat(b)) for a, b in zip(app, plain, strict=True))


def test_flower_finds_the_app_and_its_run_config() -> None:
    components = get_project_config(ROOT)["tool"]["flwr"]["app"]["components"]
    assert load_app(components["serverapp"], ValueError, ROOT) is fedagg.flower.server
    assert load_app(components["clientapp"], ValueError, ROOT) is fedagg.flower.client
    assert compose(str(get_fused_config_from_dir(ROOT, {})["overrides"]).split()).rounds == 3
    assert get_fused_config_from_dir(ROOT, {"overrides": "rounds=7"}) == {"overrides": "rounds=7"}


def test_a_population_that_is_not_the_number_of_nodes_is_refused(ask: Callable[..., list[Message]]) -> None:
    """By each client; the server waits for the nodes that are missing, but not for ever."""
    with pytest.raises(ConfigError, match=r"population=5, but there are 4 nodes; set population=4 in overrides"):
        fedagg.flower.client(ask([0])[0], context_of(f"{SHARED} population=5", **{"num-partitions": 4, "partition-id": 0}))


def test_the_server_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fedagg.flower, "PATIENCE", 0.0)
    grid = LocalGrid(fedagg.flower.client, num_clients=NODES)
    with pytest.raises(FedaggError, match="waited 0 s for 5 nodes; 4 are connected"):
        fedagg.flower.server(grid, context_of(f"{SHARED} population=5"))
