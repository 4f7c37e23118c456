"""Everything a report writes: data, tables, figures, and the page that holds them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from fedagg.report import canvas, figures
from fedagg.report import tables as text
from fedagg.report.captions import heading
from fedagg.report.costs import costs, costs_csv, costs_sheet
from fedagg.report.elections import (
    agreement_csv,
    agreement_sheet,
    elections_csv,
    elections_sheet,
    find_election,
    winners_csv,
    winners_sheet,
)
from fedagg.report.exclusion import exclusion_csv, exclusion_sheet, exclusions
from fedagg.report.grouping import Note, natural
from fedagg.report.heatmap import colour_scale, draw_heatmap, paint
from fedagg.report.leaderboard import leaderboard, leaderboard_csv
from fedagg.report.page import Part, Picture, Section, page
from fedagg.report.sheets import Line, Sheet, latex, to_csv
from fedagg.report.summary import Table
from fedagg.report.sweeps import KEYS, Sweep, find_sweeps, sweep_csv, sweep_sheet

SETTING_KEYS = (
    *("model", "partition", "partition.alpha", "population", "cohort", "rounds", "attack.fraction", "f"),
    *("participation", "faults", "local"),
)
LEAD = (
    "The mean is one way to make one ranking of many. Here every task, an attack in a setting, casts a vote. Where the rules"
    " agree, the winner is no matter of taste."
)


class Writer:
    """Writes the files of one report and remembers them.

    Args:
        tables: the settings.
        folder: where the files go; made if it does not exist.
        origin: how the report is made; stands in the tables.
    """

    def __init__(self, tables: Sequence[Table], folder: Path, origin: str) -> None:
        self.tables, self.folder, self.origin = tables, folder, origin
        self.files: list[Path] = []
        metric, protocol = tables[0].metric, tables[0].protocol
        split = "" if metric.split == "test" else f"-{_slug(metric.split)}"
        chosen = "" if protocol.kind == "final" else f"-{_slug(str(protocol))}"
        self.over_rounds = f"{_slug(metric.name)}_over_rounds{split}{chosen}"
        self.judged = ("" if str(metric) == "accuracy" else f"-{_slug(str(metric))}") + chosen
        self.suffixes = _suffixes([table.title for table in tables])
        self.styles = canvas.line_styles(sorted({strategy for table in tables for strategy in table.strategies}))
        folder.mkdir(parents=True, exist_ok=True)

    def everything(self, notes: Sequence[Note], question: str) -> list[Path]:
        """Write all there is to write and return the files."""
        self.text(f"table{self.judged}.md", text.markdown(self.tables, notes, self.origin))
        with canvas.house_style():
            sections = [
                self.leaderboards(),
                *self.elections(),
                self.results(),
                self.curves(),
                *self.sweeps(),
                *self.exclusion(),
                *self.costs(),
            ]
        title = f"{heading(self.tables[0].metric)} of {_count(self.strategies, 'strategy', 'strategies')}"
        if self.attacks:
            title += f" under {_count(self.attacks, 'attack', 'attacks')}"
        self.text(f"report{self.judged}.html", page(title, question, self.facts(), notes, sections, self.tables, self.origin))
        return self.files

    def leaderboards(self) -> Section:
        """Who is best, and whom the seeds tell apart from it."""
        data = self.data("leaderboard", leaderboard_csv(self.tables))
        sheets = [self.sheet(leaderboard(table, self.name("leaderboard", s)), data) for table, s in self.by_setting]
        return Section("Leaderboard", "", self.parts([sheet] for sheet in sheets))

    def elections(self) -> list[Section]:
        """The strategies by other rules, over all settings; nothing where there is nothing to choose."""
        election = find_election(self.tables)
        if election is None:
            return []
        sheets = [
            self.sheet(make(election, self.name(kind, "")), self.data(kind, lines(election)))
            for kind, make, lines in (
                ("elections", elections_sheet, elections_csv),
                ("elections_winners", winners_sheet, winners_csv),
                ("elections_agreement", agreement_sheet, agreement_csv),
            )
        ]
        return [Section("By other rules", LEAD, [Part("", sheets)])]

    def results(self) -> Section:
        """The heat maps: figures as files, coloured tables on the page."""
        data = self.text(f"table{self.judged}.csv", text.csv_text(self.tables))
        scale = colour_scale(self.tables)
        pieces = []
        for table, suffix in self.by_setting:
            self.figure(draw_heatmap(table, scale, data), self.name("heatmap", suffix))
            sheet = self.sheet(text.table_sheet(table, self.name("table", suffix)), data)
            pieces.append([_coloured(sheet, table, scale)])
        return Section("Strategies under attack", "Bright is good; one colour scale for all settings.", self.parts(pieces))

    def curves(self) -> Section:
        """The metric over rounds."""
        pieces = []
        for table, suffix in self.by_setting:
            stem = self.over_rounds + suffix
            data = self.text(f"{stem}.csv", figures.curves_csv(table))
            figure = figures.draw_curves(table, self.styles, data)
            what = f"{heading(table.metric)} over rounds"
            pieces.append([self.picture(figure, stem, _alt(what, table.title, table.attacks, table.strategies, data))])
        return Section("Over rounds", "", self.parts(pieces))

    def sweeps(self) -> list[Section]:
        """The metric against keys in which settings differ; a section per key."""
        found = find_sweeps(self.tables)
        return [
            self.sweep(key, [sweep for sweep in found if sweep.key == key]) for key in KEYS if key in {s.key for s in found}
        ]

    def sweep(self, key: str, sweeps: Sequence[Sweep]) -> Section:
        """One key."""
        parts = []
        for sweep, suffix in zip(sweeps, _suffixes([sweep.title for sweep in sweeps]), strict=True):
            stem = self.name(f"against-{key}", suffix)
            data = self.text(f"{stem}.csv", to_csv(sweep_csv(sweep)))
            what = f"{heading(sweep.metric)} against {sweep.words}"
            alt = _alt(what, sweep.title, sweep.attacks, sweep.strategies, data)
            picture = self.picture(figures.draw_sweep(sweep, self.styles, data), stem, alt)
            parts.append(Part(sweep.title, [picture, self.sheet(sweep_sheet(sweep, stem), data)]))
        return Section(f"Against the {KEYS[key]}", "", parts)

    def exclusion(self) -> list[Section]:
        """How well rules with client weights exclude attackers; nothing where no run recorded it."""
        every = [exclusions(table) for table in self.tables]
        if not any(every):
            return []
        data = self.data("exclusion", exclusion_csv([found for both in every for found in both]))
        parts = []
        for (table, suffix), both in zip(self.by_setting, every, strict=True):
            if both:
                sheets = [exclusion_sheet(found, self.name(_slug(found.metric.name), suffix)) for found in both]
                parts.append(Part(table.title, [self.sheet(sheet, data) for sheet in sheets]))
        lead = "Rules that weigh clients, such as Krum, exclude those that they give no weight."
        return [Section("Excluding attackers", lead, parts)]

    def costs(self) -> list[Section]:
        """Seconds and bytes; nothing where no run recorded them."""
        every = [costs(table) for table in self.tables]
        if not any(every):
            return []
        data = self.data("costs", costs_csv([found for found in every if found]))
        parts = [
            Part(found.table.title, [self.sheet(costs_sheet(found, self.name("costs", suffix)), data)])
            for (_, suffix), found in zip(self.by_setting, every, strict=True)
            if found
        ]
        return [Section("Time and communication", "", parts)]

    def facts(self) -> list[tuple[str, str]]:
        """What was run, in names and values."""
        runs = {run.path: run for table in self.tables for run in table.runs}
        seeds = sorted({run.seed for run in runs.values()}, key=natural)
        cells = sum(len(table.cells) for table in self.tables)
        counts = f"{_count(runs, 'run', 'runs')} in {cells} cells of {_count(self.tables, 'setting', 'settings')}"
        table = self.tables[0]
        facts = [("Runs", counts), ("Seeds", ", ".join(map(str, seeds)))]
        facts += [("Strategies", ", ".join(self.strategies)), ("Attacks", ", ".join(self.attacks) or "none")]
        facts += [
            ("Data", "; ".join(sorted({_data(run.info.get("data") or {}, t.data) for t in self.tables for run in t.runs})))
        ]
        for key in SETTING_KEYS:
            values = sorted({table.facts[key] for table in self.tables if key in table.facts}, key=natural)
            if values:
                facts.append((key, ", ".join(values)))
        measured = sorted({table.measured_on for table in self.tables})
        facts.append(("Measured", f"{table.metric.words}, on {', '.join(measured)}"))
        facts.append(("Protocol", f"{table.protocol.words(table.metric)}."))
        versions = {f"{name} {version}" for run in runs.values() for name, version in (run.info.get("versions") or {}).items()}
        return facts + ([("Versions", ", ".join(sorted(versions)))] if versions else [])

    @property
    def strategies(self) -> list[str]:
        """Every strategy."""
        return sorted({strategy for table in self.tables for strategy in table.strategies})

    @property
    def attacks(self) -> list[str]:
        """Every attack; ``none`` is not one."""
        return sorted({attack for table in self.tables for attack in table.real_attacks})

    @property
    def by_setting(self) -> list[tuple[Table, str]]:
        """The settings with what tells their files apart."""
        return list(zip(self.tables, self.suffixes, strict=True))

    def name(self, kind: str, suffix: str) -> str:
        """The name of a file that belongs to this metric and protocol and to a setting."""
        return f"{kind}{self.judged}{suffix}"

    def parts(self, pieces: Iterable[Sequence[Any]]) -> list[Part]:
        """A part per setting."""
        return [Part(table.title, its) for table, its in zip(self.tables, pieces, strict=True)]

    def text(self, name: str, content: str) -> str:
        """Write a file and return its name."""
        self.files.append(self.folder / name)
        self.files[-1].write_text(content, encoding="utf-8", newline="")
        return name

    def data(self, kind: str, lines: Iterable[Line]) -> str:
        """Write numbers of all settings as CSV and return the file's name."""
        return self.text(f"{kind}{self.judged}.csv", to_csv(lines))

    def sheet(self, sheet: Sheet, data: str) -> Sheet:
        """Write a table as LaTeX, and say where its numbers are."""
        self.text(f"{sheet.name}.tex", latex(sheet, self.origin))
        return replace(sheet, data=data)

    def figure(self, figure: Figure, stem: str) -> Path:
        """Write a figure and return its PNG."""
        files = canvas.save(figure, self.folder / stem)
        self.files += files
        return files[0]

    def picture(self, figure: Figure, stem: str, alt: str) -> Picture:
        """Write a figure, and keep it for the page."""
        return Picture(stem, alt, canvas.compact(self.figure(figure, stem)))


def _coloured(sheet: Sheet, table: Table, scale: ScalarMappable) -> Sheet:
    """A table of results with the colours of its heat map."""
    factor = 100 if table.metric.percent else 1
    rows = []
    for strategy, row in zip(table.strategies, sheet.rows, strict=True):
        painted = [
            replace(entry, colours=paint(factor * cell.estimate.mean, scale)) if cell else entry
            for entry, cell in zip(row[1:], table.row(strategy), strict=True)
        ]
        rows.append([row[0], *painted])
    return replace(sheet, rows=rows)


def _alt(what: str, setting: str, panels: Sequence[str], lines: Sequence[str], data: str) -> str:
    where = f" ({setting})" if setting else ""
    return f"{what}{where}. Panels: {', '.join(panels)}. Lines: {', '.join(lines)}. The numbers are in {data}."


def _data(info: dict[str, Any], label: str) -> str:
    """``digits (scikit-learn 1.9.1, 1438 training examples, 20 clients, fingerprint ca593c38f6f2)``."""
    words = [str(info["source"])] if info.get("source") else []
    words += [f"{info['samples']} training examples"] if info.get("samples") else []
    words += [f"{info['clients']} clients"] if info.get("clients") else []
    words += [f"fingerprint {str(info['fingerprint'])[:12]}"] if info.get("fingerprint") else []
    return label + (f" ({', '.join(words)})" if words else "")


def _count(things: Sequence[Any] | dict[Any, Any], one: str, many: str) -> str:
    return f"{len(things)} {one if len(things) == 1 else many}"


def _suffixes(titles: Sequence[str]) -> list[str]:
    """What tells the files of several settings apart: the setting itself, or its number where that is long or not unique."""
    slugs = [_slug(title) for title in titles]
    plain = len(set(slugs)) == len(slugs) and max(map(len, slugs)) <= 80
    if len(titles) == 1:
        return [""]
    return [f"-{slug}" if plain else f"-setting{number}" for number, slug in enumerate(slugs, start=1)]


def _slug(words: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", words).strip("-.")
