"""The parts of an experiment that need more than their own config: who takes part, the strategy, a trial of the attack."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from fedagg.clients import Clients, TrustedExamples
from fedagg.contracts import REPORTS, Attack, Weighting, cohort_size
from fedagg.data import Dataset, Population
from fedagg.errors import ConfigError
from fedagg.fitting import check_halves
from fedagg.grid.availability import Participation
from fedagg.instantiate import class_of, make
from fedagg.settings import implied_f
from fedagg.strategy import AnyStrategy, Strategy


def make_participation(cfg: DictConfig, population: Population) -> Participation:
    """Make the pattern by which clients come and go; ``rates`` says how often each does, by what data it holds."""
    rates = {}
    if cfg.participation.get("rates") is not None:
        rates["probabilities"] = make(cfg, "participation.rates")(population.label_counts, cfg.seed)
    pattern: Participation = make(cfg, "participation", drop=("rates",), **rates)
    return pattern


def inform(strategy: AnyStrategy, participation: Participation | None, cfg: DictConfig) -> None:
    """Tell an oracle how often each client takes part.

    Raises:
        ConfigError: nobody knows.
    """
    if not isinstance(strategy, Strategy) or "reachability" not in strategy.required:
        return
    sampled = torch.full((cfg.population,), cfg.cohort / cfg.population)
    known = sampled if participation is None else getattr(participation, "reachability", None)
    if participation is not None and cfg.cohort < cfg.population:
        raise ConfigError(
            f"strategy={strategy.weighting or strategy} must know how often each client takes part, but the cohort is sampled "
            f"from those who can be reached; set cohort=population (got cohort={cfg.cohort}, population={cfg.population})"
        )
    if known is None:
        raise ConfigError(
            f"strategy={strategy.weighting or strategy} must know how often each client takes part, and participation="
            f"{participation} has no rates; take bernoulli, markov or cyclic, or give it probabilities"
        )
    strategy.reachability = torch.as_tensor(known, dtype=torch.float64).expand(cfg.population)


def make_strategy(cfg: DictConfig, clients: Clients, proxy: tuple[Tensor, Tensor] | None = None) -> AnyStrategy:
    """Make the strategy, and let clients report what it needs.

    Ours get cohort, seed, server optimizer and what they need of the experiment; others are made as their YAML says.

    Raises:
        ConfigError: settings that have no effect on this strategy, or that it cannot do without.
    """
    if not clients.local.server_model and not cfg.evaluation.clients:
        raise ConfigError(
            f"with {type(clients.local).__name__} every client has a model of its own, and none can be measured on the "
            "server's test set; set evaluation.clients=true"
        )
    target = cfg.strategy.get("_target_")
    cls = class_of(target, "strategy")
    default = cfg.server_optimizer.get("_target_") == "fedagg.server_optimizers.Step" and cfg.server_optimizer.lr == 1
    if not (inspect.isclass(cls) and issubclass(cls, Strategy)):
        strategy: AnyStrategy = make(cfg, "strategy")
        if cfg.evaluation.clients and getattr(strategy, "fraction_evaluate", 1.0) == 0.0:
            raise ConfigError(f"evaluation.clients=true, but {target} asks no client; set strategy.fraction_evaluate=1")
        if not default:
            raise ConfigError(f"server_optimizer has no effect on {target}, which moves the model itself; leave it out")
        if cfg.pre_aggregators:
            raise ConfigError(f"pre_aggregators have no effect on {target}, which sees the clients' replies; leave them out")
        if cfg.weighting._target_ is not None:
            raise ConfigError(f"weighting has no effect on {target}, which weighs clients itself; leave it out")
        check_halves(strategy, clients.local)
        return strategy
    engine: dict[str, Any] = {
        "cohort": cfg.cohort,
        "seed": cfg.seed,
        "evaluate_every": cfg.evaluation.every if cfg.evaluation.clients else 0,
        "trusted": TrustedExamples(clients) if len(clients.population.trusted) else None,
        "pre_aggregators": [make(cfg, f"pre_aggregators.{name}") for name in cfg.pre_aggregation.split(",") if name],
    }
    if "server_optimizer" not in cfg.strategy:
        engine["server_optimizer"] = make(cfg, "server_optimizer")
    elif not default:
        raise ConfigError("server_optimizer has no effect on a strategy that brings its own; change strategy.server_optimizer")
    engine = {key: value for key, value in engine.items() if key not in cfg.strategy}
    if "proxy" in cls.needs:
        if (source := cfg.strategy.get("proxy", "train")) not in ("train", "test"):
            raise ConfigError(f"strategy.proxy must be train or test; got {source}")
        engine |= {"model": clients.model, "proxy": proxy or _own_examples(clients.population)}
    drop = ["proxy"] if "proxy" in cls.needs else []
    if cfg.weighting._target_ is not None:
        engine["weighting"] = _weighting(cfg)
        drop.append("weighting")
    ours: Strategy = make(cfg, "strategy", drop=tuple(drop), **engine)
    check_halves(ours, clients.local)
    clients.report(ours.required & REPORTS)
    return ours


def _weighting(cfg: DictConfig) -> Weighting:
    """Return the weighting that stands for the strategy's own, or inside it where that one is built around another."""
    weighting: Weighting = make(cfg, "weighting")
    own = cfg.strategy.get("weighting")
    if own is None or "base" not in own:
        return weighting
    if own.base is not None:
        raise ConfigError("weighting has no effect: strategy.weighting.base says what the strategy's own is built around")
    around: Weighting = make(cfg, "strategy.weighting", drop=("base",), base=weighting)
    return around


def _own_examples(population: Population) -> tuple[Tensor, Tensor] | None:
    """Return what the server keeps of the training set: features [m, ...] and classes [m]; None where it keeps nothing."""
    dataset, rows = population.dataset, population.trusted
    return (dataset.features(dataset.x_train[rows]), torch.tensor(dataset.y_train[rows])) if len(rows) else None


def try_attack(attack: Attack, cfg: DictConfig, dataset: Dataset) -> None:
    """Make the attack once on random rows and a few examples, so that an impossible setting is found before any training."""
    f, trial, knowledge = implied_f(cfg), copy.deepcopy(attack), cfg.attack.get("knowledge")
    rows = torch.randn(cfg.cohort, 8, generator=torch.Generator().manual_seed(0))
    if "updates" not in attack.payloads:
        rows = rows.argsort(dim=1)  # rankings
    own, size = rows[:f], cohort_size(attack, cfg.cohort)
    seen, ids = (own, range(f)) if knowledge == "corrupted" else (rows[f:], range(f, cfg.cohort))
    hint = "Lower attack.fraction or raise cohort"
    if knowledge == "corrupted":
        hint = f"attack.knowledge=corrupted shows it {f} rows, those of the attackers; leave it out, or raise attack.fraction"
    try:
        if 0 < f < cfg.cohort:
            trial(seen, f, own=own, last_delta=rows[0], params=rows[0], round=1, client_ids=ids, **size)
    except ValueError as error:
        raise ConfigError(f"attack.method: {error}. {hint}") from error
    classes, target = dataset.num_classes, getattr(trial, "target", None)
    if isinstance(target, int) and target >= classes:
        key = "attack.method.target" if getattr(trial, "backdoor", None) is None else "attack.method.backdoor.target"
        raise ConfigError(f"{key} must be one of the {classes} classes 0 .. {classes - 1} of {dataset.name}; got {target}")
    if getattr(trial, "poison", None) is not None:
        some = np.arange(classes) % len(dataset.x_train)
        x, y = dataset.features(dataset.x_train[some]), torch.arange(classes)
        try:
            _, made = trial.poison(x, y, **({"attacker": 0} if trial.distributed else {}))  # type: ignore[attr-defined]
        except ValueError as error:
            raise ConfigError(f"attack.method: {error}") from error
        if made.numel() and not 0 <= int(made.min()) <= int(made.max()) < classes:
            raise ConfigError(
                f"attack.method: {attack} makes labels from {int(made.min())} to {int(made.max())}, and {dataset.name} has "
                f"{classes} classes, 0 .. {classes - 1}; change its num_classes, mapping or target"
            )
