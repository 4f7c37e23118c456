"""Runs that are run again: to go on where they ended, or to see whether they come out the same."""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from fedagg.checkpoint import Checkpoints
from fedagg.console import suggest
from fedagg.disk import Lock
from fedagg.errors import ConfigError, FedaggError
from fedagg.results import RESULT_KEYS, Run, check_same, differences, find_runs, flat, half_made, read_run


def to_go_on_with(cfg: DictConfig, directory: Path, elsewhere: Path | None) -> Run | None:
    """Return the run that ``resume=auto`` means: that in ``directory``, else the newest of this config ``elsewhere``.

    Args:
        cfg: the composed config.
        directory: where the run would go.
        elsewhere: a folder of runs, looked through where ``directory`` holds none; one that is not complete comes first.

    Raises:
        ConfigError: ``directory`` holds a complete run of another config, or one that could not be saved.
    """
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    if (directory / "run.json").exists() and not half_made(directory):
        here = read_run(directory)
        if here.status == "completed":
            check_same(directory, _asked(here), config)
        return here
    if elsewhere is None or not any(elsewhere.rglob("run.json")):
        return None
    alike = [run for run in find_runs(elsewhere) if not run.problem and not differences(_asked(run), config)]
    return max(filter(_free, alike), key=lambda run: (run.status != "completed", str(run.info["started"])), default=None)


def _asked(run: Run) -> dict[str, Any]:
    """Return a run's config as it was before the experiment filled in what was left open, by dotted keys."""
    return {**dict(flat(run.config)), **run.info.get("left_open", {})}


def _free(run: Run) -> bool:
    """Whether a run is complete, or can be gone on with: it could be saved, and no other process is at it."""
    if run.status == "completed":
        return True
    try:
        with Lock(run.path):
            return not Checkpoints(run.path / "checkpoints").refused
    except FedaggError:
        return False


def resume(path: Path) -> None:
    """Go on with the run in ``path``.

    Raises:
        ConfigError: there is none, or it is complete.
    """
    from fedagg.experiment import run_experiment
    from fedagg.progress import watcher

    old = read_run(path)
    if old.status == "completed":
        raise ConfigError(f"the run in {path} is complete; there is nothing to go on with")
    title = f"{old.label.get('strategy', '?')} x {old.label.get('attack', '?')}, seed {old.seed}"
    with _of_its_time(old), ExitStack() as stack:
        run_experiment(OmegaConf.create(old.config), path, resume=True, watch=watcher(stack, title, [f"output    {path}"]))


@contextmanager
def _of_its_time(run: Run) -> Iterator[None]:
    """Where the config of a run lacks what is read from it today, say that, and which version wrote it."""
    try:
        yield
    except (ConfigKeyError, ConfigAttributeError) as error:
        made_by = ", ".join(f"{name} {run.info.get('versions', {}).get(name)}" for name in ("fedagg", "commit"))
        raise ConfigError(
            f"the config of {run.path} has no {error.full_key}, which this version of fedagg needs; it was written by "
            f"{made_by}. Take that version, or run its command again: {run.info.get('command')}"
        ) from error


def verify(path: Path, overrides: Sequence[str] = ()) -> bool:
    """Repeat a completed run and say whether the same numbers come out, to the bit.

    Args:
        path: the run directory; nothing in it is changed.
        overrides: other settings of ``engine``, for example ``engine=ray`` or ``engine.workers=3``.

    Raises:
        ConfigError: the run is not complete, or an override is of something else.
    """
    from fedagg.experiment import run_experiment
    from fedagg.provenance import describe_machine

    old = read_run(path)
    if old.status != "completed":
        go_on = shlex.join(["fedagg", "resume", str(path)])
        raise ConfigError(f"only a completed run can be verified; {path} is {old.status}. Go on with {go_on}")
    cfg = OmegaConf.create({**old.config, "logger": {}})  # a repetition is not shown again
    if overrides:
        cfg.engine = _engine(cfg, overrides)
    with tempfile.TemporaryDirectory(prefix="fedagg-verify-") as folder:
        again_path = Path(folder) / "run"
        with _of_its_time(old):
            run_experiment(cfg, again_path)
        again = read_run(again_path)
        same_rows = (path / "metrics.csv").read_bytes() == (again_path / "metrics.csv").read_bytes()
        same_model = old.info["parameters"] == again.info["parameters"]
        if same_rows and same_model:
            print(f"same: {len(old.metrics)} metrics and the final parameters of {path} came out again, to the bit")
            return True
        print(f"NOT the same: {path}")
        if not same_rows:
            print(f"  first difference  {_first_difference(path / 'metrics.csv', again_path / 'metrics.csv')}")
        print(f"  final parameters  {'same' if same_model else 'differ'}")
    for group, values in describe_machine(cfg.engine.device).items():
        for name, value in values.items():
            if old.info[group].get(name) != value:
                print(f"  {group.removesuffix('s')}           {name}: {old.info[group].get(name)} then, {value} now")
    return False


def _engine(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Return the engine that the overrides describe: a choice of the group, or changes to the run's own."""
    from fedagg.hydra_app import compose

    strange = [override for override in overrides if not re.match(r"engine(\.[\w.]+)?=.", override)]
    if strange:
        raise ConfigError(
            f"only engine settings can be changed when a run is verified; got {' '.join(strange)}. Write engine=NAME or "
            "engine.KEY=VALUE"
        )
    named = {override.partition("=")[0].removeprefix("engine.") for override in overrides}
    if "engine" in named:
        chosen: DictConfig = compose(overrides).engine
        for key in set(RESULT_KEYS) - named:  # what decides the bits stays as it was, unless it is asked for
            chosen[key] = cfg.engine[key]
        return chosen
    known = [key for key, _ in flat(OmegaConf.to_container(cfg.engine))]  # type: ignore[arg-type]
    if unknown := sorted(named - set(known)):
        raise ConfigError(f"no setting engine.{unknown[0]}{suggest(unknown[0], known)}; this engine has {', '.join(known)}")
    asked = compose([f"++{override}" for override in overrides]).engine
    for key in named:
        for place in {key, f"grid.{key}"} & set(known):  # the Grid's were interpolations before the config was written
            OmegaConf.update(cfg.engine, place, OmegaConf.select(asked, key))
    return cfg.engine  # type: ignore[no-any-return]


def _first_difference(old: Path, new: Path) -> str:
    lines = [path.read_text().splitlines() for path in (old, new)]
    for before, after in zip(*lines, strict=False):
        if before != after:
            return f"{before} then, {after} now"
    return f"{len(lines[0])} lines then, {len(lines[1])} now"
