"""One config becomes one run.

The order is that of the data: check the plain numbers, read the data, split it over clients, build the model, put the clients
into a Grid, wrap the world around it, build the strategy, try it on a cohort of this size, run.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from fedagg.checkpoint import Checkpoints
from fedagg.clients import Clients
from fedagg.clients.choice import Engine
from fedagg.data import Dataset, Population
from fedagg.data.proxy import take_from_test
from fedagg.disk import Lock
from fedagg.errors import ConfigError, FedaggError
from fedagg.fitting import check_attack
from fedagg.grid import Adversary, Availability, Faults, Sanitize, SimulationGrid
from fedagg.grid.base import layers
from fedagg.grid.clients import ClientGrid
from fedagg.instantiate import make
from fedagg.loop import Callback, Result, Round, run
from fedagg.models import build as build_model
from fedagg.parts import inform, make_participation, make_strategy, try_attack
from fedagg.process import prepare_process
from fedagg.provenance import describe_machine, parameters_hash, save_model
from fedagg.results import RunDirectory, check_same, differences, read_run
from fedagg.settings import check_numbers, implied_f, trusted_examples
from fedagg.signals import Interrupted, StopOnSignal
from fedagg.strategy import AnyStrategy, Strategy
from fedagg.trackers.tracking import Tracking

logger = logging.getLogger(__name__)
FINGERPRINTS = ("fingerprint", "partition fingerprint")  # of the data, in run.json


@dataclass
class Experiment:
    """Everything a run needs, built and checked; nothing has been trained yet."""

    cfg: DictConfig
    clients: Clients
    model: nn.Module
    grid: SimulationGrid
    strategy: AnyStrategy
    callbacks: list[Callback]
    f: int

    @property
    def byzantine(self) -> list[int]:
        """Ids of the clients that are Byzantine for the whole run; empty where each cohort has its own."""
        return sorted(self.grid.byzantine)

    @property
    def adversary(self) -> Adversary | None:
        """Who attacks, if anybody does."""
        return next((layer for layer in layers(self.grid) if isinstance(layer, Adversary)), None)

    @property
    def engine(self) -> Engine:
        """What the clients are trained with, where they are."""
        clients = list(layers(self.grid))[-1]
        return (clients.engine if isinstance(clients, ClientGrid) else None) or self.clients.engine

    def __enter__(self) -> Experiment:
        """Get what the clients run on, Ray's workers for one, and note what they are trained with."""
        clients = list(layers(self.grid))[-1]
        if isinstance(clients, ClientGrid):
            clients.open()
        _note(self.cfg, self.engine)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """Give it back."""
        clients = list(layers(self.grid))[-1]
        if isinstance(clients, ClientGrid):
            clients.close()

    def plan(self) -> list[str]:
        """Return the lines printed before the first round: what will be run, where, and what it will take."""
        cfg, d, target = self.cfg, self.clients.layout.size(), self.cfg.strategy["_target_"]
        engine, threads = self.engine, cfg.engine.threads
        at_once = f"{min(engine.batch, cfg.cohort)} clients at once" if engine.name == "batched" else "one client at a time"
        attack = "no attack"
        if adversary := self.adversary:
            attack = (
                f"{adversary.attack} (sees: {adversary.knowledge}) by {adversary.fraction:.0%} of the {adversary.sampling}"
            )
            attack += f" ({_name_some(self.byzantine)})" if self.byzantine else ""
        faults = next((f"; faults: {layer}" for layer in layers(self.grid) if isinstance(layer, Faults)), "")
        faults += "; replies that do not fit are kept from the strategy" if cfg.sanitize else ""
        alone = "measured  by the clients alone, each with its own model: there is no test accuracy"
        return [
            f"data      {self.clients.population}",
            f"model     {d:,} parameters",
            f"rounds    {cfg.rounds} x {cfg.cohort} of {cfg.population} clients, in {list(layers(self.grid))[-1]}",
            f"executor  {at_once} on {engine.device}, {cfg.engine.precision}, "
            f"{threads} thread{'s' if threads != 1 else ''} ({engine.why})",
            f"memory    {self._memory()}",
            f"strategy  {self.strategy!r}" if isinstance(self.strategy, Strategy) else f"strategy  {target}",
            f"world     {attack}; the server believes f = {self.f}{faults}",
            *([] if self.clients.local.server_model else [alone]),
        ]

    def _memory(self) -> str:
        """Say what the run takes beside the process itself and the working memory of the rule."""
        layout, data, engine = self.clients.layout, self.clients.population.dataset, self.engine
        features = 4 * data.x_test.size  # the test set, as the model reads it
        parts = {
            "updates": self.cfg.cohort * layout.size() * layout.dtype().itemsize,
            "training": min(engine.batch, self.cfg.cohort) * engine.client_bytes,
            "data": data.x_train.nbytes + data.x_test.nbytes + features,
        }
        return f"about {_megabytes(sum(parts.values()))} beside the rule's own: " + ", ".join(
            f"{name} {_megabytes(size)}" for name, size in parts.items()
        )


def build(cfg: DictConfig, around: SimulationGrid | None = None) -> Experiment:
    """Build everything that ``cfg`` describes; fills in ``f``, ``sanitize``, ``task`` and what ``engine`` leaves open.

    Args:
        cfg: the composed config.
        around: a Grid whose clients run elsewhere (Flower's); None makes the one that ``engine`` names.

    Raises:
        ConfigError: naming the key, what was found and what is possible.
        DatasetUnavailable: naming the command that brings the data.
    """
    check_numbers(cfg)
    OmegaConf.set_struct(cfg, True)
    if cfg.f is None:
        cfg.f = implied_f(cfg)
    prepare_process(cfg.engine.threads)
    dataset: Dataset = make(cfg, "data")
    cfg.task.input_shape, cfg.task.num_classes = list(dataset.input_shape), dataset.num_classes
    holdout = cfg.evaluation.holdout if cfg.evaluation.clients else 0.0
    cfg.trusted, proxy = trusted_examples(cfg), None
    if cfg.strategy.get("proxy") == "test":
        dataset, proxy = take_from_test(dataset, cfg.trusted, cfg.seed)
    split = {"seed": cfg.seed, "holdout": holdout, "trusted": 0 if proxy else cfg.trusted}
    population = Population.split(dataset, make(cfg, "partition"), cfg.population, **split)
    model: nn.Module = build_model(lambda: make(cfg, "model"), seed=cfg.seed)
    if dataset.tokens and not any(isinstance(module, nn.Embedding) for module in model.modules()):
        logger.warning(
            "%s holds numbers of characters or words, and this model, which has no embedding, takes them for measurements; "
            "model=lstm, text_cnn and mean_embedding look them up",
            dataset.name,
        )
    settings = {key: cfg.engine[key] for key in ("device", "executor", "precision", "batch")}
    settings["at_most"] = math.ceil(cfg.cohort / cfg.engine.get("workers", 1))  # batches are not divided among workers
    settings["measures"] = [name for name in ("worst_class", "objective") if cfg.evaluation[name]]
    clients = Clients(population, model, make(cfg, "local"), seed=cfg.seed, **settings)
    model = clients.model
    cfg.engine.device = str(clients.device)
    _note(cfg, clients.engine)
    if around is None:
        model.to(clients.device)  # and with it every later model, and the rows; what comes from elsewhere comes in arrays
    grid = around or make(cfg, "engine.grid", clients=clients, on_client_error=cfg.on_client_error, seed=cfg.seed)
    strategy, participation = make_strategy(cfg, clients, proxy), None
    if cfg.participation._target_ is not None:
        if around is not None:
            raise ConfigError("participation is simulated only where clients are; leave it out when Flower runs them")
        participation = make_participation(cfg, population)
        grid = Availability(grid, participation, unreachable="hide" if isinstance(strategy, Strategy) else "silent")
    inform(strategy, participation, cfg)
    if cfg.attack.method is not None:
        method = make(cfg, "attack.method")
        grid = make(cfg, "attack", grid=grid, attack=method, defence=strategy, seed=cfg.seed, drop=("method",))
        check_attack(strategy, grid.attack)
        try_attack(grid.attack, cfg, dataset)
    if cfg.faults._target_ is not None:  # around the adversary: attackers collude before they send, and lose replies as well
        grid = make(cfg, "faults", grid=grid, seed=cfg.seed)
    if cfg.sanitize is None:
        cfg.sanitize = cfg.faults._target_ is not None and not isinstance(strategy, Strategy)
    if cfg.sanitize:
        grid = Sanitize(grid)
    if isinstance(strategy, Strategy):
        strategy.check(cfg.cohort)
    callbacks = [make(cfg, f"callbacks.{name}") for name in cfg.callbacks]
    return Experiment(cfg, clients, model, grid, strategy, callbacks, cfg.f)


def run_experiment(
    cfg: DictConfig,
    directory: Path,
    *,
    resume: bool = False,
    choices: Mapping[str, str] | None = None,
    command: str = "",
    watch: Callable[[Experiment], list[Callback]] = lambda _: [],
) -> Result:
    """Run one config and leave everything about it in ``directory``.

    Args:
        cfg: the composed config.
        directory: the run directory. It must not hold a run yet, or with ``resume`` one of this config that was not completed.
        resume: go on after the last checkpoint; the result is that of an uninterrupted run, to the bit.
        choices: config group -> chosen name, the run's label in tables.
        command: what to type to run it again.
        watch: makes further callbacks once the experiment is built, to show progress.

    Raises:
        ConfigError: the config is impossible, or the directory holds what it must not.
        Interrupted: a signal stopped the run after a round, and a checkpoint was written.
    """
    asked, tracking = _plain(cfg), Tracking.of(cfg)
    checkpoints = Checkpoints(directory / "checkpoints", **{key: cfg.checkpoint[key] for key in ("every", "seconds", "keep")})
    experiment = build(cfg)
    with experiment, Lock(directory), tracking, StopOnSignal() as signals:
        if resume:
            record = _reopen(experiment, directory, checkpoints)
        else:
            left_open = {key: before for key, (before, _) in differences(asked, _plain(cfg)).items()}
            record = _create(experiment, directory, label=dict(choices or {}), command=command, left_open=left_open)
        callbacks = [_Recorder(record, experiment.f), tracking, *watch(experiment), *experiment.callbacks, signals]
        try:
            tracking.start(record, _plain(cfg), resume)
            result = run(
                experiment.grid,
                experiment.strategy,
                experiment.model,
                cfg.rounds,
                seed=cfg.seed,
                evaluate_every=cfg.evaluation.every,
                callbacks=callbacks,
                checkpoints=checkpoints,
            )
            if result.stopped_early and any(callback.paused for callback in callbacks):
                raise KeyboardInterrupt
            layout = experiment.clients.layout
            final = layout.read(result.arrays)
            save_model({slot.name: layout.view(final, slot) for slot in layout.slots}, directory / "model.pt")
            record.finish("completed", parameters=parameters_hash(final))
        except KeyboardInterrupt as stop:
            with suppress(FedaggError):
                record.finish("interrupted")
            raise stop if signals.caught is None else Interrupted(signals.caught) from None
        except BaseException as error:
            with suppress(FedaggError):  # a full disk has spoken already
                record.finish("failed", error=f"{type(error).__name__}: {error}")
            raise
        checkpoints.clear()
    return result


def _create(experiment: Experiment, directory: Path, **fields: Any) -> RunDirectory:
    """Start a run directory."""
    cfg, population = experiment.cfg, experiment.clients.population
    return RunDirectory.create(
        directory,
        config=_plain(cfg),
        seed=cfg.seed,
        rounds=cfg.rounds,
        data={
            "name": population.dataset.name,
            "source": population.dataset.source,
            **_fingerprints(experiment),
            **population.summary(),
        },
        byzantine=experiment.byzantine,
        knowledge=adversary.knowledge if (adversary := experiment.adversary) else None,
        **describe_machine(cfg.engine.device),
        **fields,
    )


def _reopen(experiment: Experiment, directory: Path, checkpoints: Checkpoints) -> RunDirectory:
    """Go on with a run directory, if what it holds is this run."""
    old = read_run(directory)
    check_same(directory, old.config, _plain(experiment.cfg))
    data = {key: old.info["data"].get(key) for key in FINGERPRINTS}
    check_same(directory, {"data": data}, {"data": _fingerprints(experiment)})
    if checkpoints.refused:
        raise ConfigError(f"{directory} cannot be resumed: {checkpoints.refused}. Start over in a new directory")
    now = describe_machine(experiment.cfg.engine.device)["versions"]
    for name, version in old.info["versions"].items():
        if now.get(name) != version:
            logger.warning("%s was %s when this run began, and is %s now", name, version, now.get(name))
    record = RunDirectory.reopen(directory)
    if not checkpoints.any():
        record.cut()  # it ended before its first checkpoint
    return record


def _fingerprints(experiment: Experiment) -> dict[str, str]:
    population = experiment.clients.population
    return dict(zip(FINGERPRINTS, (population.dataset.fingerprint, population.fingerprint), strict=True))


def _plain(cfg: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def _note(cfg: DictConfig, engine: Engine) -> None:
    """Fill in what ``cfg`` leaves open about the engine."""
    cfg.engine.executor = engine.name
    if engine.name == "batched":
        cfg.engine.batch = engine.batch


class _Recorder(Callback):
    """Write every finished round into the run directory at once."""

    def __init__(self, record: RunDirectory, f: int) -> None:
        self.record, self.f = record, f

    def round_finished(self, done: Round) -> None:
        byzantine = done.value("server", "byzantine")
        if byzantine is not None:
            done.rows.append((done.round, "server", None, "byzantine_over_f", max(0.0, byzantine - self.f)))
        self.record.append(done.rows)
        self.record.append_timing((done.round, phase, seconds) for phase, seconds in done.seconds.items())

    def state_dict(self) -> dict[str, int]:
        return self.record.ends()

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.record.cut(state)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 1e6 else "under 1 MB"


def _name_some(clients: list[int]) -> str:
    """Return ``clients 1, 4, 7``, or how many they are where naming them would fill the page."""
    return f"clients {', '.join(map(str, clients))}" if len(clients) <= 20 else f"{len(clients):,} clients"
