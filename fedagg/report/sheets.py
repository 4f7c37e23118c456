"""A printed table: what every section of a report is made of, and how it becomes LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fedagg.report.captions import MISSING, WORST
from fedagg.report.measures import Metric
from fedagg.report.summary import Estimate

BEST, SECOND = "best", "second"
Line = tuple[object, ...]


@dataclass(frozen=True)
class Entry:
    """One cell: what it says; whether it is the best or the second of its column; the colours of ground and text."""

    text: str
    mark: str = ""
    colours: tuple[str, str] | None = None


@dataclass(frozen=True)
class Sheet:
    """A table as it is printed, and the numbers behind it.

    Args:
        name: of its files, without their suffix.
        title: what it shows.
        setting: what tells its setting apart from the others; empty if there is one.
        caption: sentences; what a reader needs in order to read the numbers.
        header: the names of the columns.
        rows: the cells; the first of a row names it.
        verdict: sentences; what the numbers say.
        data: the file with the numbers in full.
    """

    name: str
    title: str
    setting: str
    caption: Sequence[str]
    header: Sequence[str]
    rows: Sequence[Sequence[Entry]]
    verdict: Sequence[str] = ()
    data: str = ""


def marks(column: Sequence[tuple[float, str]], lower_is_better: bool) -> list[str]:
    """Mark the best and the second of a column of values, each with the number as it is printed, which several may share.

    Where all print alike, none is marked.

    Example:
        >>> marks([(0.912, "91.2"), (0.9118, "91.2"), (0.5, "50.0"), (0.1, "10.0")], lower_is_better=False)
        ['best', 'best', 'second', '']
    """
    known = sorted((pair for pair in column if not math.isnan(pair[0])), key=lambda pair: pair[0], reverse=not lower_is_better)
    printed = list(dict.fromkeys(text for _, text in known))
    if len(printed) < 2:
        return [""] * len(column)
    found = dict(zip(printed, (BEST, SECOND), strict=False))
    return [found.get(text, "") if not math.isnan(value) else "" for value, text in column]


def mark_columns(grid: Sequence[Sequence[Estimate | None]], metric: Metric) -> list[list[tuple[Estimate | None, str]]]:
    """Mark the best and the second mean of every column of a grid of rows; None was not measured."""
    marked = []
    for column in zip(*grid, strict=True):
        shown = [(value.mean, metric.show(value.mean)) if value else (math.nan, "") for value in column]
        marked.append(list(zip(column, marks(shown, metric.lower_is_better), strict=True)))
    return [list(row) for row in zip(*marked, strict=True)]


def rule_of_marks(best: str, column: str = "column") -> str:
    """What the marks mean, for captions; ``best`` is highest or lowest."""
    return f"Bold: the best ({best}) number of its {column} as printed. Underlined: the second."


def to_csv(lines: Iterable[Iterable[object]]) -> str:
    """Lines as CSV text."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()


def latex(sheet: Sheet, origin: str) -> str:
    r"""One ``table`` float for ``\input``; it needs nothing but ``\usepackage{booktabs}``. Numbers are aligned at their ±."""
    first, *header = sheet.header
    many = len(header) > 4
    environment = "table*" if many else "table"
    heads = " & ".join(rf"\multicolumn{{2}}{{c}}{{{escape_latex(name)}}}" for name in header)
    what = sheet.title + (f", {sheet.setting}" if sheet.setting else "")
    lines = [
        f"% {origin}",
        rf"\begin{{{environment}}}",
        r"  \centering" + (r"\footnotesize\setlength{\tabcolsep}{3pt}" if many else ""),
        rf"  \caption{{{escape_latex(what)}. {escape_latex(' '.join(sheet.caption))}}}",
        rf"  \label{{tab:fedagg-{sheet.name}}}",
        rf"  \begin{{tabular}}{{l{'r@{}l' * len(header)}}}",
        r"    \toprule",
        rf"    {escape_latex(first)} & {heads} \\",
        r"    \midrule",
    ]
    for name, *values in sheet.rows:
        lines.append(rf"    {escape_latex(name.text)} & {' & '.join(map(_latex_cell, values))} \\")
    lines += [r"    \bottomrule", r"  \end{tabular}"]
    if sheet.verdict:
        lines.append(rf"  \par\smallskip\raggedright\footnotesize {escape_latex(' '.join(sheet.verdict))}")
    return "\n".join([*lines, rf"\end{{{environment}}}"]) + "\n"


def escape_latex(words: str) -> str:
    r"""Words as LaTeX prints them.

    Example:
        >>> escape_latex("fang_krum, 50 %")
        'fang\\_krum, 50 \\%'
    """
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {"±": r"$\pm$", WORST: r"$^{\dagger}$", MISSING: "--", "−": "$-$"} | {sign: rf"\{sign}" for sign in "{}$&#%_"}
    special |= {"<": "$<$", ">": "$>$", "|": "$|$"}
    return "".join(special.get(sign, sign) for sign in words)


def _latex_cell(entry: Entry) -> str:
    if entry.text == MISSING:
        return r"\multicolumn{2}{c}{--}"
    mean, plus_minus, half = entry.text.removesuffix(WORST).partition(" ± ")
    mean = escape_latex(mean)
    mean = {BEST: rf"\textbf{{{mean}}}", SECOND: rf"\underline{{{mean}}}"}.get(entry.mark, mean)
    signs = (rf"{{}}\pm {half}" if plus_minus else "") + (r"^{\dagger}" if entry.text.endswith(WORST) else "")
    return f"{mean} & ${signs}$" if signs else f"{mean} &"
