"""The same table four times: for a terminal, as tidy CSV, in LaTeX and in Markdown."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from fedagg.report.captions import MISSING, WORST, caption, text, title, verdict
from fedagg.report.grouping import Note
from fedagg.report.summary import Table

CSV_COLUMNS = ("strategy", "attack", "metric", "protocol", "n", "seeds", "mean", "low", "high", "worst")
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
    lines: list[tuple[object, ...]] = [(*keys, *CSV_COLUMNS)]
    for table in tables:
        setting = [table.setting.get(key, "") for key in keys]
        for strategy in table.strategies:
            for attack in table.attacks:
                cell = table.cells.get((strategy, attack))
                if cell is None:
                    continue
                value = cell.estimate
                ends = (repr(value.low), repr(value.high)) if value.has_interval else ("", "")
                seeds = " ".join(map(str, cell.seeds))
                what = (strategy, attack, str(table.metric), str(table.protocol), value.n, seeds)
                lines.append((*setting, *what, repr(value.mean), *ends, table.worst(strategy) == attack))
    return to_csv(lines)


def to_csv(lines: Iterable[Iterable[object]]) -> str:
    """Lines as CSV text."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()


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


def latex(table: Table, label: str, origin: str) -> str:
    r"""One ``table`` float for ``\input``; it needs nothing but ``\usepackage{booktabs}``. Numbers are aligned at their ±."""
    header = _header(table)
    many = len(header) > 4
    environment = "table*" if many else "table"
    heads = " & ".join(rf"\multicolumn{{2}}{{c}}{{{escape_latex(name)}}}" for name in header)
    lines = [
        f"% {origin}",
        rf"\begin{{{environment}}}",
        r"  \centering" + (r"\footnotesize\setlength{\tabcolsep}{3pt}" if many else ""),
        rf"  \caption{{{escape_latex(title(table))}. {escape_latex(' '.join(caption(table)))}}}",
        rf"  \label{{tab:{label}}}",
        rf"  \begin{{tabular}}{{l{'r@{}l' * len(header)}}}",
        r"    \toprule",
        rf"    strategy & {heads} \\",
        r"    \midrule",
    ]
    for strategy in table.strategies:
        cells = " & ".join(_latex_cell(value) for value in _row(table, strategy))
        lines.append(rf"    {escape_latex(strategy)} & {cells} \\")
    lines += [r"    \bottomrule", r"  \end{tabular}"]
    if verdict(table):
        lines.append(rf"  \par\smallskip\raggedright\footnotesize {escape_latex(' '.join(verdict(table)))}")
    return "\n".join([*lines, rf"\end{{{environment}}}"]) + "\n"


def escape_latex(words: str) -> str:
    r"""Words as LaTeX prints them.

    Example:
        >>> escape_latex("fang_krum, 50 %")
        'fang\\_krum, 50 \\%'
    """
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {"±": r"$\pm$", WORST: r"$^{\dagger}$", MISSING: "--"} | {sign: rf"\{sign}" for sign in "{}$&#%_"}
    special |= {"<": "$<$", ">": "$>$", "|": "$|$"}
    return "".join(special.get(sign, sign) for sign in words)


def _header(table: Table) -> list[str]:
    return table.attacks + (["worst"] if table.real_attacks else [])


def _row(table: Table, strategy: str) -> list[str]:
    """The cells of a row in words; the worst carries its mark, and the last column repeats it."""
    worst = table.worst(strategy)
    row = []
    for attack in table.attacks:
        cell = table.cells.get((strategy, attack))
        mark = WORST if attack == worst else ""
        row.append(MISSING if cell is None else text(cell.estimate, table.metric) + mark)
    if table.real_attacks:
        row.append(MISSING if worst is None else text(table.cells[strategy, worst].estimate, table.metric))
    return row


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


def _latex_cell(value: str) -> str:
    if value == MISSING:
        return r"\multicolumn{2}{c}{--}"
    mean, plus_minus, half = value.removesuffix(WORST).partition(" ± ")
    marks = (rf"{{}}\pm {half}" if plus_minus else "") + (r"^{\dagger}" if value.endswith(WORST) else "")
    return f"{mean} & ${marks}$" if marks else f"{mean} &"


def _markdown(words: str) -> str:
    return re.sub(r"([|*`<\\])", r"\\\1", words)
