"""Tables and figures over finished runs: strategies against attacks, with intervals over seeds.

Everything is drawn again from run directories alone, without training.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedagg.errors import ConfigError
from fedagg.report.grouping import Note, group_runs
from fedagg.report.measures import Metric, Protocol
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
    command: str = "",
    console: Console | None = None,
    quiet: bool = False,
) -> Report:
    """Read every run in or below ``paths``, write tables and figures, and print the tables with captions and notes.

    Runs that differ only in their seed are one cell. Runs that also differ in a setting, such as ``partition.alpha``, are told
    apart: one table and one pair of figures per setting. Runs that did not complete are left out and named in the notes.

    Args:
        paths: run directories, or folders that hold some at any depth.
        out: where to write; by default ``report`` in the one directory given, or in the current one where several are given.
        metric: a metric of the test set (``accuracy``, ``loss``), or any other as ``split/metric``.
        protocol: the round a run is judged by: ``final``, ``last:K`` (mean over the last K evaluated rounds), or ``best``,
            which chooses the round on the test set and is marked as an oracle.
        command: what to name as the origin of the files; by default the equivalent ``fedagg report`` command.
        console: where to print; by default standard output.
        quiet: print nothing.

    Raises:
        ConfigError: no runs, no completed runs, or none that recorded the metric.
    """
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    what, when = Metric.parse(metric), Protocol.parse(protocol)
    if not paths:
        raise ConfigError("a report needs at least one run directory")
    groups, notes = group_runs(find_runs(*paths))
    if not groups:
        raise ConfigError("no completed run to report on. " + ". ".join(map(str, notes)))
    tables, left_out = summarize(groups, what, when)
    notes += left_out
    folder = Path(out) if out is not None else (_folder(paths[0]) if len(paths) == 1 else Path()) / "report"
    origin = "Made by: " + (command or _command(paths, out, metric, protocol))
    done = Report(tables, notes, folder, _write(tables, notes, folder, origin))
    if not quiet:
        _print(done, console)
    return done


def _print(done: Report, console: Console | None) -> None:
    from rich.console import Console

    from fedagg.report.tables import print_tables

    console = console or Console()
    print_tables(done.tables, done.notes, console)
    console.print(f"{len(done.files)} files in {done.folder}", markup=False, highlight=False, soft_wrap=True)


def _write(tables: Sequence[Table], notes: Sequence[Note], folder: Path, origin: str) -> list[Path]:
    from fedagg.report import figures
    from fedagg.report import tables as text

    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []

    def write(name: str, content: str) -> str:
        files.append(folder / name)
        files[-1].write_text(content, encoding="utf-8", newline="")
        return name

    metric, protocol = tables[0].metric, tables[0].protocol
    split = "" if metric.split == "test" else f"-{_slug(metric.split)}"
    chosen = "" if protocol.kind == "final" else f"-{_slug(str(protocol))}"
    judged = ("" if str(metric) == "accuracy" else f"-{_slug(str(metric))}") + chosen
    data = write(f"table{judged}.csv", text.csv_text(tables))
    write(f"table{judged}.md", text.markdown(tables, notes, origin))
    scale = figures.colour_scale(tables)
    styles = figures.line_styles(sorted({strategy for table in tables for strategy in table.strategies}))
    with figures.house_style():
        for table, suffix in zip(tables, _suffixes(tables), strict=True):
            write(f"table{judged}{suffix}.tex", text.latex(table, f"fedagg{judged}{suffix}", origin))
            stem = f"{_slug(metric.name)}_over_rounds{split}{chosen}{suffix}"
            curves = write(f"{stem}.csv", figures.curves_csv(table))
            files += figures.save(figures.draw_curves(table, styles, curves), folder / stem)
            files += figures.save(figures.draw_heatmap(table, scale, data), folder / f"heatmap{judged}{suffix}")
    return files


def _suffixes(tables: Sequence[Table]) -> list[str]:
    """What tells the files of several settings apart: the setting itself, or its number where that is long or not unique."""
    slugs = [_slug(table.title) for table in tables]
    plain = len(set(slugs)) == len(slugs) and max(map(len, slugs)) <= 80
    if len(tables) == 1:
        return [""]
    return [f"-{slug}" if plain else f"-setting{number}" for number, slug in enumerate(slugs, start=1)]


def _slug(words: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", words).strip("-.")


def _folder(path: str | Path) -> Path:
    return Path(path) if Path(path).is_dir() else Path(path).parent


def _command(paths: Sequence[str | Path], out: str | Path | None, metric: str, protocol: str) -> str:
    words = ["fedagg", "report", *map(str, paths), "--metric", metric, "--protocol", protocol]
    return shlex.join(words + ([] if out is None else ["--out", str(out)]))
