"""Plain settings: which of them are impossible, and what those that are left open come to. Nothing is read or built here."""

from __future__ import annotations

import math

from omegaconf import DictConfig, OmegaConf

from fedagg.errors import ConfigError
from fedagg.instantiate import class_of


def implied_f(cfg: DictConfig) -> int:
    """Return how many Byzantine clients the attack puts into a cohort, rounded up."""
    if cfg.attack.method is None:
        return 0
    return math.ceil(float(cfg.attack.fraction) * int(cfg.cohort) - 1e-9)  # 0.07 * 100 is a little more than 7


def trusted_examples(cfg: DictConfig) -> int:
    """Return how many examples the server has of its own: as asked for, else 200 or 100 where strategy or rule needs some."""
    if cfg.trusted is not None:
        return int(cfg.trusted)
    if "proxy" in getattr(class_of(cfg.strategy.get("_target_"), "strategy"), "needs", frozenset()):
        return 200
    rule = OmegaConf.select(cfg, "strategy.rule._target_")
    needs: frozenset[str] = frozenset() if rule is None else getattr(class_of(rule, "strategy.rule"), "needs", frozenset())
    return 100 if needs & {"root_update", "loss"} else 0


def check_numbers(cfg: DictConfig) -> None:
    """Check the plain settings before anything is read or built."""

    def require(key: str, possible: bool, what: str) -> None:
        if not possible:
            raise ConfigError(f"{key} must be {what}; got {OmegaConf.select(cfg, key)}")

    workers = ["engine.workers"] if "workers" in cfg.engine else []
    for key in ("population", "cohort", "rounds", "engine.threads", *workers, "evaluation.every"):
        value = OmegaConf.select(cfg, key)
        require(key, isinstance(value, int) and not isinstance(value, bool) and value >= 1, "an integer >= 1")
    if cfg.cohort > cfg.population:
        raise ConfigError(
            f"cohort must be at most the population; got cohort={cfg.cohort}, population={cfg.population}. "
            "Lower cohort or raise population"
        )
    require("seed", isinstance(cfg.seed, int) and not isinstance(cfg.seed, bool) and cfg.seed >= 0, "an integer >= 0")
    require("f", cfg.f is None or (isinstance(cfg.f, int) and cfg.f >= 0), "an integer >= 0, or null")
    trusted = cfg.trusted
    require("trusted", trusted is None or (isinstance(trusted, int) and trusted >= 0), "an integer >= 0, or null")
    require("attack.fraction", isinstance(cfg.attack.fraction, int | float) and 0 <= cfg.attack.fraction <= 1, "in [0, 1]")
    require("sanitize", cfg.sanitize is None or isinstance(cfg.sanitize, bool), "true, false or null")
    require("on_client_error", cfg.on_client_error in ("raise", "drop"), "raise or drop")
    for key in ("worst_class", "objective", "clients"):
        require(f"evaluation.{key}", isinstance(cfg.evaluation[key], bool), "true or false")
    holdout = cfg.evaluation.holdout
    require("evaluation.holdout", isinstance(holdout, int | float) and 0 < holdout < 1, "between 0 and 1")
