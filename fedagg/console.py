"""What the verbs of the command line share, without anything heavy to import."""

from __future__ import annotations

import difflib
import os
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path


def config_dir() -> Path:
    """Return the folder of the config groups: beside the package in a checkout, inside it in an installation."""
    package = Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def suggest(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean ...?)`` for the nearest of the known names, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near and near[0] != name else ""


def say_how_to_go_on(directory: Path) -> None:
    """Say on stderr how to go on with a run that was stopped, if it had begun."""
    begun = (directory / "run.json").exists()
    command = shlex.join(["fedagg", "resume", str(directory)])
    print(f"stopped; go on with: {command}" if begun else "stopped before the run began", file=sys.stderr)


def complain(error: Exception) -> int:
    """Print an error that the user can mend and return its exit code; FEDAGG_DEBUG=1 shows the traceback."""
    if os.environ.get("FEDAGG_DEBUG"):
        raise error
    print(f"error: {error}", file=sys.stderr)
    return int(getattr(error, "exit_code", 1))


def method(choices: Mapping[str, str]) -> str:
    """Return what to call a strategy and what was chosen beside it.

    Example:
        >>> method({"strategy": "scaffold", "pre_aggregators": "nnm,arc", "weighting": "feddisco"})
        'nnm + arc + scaffold + feddisco'
    """
    before, weighting = choices.get("pre_aggregators", "none"), choices.get("weighting", "own")
    return " + ".join(
        [*(before.split(",") if before != "none" else ()), choices["strategy"], *([weighting] if weighting != "own" else ())]
    )
