"""Hyper-parameters, chosen on data that clients hold out, never on the test set: in peace, and under the worst attack.

For every point of a study's axes other than ``attack``, the best setting is searched with nobody attacking. With that setting
all attacks are run; the one that hurts most is the worst, and the search is made once more under it. A paper that tunes in
peace, and one that tunes under attack, then both find their numbers, and neither has looked at the test set.

The search is Optuna's (Akiba et al., KDD 2019), the sampler its TPE with a seed. Trials are asked for in groups of a fixed
size, so the outcome depends neither on the number of workers nor on interruptions: called again, a search repeats its trials,
whose runs are complete, and goes on.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from fedagg.disk import write_whole
from fedagg.errors import ConfigError, FedaggError
from fedagg.report.measures import Metric, Protocol
from fedagg.results import read_run
from fedagg.study.plan import Overrides, Study, known
from fedagg.study.resolve import resolve
from fedagg.study.run import Runner
from fedagg.study.tuned import ATTACK, FOUND

KEYS = ("space", "trials", "group", "metric", "protocol", "seed")
PEACE = "none"


class Stopped(FedaggError):
    """A signal stopped a search; what was done is kept.

    Args:
        signum: the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__("stopped; the same command goes on")
        self.exit_code = 128 + signum


@dataclass(frozen=True)
class Search:
    """What is searched, and how.

    Args:
        space: key -> a list of choices, or ``{low, high, log}``.
        trials: settings that are tried; where lists have no more combinations than that, each of them once.
        group: so many are tried before the sampler looks at what they came to.
        metric: ``split/metric``, of data that no client trained on and that is not the test set.
        protocol: which round counts, as for reports.
        seed: of the sampler.
    """

    space: Mapping[str, Any]
    trials: int = 16
    group: int = 4
    metric: str = "clients/accuracy_mean"
    protocol: str = "final"
    seed: int = 0

    @classmethod
    def of(cls, study: Study) -> Search:
        """Read what a study's file says under ``tune``.

        Raises:
            ConfigError: there is nothing to search, a key is unknown, or the metric is of the test set.
        """
        for key in study.tune:
            known(key, KEYS, "tune")
        if not study.tune.get("space"):
            raise ConfigError(
                f"the study {study.name} has nothing to tune; say what under tune: {{space: {{local.lr: [..]}}}}"
            )
        if not isinstance(study.tune["space"], Mapping):
            raise ConfigError(f"tune.space must be a mapping of settings to what they may be; got {study.tune['space']}")
        search = cls(**study.tune)
        if Metric.parse(search.metric).split == "test":
            raise ConfigError("settings are never chosen on the test set; tune.metric may be clients/accuracy_mean")
        for name, number in (("trials", search.trials), ("group", search.group)):
            if not isinstance(number, int) or number < 1:
                raise ConfigError(f"tune.{name} must be an integer >= 1; got {number}")
        return search


@dataclass(frozen=True)
class Tuned:
    """The best setting at one place, under one attack.

    Args:
        place: the point on each axis.
        attack: under which it was chosen.
        setting: key -> value.
        validation: the metric of the search, mean over seeds.
        test: test accuracy with this setting under this attack, mean over seeds; it was not looked at.
    """

    place: dict[str, str]
    attack: str
    setting: dict[str, Any]
    validation: float
    test: float


def tune(study: Study, *, quiet: bool = False) -> list[Tuned]:
    """Search the settings of a study and write them to ``tuned.csv`` in a store beside the study's.

    Raises:
        ConfigError: the study or its search is impossible, or Optuna is missing.
        Stopped: by a signal.
        FedaggError: a run failed.
    """
    if find_spec("optuna") is None:
        raise ConfigError("fedagg tune needs Optuna: pip install 'fedagg[tune]'")
    search = Search.of(study)
    store = study.store.with_name(f"{study.store.name}-tune")
    study = replace(study, config={**study.config, "evaluation.clients": True}, store=store, tuned=None)
    if study.runs:
        raise ConfigError("a study with listed runs cannot be tuned; make them points of an axis")
    attacks = list(study.axes.get(ATTACK, {}))
    others = {axis: points for axis, points in study.axes.items() if axis != ATTACK}
    found = []
    with Runner(study, quiet=quiet) as runner:
        for labels in product(*others.values()):
            place = dict(zip(others, labels, strict=True))
            found += _Place(study, search, runner, place).tuned(attacks)
        file = _write(study.store, list(others), list(search.space), found)
        runner.say(f"table     {file}")
    return found


class _Place:
    """The search at one point of all axes but ``attack``."""

    def __init__(self, study: Study, search: Search, runner: Runner, place: dict[str, str]) -> None:
        self.study, self.search, self.runner, self.place = study, search, runner, place
        self.metric, self.protocol = Metric.parse(search.metric), Protocol.parse(search.protocol)

    def tuned(self, attacks: Sequence[str]) -> list[Tuned]:
        """Return the best setting in peace, and under the attack that is the worst with it."""
        first = PEACE if PEACE in attacks or not attacks else attacks[0]
        found = [self._best(first)]
        hostile = [attack for attack in attacks if attack != PEACE]
        if first == PEACE and hostile:
            self._run([(attack, found[0].setting) for attack in hostile])
            worst = min(hostile, key=lambda attack: self._goodness(self._score(attack, found[0].setting, self.metric)))
            found.append(self._best(worst))
        return found

    def _best(self, attack: str) -> Tuned:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        direction: Literal["minimize", "maximize"] = "minimize" if self.metric.lower_is_better else "maximize"
        sampler = optuna.samplers.TPESampler(seed=self.search.seed)
        trials = optuna.create_study(direction=direction, sampler=sampler)
        space = {key: _distribution(key, values) for key, values in self.search.space.items()}
        left, group = self.search.trials, self.search.group
        grid = _grid(self.search.space)
        if 0 < len(grid) <= left:
            left = group = len(grid)  # nothing to learn from what was tried before
            for setting in grid:
                trials.enqueue_trial(setting)
        while left:
            asked = [trials.ask(space) for _ in range(min(left, group))]
            self._run([(attack, trial.params) for trial in asked])
            for trial in asked:
                trials.tell(trial, self._score(attack, trial.params, self.metric))
            left -= len(asked)
        setting = trials.best_params
        test = self._score(attack, setting, Metric("test", "accuracy"))
        return Tuned(self.place, attack, setting, trials.best_value, test)

    def _run(self, wanted: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        jobs = [self._job(attack, setting, seed) for attack, setting in wanted for seed in self.study.seeds]
        summary = self.runner.run(resolve(self.study, jobs))
        if summary.stopped is not None:
            raise Stopped(summary.stopped)
        for run, outcome in summary.failed.items():
            raise FedaggError(f"the run {self.runner.store.directory(run)} failed: {outcome.error}")

    def _job(self, attack: str, setting: Mapping[str, Any], seed: int) -> Any:
        axes: dict[str, Mapping[str, Overrides]] = {**self.study.axes}
        axes |= {key: {_label(value): {key: value}} for key, value in setting.items()}
        under = {ATTACK: attack} if ATTACK in axes else {}
        return self.study.job({**self.place, **under, **{key: _label(value) for key, value in setting.items()}}, seed, axes)

    def _score(self, attack: str, setting: Mapping[str, Any], metric: Metric) -> float:
        """Return the mean over seeds of what complete runs came to."""
        values = []
        for planned in resolve(self.study, [self._job(attack, setting, seed) for seed in self.study.seeds]):
            rounds, series = read_run(self.runner.store.directory(planned.run)).series(metric.name, metric.split)
            if not len(rounds):
                raise ConfigError(
                    f"no run recorded {metric.split}/{metric.name}. Clients measure in every evaluation.every-th "
                    "of the rounds; Flower's strategies ask them with strategy.fraction_evaluate=1"
                )
            values.append(self.protocol.apply(rounds, series, metric))
        return fmean(values)

    def _goodness(self, score: float) -> float:
        return -score if self.metric.lower_is_better else score


def _distribution(key: str, values: Any) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(values, Sequence) and not isinstance(values, str) and values:
        return CategoricalDistribution(list(values))
    if isinstance(values, Mapping) and {"low", "high"} <= set(values) <= {"low", "high", "log"}:
        low, high, log = values["low"], values["high"], bool(values.get("log", False))
        whole = isinstance(low, int) and isinstance(high, int)
        try:
            return IntDistribution(low, high, log=log) if whole else FloatDistribution(float(low), float(high), log=log)
        except ValueError as error:
            raise ConfigError(f"tune.space.{key}: {error}") from None
    raise ConfigError(f"tune.space.{key} must be a list of choices, or {{low, high, log}}; got {values}")


def _grid(space: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every setting of a space of lists; nothing if there is a range in it."""
    if any(isinstance(values, Mapping) for values in space.values()):
        return []
    return [dict(zip(space, values, strict=True)) for values in product(*space.values())]


def _label(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _write(folder: Path, axes: Sequence[str], keys: Sequence[str], found: Sequence[Tuned]) -> Path:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*axes, ATTACK, *keys, *FOUND])
    for each in found:
        setting = [each.setting[key] for key in keys]
        table.writerow([*(each.place[axis] for axis in axes), each.attack, *setting, each.validation, each.test])
    write_whole(folder / "tuned.csv", text.getvalue())
    return folder / "tuned.csv"
