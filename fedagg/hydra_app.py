"""The verbs that take a config: compose it with Hydra, run it, and say in one line what is wrong with it."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from fedagg import resolvers
from fedagg.console import complain, config_dir, method, say_how_to_go_on, suggest
from fedagg.errors import ConfigError, FedaggError
from fedagg.overrides import written

INTERRUPTED = 130
resolvers.register()


def run(arguments: Sequence[str]) -> int:
    """Run one config, or a multirun of several, as an ordinary Hydra application."""
    own_argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = ["fedagg run", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # lets errors through to us instead of printing them

    def job(cfg: DictConfig) -> float | None:
        return _job(cfg, arguments)

    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")(job)()
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if full_error or not _is_about_the_config(error):
            raise
        return complain(ConfigError(explain(error, arguments)))
    except SystemExit as stop:
        return int(stop.code or 0)
    except KeyboardInterrupt as stop:
        return getattr(stop, "exit_code", INTERRUPTED)
    finally:
        sys.argv = own_argv
        if full_error is None:
            os.environ.pop("HYDRA_FULL_ERROR", None)
    return 0


def _job(cfg: DictConfig, arguments: Sequence[str]) -> float | None:
    """Run one job of Hydra's and return its final accuracy, which a sweeper may optimise."""
    try:
        return _run_job(cfg, arguments)
    except FedaggError as error:  # Hydra would print the overrides above it
        raise SystemExit(complain(error)) from error
    except OmegaConfBaseException as error:  # a key that was deleted, or an interpolation that leads nowhere
        raise SystemExit(complain(ConfigError(explain(error)))) from error


def _run_job(cfg: DictConfig, arguments: Sequence[str]) -> float | None:
    from fedagg.experiment import run_experiment
    from fedagg.progress import watcher
    from fedagg.rerun import to_go_on_with
    from fedagg.study.multirun import enter_job

    logging.getLogger("flwr").setLevel(logging.ERROR)  # its strategies log every step of every round
    settings = HydraConfig.get()
    choices = _choices_of(settings)
    directory = Path(settings.runtime.output_dir)
    if cfg.resume not in (None, "auto"):
        raise ConfigError(f"resume must be auto or null; got {cfg.resume}. To go on with one run: fedagg resume RUN_DIR")
    command = shlex.join(["fedagg", "run", *_config_flags(settings), *settings.overrides.task])
    sweep = settings.mode == RunMode.MULTIRUN
    if sweep:
        enter_job(settings, cfg, arguments, command)
    found = to_go_on_with(cfg, directory, _folder_of_runs(settings)) if cfg.resume or sweep else None
    if found is not None:
        _leave(directory, found.path)
        directory = found.path
        if found.status == "completed":
            print(f"complete  {directory}", flush=True)
            return _last_accuracy(found.series("accuracy")[1].tolist())
    changed = " ".join(settings.overrides.task) or "nothing, these are the defaults"
    title = f"{method(choices)} x {choices['attack']}, seed {cfg.seed}"
    with ExitStack() as stack:
        watch = watcher(stack, title, [f"changed   {changed}", f"output    {directory}"])
        try:
            resume = found is not None
            result = run_experiment(cfg, directory, resume=resume, choices=choices, command=command, watch=watch)
        except KeyboardInterrupt:
            say_how_to_go_on(directory)
            raise
    return _last_accuracy([value for _, value in result.series("accuracy")])


def _last_accuracy(values: list[float]) -> float | None:
    return values[-1] if values else None


def _folder_of_runs(settings: Any) -> Path | None:
    """Return where runs with directories of the default names lie; None where the user has named the directory."""
    multirun = settings.mode == RunMode.MULTIRUN
    named = [override for override in settings.overrides.hydra if override.startswith(("hydra.run.dir", "hydra.sweep."))]
    default = settings.sweep.dir if multirun else settings.run.dir
    return None if named else Path(default).parent


def _leave(directory: Path, other: Path) -> None:
    """Remove the directory Hydra made for a run that goes on elsewhere, if it holds nothing but an empty log."""
    if directory.resolve() == other.resolve() or not directory.is_dir():
        return
    files = list(directory.iterdir())
    if all(file.suffix == ".log" and file.stat().st_size == 0 for file in files):
        for file in files:
            file.unlink()
        directory.rmdir()


def _config_flags(settings: Any) -> Iterator[str]:
    """Return the flags that named another primary config, for the command that repeats the run."""
    if settings.job.config_name != "config":
        yield from ("--config-name", settings.job.config_name)
    for source in settings.runtime.config_sources:
        if source.provider == "command-line":
            yield from ("--config-dir", source.path)


def compose(overrides: Sequence[str]) -> DictConfig:
    """Return the config that ``fedagg run`` would run with these overrides.

    Raises:
        ConfigError: naming what is unknown and the nearest name that is known.
    """
    return compose_with_choices(overrides)[0]


def compose_with_choices(overrides: Sequence[str], folder: Path | None = None) -> tuple[DictConfig, dict[str, str]]:
    """Return a config as ``compose`` does, and which choice of each group it is made of.

    Args:
        overrides: as on the command line.
        folder: a user's own, with config groups that add to ours.
    """
    search = [written("hydra.searchpath", [f"file://{folder.resolve()}"])] if folder else []  # Hydra decodes no URI
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(config_dir())):
        try:
            cfg = hydra.compose("config", overrides=[*overrides, *search], return_hydra_config=True)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            if not _is_about_the_config(error):
                raise
            raise ConfigError(explain(error, overrides)) from error
    choices = _choices_of(cfg.hydra)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, choices


def _choices_of(settings: Any) -> dict[str, str]:
    """Return group -> choice, without Hydra's own groups, the machine's and the tracker's, which name no method."""
    chosen = {group: str(choice) for group, choice in settings.runtime.choices.items()}
    for override in settings.overrides.task:
        group, _, names = str(override).partition("=")
        if names.startswith("[") and (config_dir() / group).is_dir():  # several of one group, which Hydra does not record
            chosen[group] = names.strip("[]").replace(" ", "")
    own = {group: choice for group, choice in chosen.items() if "@" not in group}  # others are parts of a choice
    return {group: choice for group, choice in own.items() if not group.startswith(("hydra/", "machine", "logger"))}


def partition(overrides: Sequence[str], out: Path) -> int:
    """Split the data as a run would, print the sizes and draw labels by client."""
    try:
        from fedagg.data import label_picture
        from fedagg.experiment import build

        population = build(compose(overrides)).clients.population
        for name, value in population.summary().items():
            print(f"{name:<20} {value}")
        try:
            label_picture(population, out)
        except ValueError as error:
            raise ConfigError(f"--out {out}: {error}") from error
        print(f"picture              {out}")
    except FedaggError as error:
        return complain(error)
    return 0


def _is_about_the_config(error: Exception) -> bool:
    """Whether an error is about what the user wrote. Hydra refuses ``attack=null`` with a plain ValueError."""
    return not isinstance(error, ValueError) or isinstance(error, OmegaConfBaseException) or "Config group" in str(error)


def explain(error: Exception, overrides: Sequence[str] = ()) -> str:
    """Say in one line what is wrong with an override, with the nearest name that would have been right.

    Args:
        error: what Hydra raised.
        overrides: what the user wrote; the names that are known depend on the choices in it.
    """
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, wrong = str(error.missing_cfg_file).rpartition("/")
        options = [option for option in error.options if not option.startswith("_")]
        return f"{group} has no choice {wrong}{suggest(wrong, options)}. Choices: {', '.join(options)}"
    message = str(error).strip()
    if isinstance(error, ValueError) and "Config group" in message:
        wrong = next((choice for choice in _choices(overrides) if not _file_of(choice).exists()), "GROUP=null")
        group = wrong.partition("=")[0]
        return f"{wrong}: a config group takes one of its choices; fedagg list {group} shows them"
    several = re.search(r"Could not load '([^'/]+)/([^'/]+)'", message)
    if several:
        group, wrong = several.groups()
        options = sorted(file.stem for file in (config_dir() / group).glob("[!_]*.yaml"))
        return f"{group} has no choice {wrong}{suggest(wrong, options)}. Choices: {', '.join(options)}"
    unknown = re.search(r"Could not (?:override|append to) '([^']+)'", message) or re.search(
        r"Key '([^']+)' is not in struct", message
    )
    if unknown:
        key = unknown.group(1)
        if key.split(".")[0] == "rule":
            return f"no setting {key}: a rule is chosen as strategy=NAME, and its settings are strategy.rule.NAME"
        near = suggest(key, _known_keys(overrides))
        return f"no setting {key}{near}. fedagg run --help lists the settings; +{key}=... adds one"
    no_group = re.search(r"Could not override '([^'@]+)(?:@[^']*)?'.*[Nn]o match in the defaults list", message, re.DOTALL)
    if no_group:
        return f"no config group {no_group.group(1)}{suggest(no_group.group(1), _known_keys(overrides))}"
    return " ".join(message.split())


def _choices(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that choose from one of our groups."""
    return [override for override in overrides if "=" in override and (config_dir() / override.partition("=")[0]).is_dir()]


def _file_of(choice: str) -> Path:
    group, _, name = choice.partition("=")
    return config_dir() / group / f"{name}.yaml"


def _known_keys(overrides: Sequence[str]) -> list[str]:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(config_dir())):
        try:
            composed = hydra.compose("config", overrides=_choices(overrides))
        except HydraException:  # a sweep, or a choice of the user's own
            composed = hydra.compose("config")
    cfg = OmegaConf.to_container(composed, resolve=False)
    keys: list[str] = []

    def walk(node: Any, prefix: str) -> None:
        for key, value in node.items() if isinstance(node, dict) else ():
            keys.append(f"{prefix}{key}")
            walk(value, f"{prefix}{key}.")

    walk(cfg, "")
    return keys
