"""One page that holds everything: a single HTML file without scripts, which fetches nothing."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from fedagg.report.captions import WORST
from fedagg.report.grouping import Note
from fedagg.report.sheets import Entry, Sheet
from fedagg.report.summary import Table

_FEW = 3  # longer lists are folded


@dataclass(frozen=True)
class Picture:
    """A figure: the stem of its files, what it shows in words, and a PNG."""

    name: str
    alt: str
    png: bytes


@dataclass(frozen=True)
class Part:
    """What a section says about one setting."""

    setting: str
    pieces: Sequence[Sheet | Picture]


@dataclass(frozen=True)
class Section:
    """A heading, a sentence on what follows, and a part per setting."""

    title: str
    lead: str
    parts: Sequence[Part]


def page(
    title: str,
    question: str,
    facts: Sequence[tuple[str, str]],
    notes: Sequence[Note],
    sections: Sequence[Section],
    tables: Sequence[Table],
    origin: str,
) -> str:
    """The whole page.

    Args:
        title: the heading.
        question: what the runs are to answer; may be empty.
        facts: what was run, as names and values.
        notes: what a reader must know about the runs.
        sections: tables and pictures.
        tables: the settings, for the commands that repeat their runs.
        origin: how the page was made.
    """
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    contents = ["What was run", *(section.title for section in sections), "Commands"]
    links = "".join(f'<li><a href="#{_id(name)}">{escape(name)}</a></li>' for name in contents)
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>",
            f"<header>\n<h1>{escape(title)}</h1>",
            *([f'<p class="question">{escape(question)}</p>'] if question else []),
            f'</header>\n<nav class="contents" aria-label="Contents"><ul>{links}</ul></nav>\n<main>',
            _what_was_run(facts, notes),
            *map(_section, sections),
            _commands(tables),
            f'</main>\n<footer><p class="small">{escape(origin)}</p></footer>\n</body>\n</html>\n',
        ]
    )


def _what_was_run(facts: Sequence[tuple[str, str]], notes: Sequence[Note]) -> str:
    lines = [f'<section id="{_id("What was run")}">\n<h2>What was run</h2>', "<dl>"]
    lines += [f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts]
    lines.append("</dl>")
    if notes:
        lines += ["<h3>Notes</h3>", "<ul>", *(f"<li>{_note(note)}</li>" for note in notes), "</ul>"]
    return "\n".join([*lines, "</section>"])


def _note(note: Note) -> str:
    if len(note.items) <= _FEW:
        return escape(str(note))
    items = "".join(f"<li>{escape(item)}</li>" for item in note.items)
    return f"<details><summary>{escape(note.text)}</summary><ul>{items}</ul></details>"


def _section(section: Section) -> str:
    anchor = _id(section.title)
    sheets = [piece for part in section.parts for piece in part.pieces if isinstance(piece, Sheet)]
    shared = (
        [words for words in sheets[0].caption if all(words in sheet.caption for sheet in sheets)] if len(sheets) > 1 else []
    )
    lines = [f'<section id="{anchor}">', f"<h2>{escape(section.title)}</h2>"]
    if section.lead:
        lines.append(f"<p>{escape(section.lead)}</p>")
    if shared:
        lines.append(f'<p class="small">{escape(" ".join(shared))}</p>')
    several = len(section.parts) > 1
    if several:
        links = "".join(f'<li><a href="#{anchor}-{i}">{escape(p.setting)}</a></li>' for i, p in enumerate(section.parts, 1))
        lines.append(f'<nav class="settings" aria-label="Settings: {escape(section.title)}"><ul>{links}</ul></nav>')
    for number, part in enumerate(section.parts, start=1):
        if part.setting:
            lines.append(f'<h3 id="{anchor}-{number}">{escape(part.setting)}</h3>')
        drawn = any(isinstance(piece, Picture) for piece in part.pieces)
        for piece in part.pieces:
            html = _sheet(piece, shared) if isinstance(piece, Sheet) else _picture(piece)
            folded = drawn and isinstance(piece, Sheet)
            lines.append(f"<details><summary>The numbers</summary>\n{html}\n</details>" if folded else html)
    return "\n".join([*lines, "</section>"])


def _sheet(sheet: Sheet, shared: Sequence[str]) -> str:
    """A table, with those sentences of its caption that it does not share with the others of its section."""
    heat = any(entry.colours for row in sheet.rows for entry in row)
    head = "".join(f'<th scope="col">{_breakable(name)}</th>' for name in sheet.header)
    rows = "\n".join(
        f'<tr><th scope="row">{_breakable(row[0].text)}</th>{"".join(map(_cell, row[1:]))}</tr>' for row in sheet.rows
    )
    label = escape(sheet.title + (f", {sheet.setting}" if sheet.setting else ""))
    own = " ".join(words for words in sheet.caption if words not in shared)
    kind = ' class="heat"' if heat else ""
    verdict = f"<p>{escape(' '.join(sheet.verdict))}</p>\n" if sheet.verdict else ""
    return (
        f'<p class="what">{escape(sheet.title)}</p>\n'
        f'<div class="scroll" role="group" tabindex="0" aria-label="{label}">\n<table{kind}>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</div>\n{verdict}"
        + (f'<p class="small">{escape(own)}</p>\n' if own else "")
        + f'<p class="files">{escape(sheet.data)}, {escape(sheet.name)}.tex</p>'
    )


def _cell(entry: Entry) -> str:
    worst = "worst" if entry.colours and entry.text.endswith(WORST) else ""
    names = " ".join(filter(None, (entry.mark, worst)))
    kind = f' class="{names}"' if names else ""
    colours = ' style="background:{};color:{}"'.format(*entry.colours) if entry.colours else ""
    return f"<td{kind}{colours}>{escape(entry.text)}</td>"


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    return (
        f'<figure>\n<div class="picture" role="group" tabindex="0" aria-label="{escape(picture.name)}">'
        f'<img alt="{escape(picture.alt)}" src="data:image/png;base64,{data}"></div>\n'
        f'<figcaption class="files">{escape(picture.name)}.png, {escape(picture.name)}.pdf</figcaption>\n</figure>'
    )


def _commands(tables: Sequence[Table]) -> str:
    lines = [f'<section id="{_id("Commands")}">', "<h2>Commands</h2>", "<p>Each run again, by itself.</p>"]
    for table in tables:
        if table.title:
            lines.append(f"<h3>{escape(table.title)}</h3>")
        lines += [_commands_of(table, strategy) for strategy in table.strategies]
    return "\n".join([*lines, "</section>"])


def _commands_of(table: Table, strategy: str) -> str:
    rows = []
    for attack in table.attacks:
        cell = table.cells.get((strategy, attack))
        for run, value in zip(cell.runs, cell.values, strict=True) if cell else ():
            command = str(run.info.get("command") or "")
            shown = f"<code>{escape(command)}</code>" if command else "not recorded"
            rows.append(_row(attack, f"{run.seed}", table.metric.show(value), shown))
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("attack", "seed", table.metric.words, "command"))
    label = escape(f"Commands of {strategy}" + (f", {table.title}" if table.title else ""))
    table_of = f'<table class="commands"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return (
        f"<details><summary>{escape(strategy)} ({len(rows)})</summary>"
        f'<div class="scroll" role="group" tabindex="0" aria-label="{label}">{table_of}</div></details>'
    )


def _breakable(name: str) -> str:
    """A name that may be broken where a reader would, in a narrow column."""
    pieces = [piece for part in re.split(r"(?<=[_,+])|(?=\()", name) for piece in re.findall(".{1,24}", part)]
    return "<wbr>".join(map(escape, pieces))


def _row(attack: str, seed: str, value: str, command: str) -> str:
    cells: Iterable[str] = (escape(seed), escape(value), command)
    return f'<tr><th scope="row">{_breakable(attack)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>\n'


def _id(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
