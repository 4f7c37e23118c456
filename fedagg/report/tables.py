"""The same table four times: for a terminal, as tidy CSV, in Markdown, and as a sheet for LaTeX and the page."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from fedagg.report.captions import MISSING, WORST, caption, heading, text, title, verdict
from fedagg.report.grouping import Note
from fedagg.report.sheets import Entry, Line, Sheet, mark_columns, rule_of_marks, to_csv
from fedagg.report.summary import Table

CSV_COLUMNS = ("strategy", "attack", "metric", "protocol", "measured_on", "n", "seeds", "mean", "low", "high", "worst")
_NAME_WIDTH, _HEADER_WIDTH = 28, 12


def print_tables(tables: Sequence[Table], notes: Sequence[Note], console: Console) -> None:
    """Print every table with its caption and verdict; one too wide for the console comes in blocks of columns."""
    captions = [" ".join(caption(table)) for table in tables]
    for table, its_caption in zip(tables, captions, strict=True):
        console.print(_say(title(table), console) + "\n", style="bold")
        for grid in _grids(table, console):
            console.print(grid, "")
        if len(set(captions)) > 1:
            console.print(_say(its_caption, console) + "\n", style="dim")
        if verdict(table):
            console.print(_say(" ".join(verdict(table)), console) + "\n")
    if len(set(captions)) == 1:
        console.print(_say(captions[0], console), style="dim")
    for note in notes:
        console.print(_say(f"Note: {note.short()}", console), style="yellow")


def break_name(name: str, width: int, longest: int = 40) -> str:
    """Break a long name over lines after a space or one of ``_ , + - .`` or before a bracket, but never within a number.

    What has no such place stays whole up to ``longest`` letters.
    """
    lines = [""]
    for part in re.split(r"(?<=[\s_,+])|(?<=[-.])(?!\d)|(?=\()", name):
        for piece in re.findall(f".{{1,{longest}}}", part):
            if lines[-1] and len((lines[-1] + piece).rstrip()) > width:
                lines.append("")
            lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def csv_text(tables: Sequence[Table]) -> str:
    """All tables as one tidy file: a line per cell, settings as columns, numbers in full; worst is True or False."""
    keys = list(dict.fromkeys(key for table in tables for key in table.setting))
    lines: list[Line] = [(*keys, *CSV_COLUMNS)]
    for table in tables:
        setting = [table.setting.get(key, "") for key in keys]
        for strategy in table.strategies:
            for attack in table.attacks:
                cell = table.cells.get((strategy, attack))
                if cell is None:
                    continue
                value = cell.estimate
                seeds = " ".join(map(str, cell.seeds))
                what = (strategy, attack, str(table.metric), str(table.protocol), table.measured_on, value.n, seeds)
                lines.append((*setting, *what, repr(value.mean), *value.ends, table.worst(strategy) == attack))
    return to_csv(lines)


def markdown(tables: Sequence[Table], notes: Sequence[Note], origin: str) -> str:
    """All tables with captions, verdicts and notes in full."""
    parts = []
    for table in tables:
        lines = [f"## {_markdown(title(table))}", ""]
        lines.append("| strategy | " + " | ".join(map(_markdown, _header(table))) + " |")
        lines.append("|:--|" + "--:|" * len(_header(table)))
        lines += [f"| {_markdown(strategy)} | {' | '.join(_row(table, strategy))} |" for strategy in table.strategies]
        lines += ["", _markdown(" ".join(caption(table)))]
        if verdict(table):
            lines += ["", _markdown(" ".join(verdict(table)))]
        parts.append("\n".join(lines))
    if notes:
        parts.append("\n".join(f"- {_markdown(str(note))}" for note in notes))
    return "\n\n".join([*parts, _markdown(origin)]) + "\n"


def table_sheet(table: Table, name: str) -> Sheet:
    """The table for LaTeX and the page, with the best numbers of its columns marked."""
    grid = [[cell.estimate if cell else None for cell in table.row(strategy)] for strategy in table.strategies]
    rows = []
    for strategy, line in zip(table.strategies, mark_columns(grid, table.metric), strict=True):
        entries = [Entry(words, mark) for words, (_, mark) in zip(_row(table, strategy), line, strict=True)]
        rows.append([Entry(strategy), *entries])
    words = [*caption(table), rule_of_marks(table.metric.best)]
    return Sheet(name, heading(table.metric), table.title, words, ["strategy", *_header(table)], rows, verdict(table))


def _header(table: Table) -> list[str]:
    return table.attacks + (["worst"] if table.real_attacks else [])


def _row(table: Table, strategy: str) -> list[str]:
    """The cells of a row in words; the worst carries its mark, and the last column repeats it."""
    marks = [WORST if attack == table.worst(strategy) else "" for attack in table.attacks] + [""]
    cells = zip(table.row(strategy), marks, strict=False)
    return [text(cell.estimate, table.metric) + mark if cell else MISSING for cell, mark in cells]


def _grids(table: Table, console: Console) -> list[Grid]:
    """As many tables as it takes to show all columns within the console's width."""
    names = [_say(break_name(strategy, _NAME_WIDTH, _NAME_WIDTH), console) for strategy in table.strategies]
    rows = [[_say(value.replace(" ± ", " ±"), console) for value in _row(table, strategy)] for strategy in table.strategies]
    header = [_say(break_name(name, _HEADER_WIDTH, 2 * _HEADER_WIDTH), console) for name in _header(table)]
    columns = [_align(list(column), _say(WORST, console)) for column in zip(*rows, strict=True)]
    widths = [_width([head, *column]) for head, column in zip(header, columns, strict=True)]
    blocks = _blocks(widths, console.width - _width([*names, "strategy"]))
    grids = []
    for block in blocks:
        grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
        grid.add_column("strategy", no_wrap=True)
        for i in block:
            grid.add_column(header[i], justify="right", no_wrap=True)
        for number, name in enumerate(names):
            grid.add_row(name, *(_styled(columns[i][number], console, header[i] == "worst") for i in block))
        grids.append(grid)
    return grids


def _blocks(widths: Sequence[int], room: int) -> list[range]:
    """Columns side by side that fit into ``room``, in as few and as even blocks as that takes; at least one in each."""
    for count in range(1, len(widths) + 1):
        size = math.ceil(len(widths) / count)
        blocks = [range(start, min(start + size, len(widths))) for start in range(0, len(widths), size)]
        if all(sum(widths[i] + 3 for i in block) <= room for block in blocks):
            return blocks
    return [range(i, i + 1) for i in range(len(widths))]


def _align(values: list[str], mark: str) -> list[str]:
    """Leave room for the mark behind every value of a column in which one carries it."""
    marked = any(value.endswith(mark) for value in values)
    return [value + " " if marked and not value.endswith(mark) else value for value in values]


def _width(values: Iterable[str]) -> int:
    return max(len(line) for value in values for line in value.split("\n"))


def _styled(value: str, console: Console, worst: bool) -> Text:
    marked = value.endswith(_say(WORST, console))
    missing = value.strip() == _say(MISSING, console)
    return Text(value, style="bold" if worst else "red" if marked else "dim" if missing else "")


def _say(words: str, console: Console) -> str:
    """Words with signs that the console can print."""
    try:
        words.encode(console.encoding)
    except UnicodeEncodeError:
        for sign, plain in (("±", "+-"), (WORST, "*"), (MISSING, "-")):
            words = words.replace(sign, plain)
    return words


def _markdown(words: str) -> str:
    return re.sub(r"([|*`<\\])", r"\\\1", words)
