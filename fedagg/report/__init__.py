"""Page, tables and figures over finished runs: strategies against attacks, with intervals over seeds.

Everything is drawn again from run directories alone, without training.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedagg.errors import ConfigError
from fedagg.report.grouping import Note, group_runs
from fedagg.report.measures import Metric, Protocol
from fedagg.report.points import as_strategies
from fedagg.report.summary import Table, summarize
from fedagg.results import find_runs

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Metric", "Note", "Protocol", "Report", "Table", "report"]


@dataclass(frozen=True)
class Report:
    """What a report found and wrote: a table per setting, what the reader must know, and the files."""

    tables: list[Table]
    notes: list[Note]
    folder: Path
    files: list[Path]


def report(
    paths: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    metric: str = "accuracy",
    protocol: str = "final",
    *,
    rows: str | None = None,
    question: str = "",
    command: str = "",
    console: Console | None = None,
    quiet: bool = False,
) -> Report:
    """Read every run in or below ``paths``, write page, tables and figures, and print the tables with captions and notes.

    Runs that differ only in their seed are one cell. Runs that also differ in a setting, such as ``partition.alpha``, are told
    apart: one table and one pair of figures per setting. Runs that did not complete are left out and named in the notes.

    Args:
        paths: run directories, or folders that hold some at any depth.
        out: where to write; by default ``report`` in the one directory given, or in the current one where several are given.
        metric: a metric of the test set (``accuracy``, ``loss``), or any other as ``split/metric``.
        protocol: the round a run is judged by: ``final``, ``last:K`` (mean over the last K evaluated rounds), or ``best``,
            which chooses the round on the test set and is marked as an oracle.
        rows: an axis of the study that the runs are of: its points are the rows, with the settings that follow from them. By
            default rows are strategies.
        question: what the runs are to answer; stands at the top of the page.
        command: what to name as the origin of the files; by default the equivalent ``fedagg report`` command.
        console: where to print; by default standard output.
        quiet: print nothing.

    Raises:
        ConfigError: no runs, no completed runs, none that recorded the metric, or a run off the axis ``rows``.
    """
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    what, when = Metric.parse(metric), Protocol.parse(protocol)
    if not paths:
        raise ConfigError("a report needs at least one run directory")
    runs = find_runs(*paths)
    groups, notes = group_runs(as_strategies(runs, rows) if rows else runs)
    if not groups:
        raise ConfigError("no completed run to report on. " + ". ".join(map(str, notes)))
    tables, left_out = summarize(groups, what, when)
    notes += left_out
    folder = Path(out) if out is not None else (_folder(paths[0]) if len(paths) == 1 else Path()) / "report"
    origin = "Made by: " + (command or _command(paths, out, metric, protocol, rows))
    from fedagg.report.write import Writer

    done = Report(tables, notes, folder, Writer(tables, folder, origin).everything(notes, question))
    if not quiet:
        _print(done, console)
    return done


def _print(done: Report, console: Console | None) -> None:
    from rich.console import Console

    from fedagg.report.tables import print_tables

    console = console or Console()
    print_tables(done.tables, done.notes, console)
    console.print(f"{len(done.files)} files in {done.folder}", markup=False, highlight=False, soft_wrap=True)


def _folder(path: str | Path) -> Path:
    return Path(path) if Path(path).is_dir() else Path(path).parent


def _command(paths: Sequence[str | Path], out: str | Path | None, metric: str, protocol: str, rows: str | None) -> str:
    words = ["fedagg", "report", *map(str, paths), "--metric", metric, "--protocol", protocol]
    words += [] if rows is None else ["--rows", rows]
    return shlex.join(words + ([] if out is None else ["--out", str(out)]))
