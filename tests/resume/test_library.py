"""``fedagg.run`` with checkpoints: killed and begun again with fresh objects, it ends as if nothing had happened."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from fedagg import (
    Adversary,
    Availability,
    Callback,
    Checkpoints,
    Clients,
    Faults,
    FedaggError,
    LocalGrid,
    Population,
    Strategy,
)
from fedagg.attacks import ALIE, GaussianNoise
from fedagg.data import IID, Dataset
from fedagg.grid import Bernoulli, SimulationGrid
from fedagg.loop import Round
from fedagg.server_optimizers import TorchOptimizer
from strategies import ByExamples, Krum, TrimmedMean
from tests.resume.parts import (
    EnoughSeen,
    Grudge,
    Killed,
    Momentum,
    Pulling,
    SeenOften,
    Turns,
    WeightedMomentum,
    World,
    exact,
)


def adam() -> TorchOptimizer:
    return TorchOptimizer(lambda params: torch.optim.Adam(params, lr=0.02))


STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "nothing to remember": lambda: Strategy(TrimmedMean(f=1), cohort=4, seed=3),
    "adam": lambda: Strategy(TrimmedMean(f=1), server_optimizer=adam(), cohort=4),
    "rule": lambda: Strategy(Momentum(), cohort=4),
    "weighting": lambda: Strategy(weighting=SeenOften(), cohort=4),
    "pre-aggregators": lambda: Strategy(Krum(f=1), pre_aggregators=[Pulling(), Pulling()], cohort=5),
    "rule, weighting and adam": lambda: Strategy(WeightedMomentum(), SeenOften(), server_optimizer=adam(), cohort=4),
    "clients evaluate": lambda: Strategy(weighting=ByExamples(), evaluate_every=2),
}
GRIDS: dict[str, Callable[[LocalGrid], SimulationGrid]] = {
    "plain": lambda grid: grid,
    "attack that remembers": lambda grid: Adversary(grid, Grudge(), 0.34),
    "attack that draws": lambda grid: Adversary(grid, GaussianNoise(), 0.34, sampling="cohort"),
    "everything": lambda grid: Faults(
        Adversary(Availability(grid, Bernoulli(0.8, num_clients=6)), ALIE(), 0.34), drop=0.2, corrupt=0.1, duplicate=0.2
    ),
    "participation that remembers": lambda grid: Availability(grid, Turns(6)),
}


@pytest.fixture(name="world")
def _world(holding: Population, model: nn.Module) -> World:
    return World(lambda: LocalGrid(Clients(holding, model)), Strategy, model)


@pytest.fixture(name="holding", scope="module")
def _holding(dataset: Dataset) -> Population:
    return Population.split(dataset, IID(), num_clients=6, seed=0, holdout=0.2)


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategies_go_on_where_they_were(world: World, tmp_path: Path, name: str) -> None:
    world.strategy = STRATEGIES[name]
    assert exact(world.killed_and_resumed(tmp_path)) == exact(world.run())


@pytest.mark.parametrize("name", GRIDS)
def test_the_world_goes_on_where_it_was(world: World, tmp_path: Path, name: str) -> None:
    inner = world.grid
    world.grid = lambda: GRIDS[name](inner())  # type: ignore[arg-type]
    assert exact(world.killed_and_resumed(tmp_path)) == exact(world.run())


@pytest.mark.parametrize("kill_after", [(0,), (1,), (2, 3), (3, 3, 5), (6,)])
def test_it_may_die_whenever_and_as_often_as_it_likes(world: World, tmp_path: Path, kill_after: tuple[int, ...]) -> None:
    """Before the first checkpoint, right after one, in the round it died in before, and when all is done."""
    world.strategy = STRATEGIES["rule, weighting and adam"]
    assert exact(world.killed_and_resumed(tmp_path, kill_after)) == exact(world.run())


def test_buffers_and_their_dtypes_come_back(holding: Population, tmp_path: Path) -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.last = nn.BatchNorm1d(64), nn.Linear(64, 10)
            self.register_buffer("on", torch.tensor([True, False]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.norm(x.flatten(1)))  # type: ignore[no-any-return]

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Normed()
    world = World(lambda: LocalGrid(Clients(holding, model, executor="one_at_a_time")), Strategy, model)
    resumed, whole = world.killed_and_resumed(tmp_path), world.run()
    assert exact(resumed) == exact(whole)
    assert {name: array.dtype for name, array in resumed.arrays.items()} == {
        "norm.weight": "float32",
        "norm.bias": "float32",
        "norm.running_mean": "float32",
        "norm.running_var": "float32",
        "norm.num_batches_tracked": "int64",
        "last.weight": "float32",
        "last.bias": "float32",
        "on": "bool",
    }
    assert int(resumed.arrays["norm.num_batches_tracked"].numpy()) > 0


def test_an_optimizer_that_rests_after_a_resume_forgets_nothing(world: World, tmp_path: Path) -> None:
    """Everybody is silent in rounds 3 and 4; the state saved after round 4 is that of round 2."""

    class Silent(Availability):
        def __init__(self, grid: SimulationGrid) -> None:
            super().__init__(grid, Bernoulli(1.0, num_clients=6))

        def get_node_ids(self) -> list[int]:
            return [] if self.round in (3, 4) else list(self.grid.get_node_ids())

    inner = world.grid
    world.grid = lambda: Silent(inner())
    world.strategy = STRATEGIES["adam"]
    assert exact(world.killed_and_resumed(tmp_path, kill_after=(3, 5))) == exact(world.run())


def test_a_callback_remembers_and_ends_the_run_in_the_same_round(world: World, tmp_path: Path) -> None:
    world.callbacks = lambda: [Callback(), EnoughSeen(6)]
    whole = world.run()
    assert (whole.rounds, whole.stopped_early) == (5, True)
    assert exact(world.killed_and_resumed(tmp_path, kill_after=(1, 3, 4))) == exact(whole)


def test_a_run_that_dies_in_its_last_moment_does_not_go_on_past_its_end(world: World, tmp_path: Path) -> None:
    """A callback ended it after round 4, for which a checkpoint was due."""
    world.callbacks = lambda: [EnoughSeen(5)]
    whole = world.run(Checkpoints(tmp_path, every=2))
    assert exact(world.run(Checkpoints(tmp_path, every=2))) == exact(whole)
    assert whole.rounds == 4


def test_pausing(world: World, tmp_path: Path) -> None:
    """A callback may break a run off for today; it is saved then, whether or not a checkpoint was due."""

    class Tired(Callback):
        def round_finished(self, done: Round) -> None:
            self.paused = done.round == 3

    whole = world.run()
    world.callbacks = lambda: [Tired()]
    today = world.run(Checkpoints(tmp_path, every=1000))
    assert (today.rounds, today.stopped_early) == (3, True)
    world.callbacks = tuple
    assert exact(world.run(Checkpoints(tmp_path, every=1000))) == exact(whole)


def test_checkpoints_change_nothing(world: World, tmp_path: Path) -> None:
    assert exact(world.run(Checkpoints(tmp_path, every=1))) == exact(world.run())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("strategy", "of another run: Strategy, seed 3 there, Other, seed 3 here"),
        ("callbacks", "1 callbacks had state when the run was saved, and 0 have now"),
    ],
)
def test_what_was_made_otherwise_is_refused(world: World, tmp_path: Path, change: str, message: str) -> None:
    class Other(Strategy):
        pass

    world.callbacks = lambda: [EnoughSeen(99)]
    with pytest.raises(Killed):
        world.run(Checkpoints(tmp_path, every=2), kill_after=3)
    if change == "strategy":
        world.strategy = Other
    else:
        world.callbacks = tuple
    with pytest.raises(FedaggError, match=message):
        world.run(Checkpoints(tmp_path, every=2))


def test_state_that_cannot_be_saved_is_told_once_and_remembered(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Secretive(Momentum):
        def state_dict(self) -> dict[str, object]:
            return {"memory": [{1, 2}]}

    whole = World(world.grid, lambda: Strategy(Momentum()), world.model).run()
    world.strategy = lambda: Strategy(Secretive())
    with caplog.at_level(logging.WARNING):
        done = world.run(Checkpoints(tmp_path, every=2))
    assert exact(done) == exact(whole)
    (warning,) = [record.getMessage() for record in caplog.records if "checkpoints" in record.getMessage()]
    why = "Strategy['rule']['memory'][0] is a builtins.set, which cannot be saved"
    assert warning == f"no checkpoints, so this run cannot be resumed: {why}"
    with pytest.raises(FedaggError) as refusal:
        world.run(Checkpoints(tmp_path, every=2))
    assert why in str(refusal.value)
    assert "Start over in a new directory" in str(refusal.value)
