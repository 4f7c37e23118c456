"""What a report prints and writes: terminal, CSV, LaTeX, Markdown and pictures."""

import csv
import io
import re

import matplotlib
import numpy as np
import pytest
from matplotlib import image
from rich.console import Console

from fedagg.report import report
from fedagg.report.canvas import COLOURS, line_styles
from fedagg.report.sheets import escape_latex
from fedagg.report.tables import break_name, print_tables

LONG = "nnm(f=4)+geometric_median(iterations=32)+server_momentum"


@pytest.fixture(scope="module")
def study(tmp_path_factory, make_study, make_run):
    """Three strategies and three attacks with a hole, a seed short in one cell, in two settings; and a run that failed."""
    root = tmp_path_factory.mktemp("study")
    for alpha in (0.1, 1.0):
        config = {"partition": {"alpha": alpha}}
        make_study(root / str(alpha), ["krum", "trimmed_mean"], ["none", "fang_trimmed_mean"], 2, 6, config=config)
        make_study(root / str(alpha), [LONG], ["none"], 1, 6, config=config)
    make_run(root / "failed", "krum", "none", 9, [0.1], status="failed", error="stopped")
    return root


@pytest.fixture(scope="module")
def done(study):
    return report(study, quiet=True)


def printed(done, width):
    out = io.StringIO()
    print_tables(done.tables, done.notes, Console(file=out, width=width, force_terminal=False))
    return out.getvalue()


def test_files_lie_in_the_directory_that_was_given(study, done):
    settings = ["partition.alpha-0.1", "partition.alpha-1.0"]
    expected = {"report.html", "table.csv", "table.md", "leaderboard.csv"}
    expected |= {f"against-partition.alpha.{kind}" for kind in ("csv", "tex", "png", "pdf")}
    expected |= {f"elections{what}.{kind}" for what in ("", "_winners", "_agreement") for kind in ("csv", "tex")}
    for setting in settings:
        expected |= {f"table-{setting}.tex", f"leaderboard-{setting}.tex", f"heatmap-{setting}.png", f"heatmap-{setting}.pdf"}
        expected |= {f"accuracy_over_rounds-{setting}.{kind}" for kind in ("png", "pdf", "csv")}
    assert done.folder == study / "report"
    assert {file.name for file in done.files} == expected
    assert {file.name for file in (study / "report").iterdir()} == expected


@pytest.mark.usefixtures("no_pictures")
def test_another_metric_or_protocol_never_replaces_files(tmp_path, make_run):
    make_run(tmp_path / "a", values=[0.1, 0.2])
    names = set()
    for options in ({}, {"metric": "loss"}, {"protocol": "best"}, {"metric": "loss", "protocol": "last:1"}):
        files = {file.name for file in report(tmp_path, quiet=True, **options).files}
        assert len(files) == 11
        assert not names & files
        names |= files


@pytest.mark.usefixtures("no_pictures")
def test_several_paths_write_beside_the_user_and_out_is_obeyed(tmp_path, make_run, monkeypatch):
    make_run(tmp_path / "a", values=[0.1, 0.2])
    make_run(tmp_path / "b", seed=1, values=[0.1, 0.3])
    monkeypatch.chdir(tmp_path)
    assert report(["a", "b"], quiet=True).folder.resolve() == tmp_path / "report"
    assert report("a", out="elsewhere", quiet=True).folder.resolve() == tmp_path / "elsewhere"
    assert report(tmp_path / "a" / "run.json", quiet=True).folder == tmp_path / "a" / "report"
    assert (tmp_path / "elsewhere" / "table.csv").exists()


def test_the_same_runs_give_the_same_bytes(tmp_path, make_study):
    make_study(tmp_path, ["krum"], ["none", "alie"], 2, 4)
    first = {file.name: file.read_bytes() for file in report(tmp_path, quiet=True).files}
    second = {file.name: file.read_bytes() for file in report(tmp_path, quiet=True).files}
    assert first == second


def test_csv_holds_every_cell_in_full(done):
    rows = list(csv.DictReader((done.folder / "table.csv").read_text().splitlines()))
    assert list(rows[0])[:3] == ["partition.alpha", "strategy", "attack"]
    assert len(rows) == 10
    for table in done.tables:
        mine = {
            (row["strategy"], row["attack"]): row for row in rows if row["partition.alpha"] == table.setting["partition.alpha"]
        }
        assert set(mine) == set(table.cells)
        for at, cell in table.cells.items():
            row, value = mine[at], cell.estimate
            assert (float(row["mean"]), int(row["n"])) == (value.mean, value.n)
            assert row["seeds"] == " ".join(map(str, cell.seeds))
            ends = (repr(value.low), repr(value.high)) if value.n > 1 else ("", "")
            assert (row["low"], row["high"]) == ends
            assert row["worst"] == str(table.worst(at[0]) == at[1])
            assert (row["metric"], row["protocol"]) == ("accuracy", "final")


def test_curves_csv_redraws_the_figure(done):
    table = done.tables[0]
    rows = list(
        csv.DictReader((done.folder / f"accuracy_over_rounds-{table.title.replace('=', '-')}.csv").read_text().splitlines())
    )
    for (strategy, attack), cell in table.cells.items():
        mine = [row for row in rows if (row["strategy"], row["attack"]) == (strategy, attack)]
        assert [int(row["round"]) for row in mine] == cell.curve.x.tolist() == list(range(7))
        assert [float(row["mean"]) for row in mine] == cell.curve.mean.tolist()
        if cell.curve.n > 1:
            assert [float(row["low"]) for row in mine] == cell.curve.low.tolist()


def test_latex_is_balanced_and_escaped(done):
    table = done.tables[0]
    source = (done.folder / "table-partition.alpha-0.1.tex").read_text()
    body = source.split("\n", 1)[1]
    assert source.startswith("% Made by: fedagg report ")
    columns = re.search(r"\\begin{tabular}{(.*)}\n", source)[1].replace("@{}", "")
    assert columns == "l" + "rl" * 3
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 1 + len(table.strategies)
    for line in lines:
        wide = len(re.findall(r"\\multicolumn\{2\}", line))
        assert line.replace(r"\&", "").count("&") + 1 + wide == len(columns)
    assert r"trimmed\_mean" in body
    assert not re.search(r"(?<!\\)[_%#&](?![^\n]*\\\\)", re.sub(r"\\label{.*}|\$[^$]*\$", "", body))
    assert body.count("{") == body.count("}")
    assert body.count("$") % 2 == 0
    assert body.count(r"^{\dagger}") == 2 + 1  # a mark in each of two rows, and its explanation
    assert r"\multicolumn{2}{c}{--}" in body
    assert body.isascii()
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert body.count(rule) == 1
    packages_needed = set(re.findall(r"\\([a-z]+)\b", body)) - {"toprule", "midrule", "bottomrule"}
    plain = "begin end centering footnotesize setlength tabcolsep caption label multicolumn par smallskip raggedright"
    plain += " textbf underline pm dagger"
    assert packages_needed <= set(plain.split())


def test_latex_signs():
    assert escape_latex(r"a_b & 50 % {x} #1 $2 ~ ^ \ <|>") == (
        r"a\_b \& 50 \% \{x\} \#1 \$2 \textasciitilde{} \textasciicircum{} \textbackslash{} $<$$|$$>$"
    )
    assert escape_latex("1 ± 2† –") == r"1 $\pm$ 2$^{\dagger}$ --"


def test_markdown_has_tables_captions_verdicts_notes_and_origin(done, study):
    text = (done.folder / "table.md").read_text()
    assert text.count("\n## ") + text.startswith("## ") == 2
    assert "## Test accuracy (%), partition.alpha=0.1" in text
    assert "| strategy | none | fang_trimmed_mean | worst |\n|:--|--:|--:|--:|\n" in text
    assert text.count("Protocol final: the value at the last evaluated round.") == 2
    assert "- 1 of 19 runs left out, not completed: " in text
    assert text.rstrip().endswith(f"Made by: fedagg report {study} --metric accuracy --protocol final")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_terminal_fits_its_width_and_cuts_nothing(done, width):
    text = printed(done, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    table = text.split("Best worst case")[0]
    assert table.count("†") == 2
    assert "–" in table
    assert "partition.alpha=0.1" in table
    assert "1 of 19 runs left out" in text
    assert text.count("± is half of the") == 1  # one caption serves both tables


@pytest.mark.usefixtures("no_pictures")
def test_terminal_splits_wide_tables_into_even_blocks(tmp_path, make_run):
    for i in range(9):
        make_run(tmp_path / str(i), "krum", f"attack{i}", 0, [0.1, i / 10])
    text = printed(report(tmp_path, quiet=True), 80)
    heads = [line.split() for line in text.splitlines() if line.startswith("strategy")]
    assert heads == [
        ["strategy", *(f"attack{i}" for i in range(5))],
        ["strategy", *(f"attack{i}" for i in range(5, 9)), "worst"],
    ]


@pytest.mark.usefixtures("no_pictures")
def test_terminal_without_unicode(tmp_path, make_run):
    for seed in (0, 1):
        make_run(tmp_path / f"{seed}", "krum", "alie", seed, [0.1, 0.3 + seed / 10])
    make_run(tmp_path / "x", "mean", "none", 0, [0.1, 0.3])
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    report(tmp_path, console=Console(file=out, width=80))
    out.flush()
    assert "+-63.5*" in raw.getvalue().decode("ascii")


@pytest.mark.usefixtures("no_pictures")
def test_colour_marks_the_worst_on_a_terminal(tmp_path, make_run):
    make_run(tmp_path / "x", "krum", "alie", 0, [0.1, 0.3])
    out = io.StringIO()
    report(tmp_path, console=Console(file=out, width=80, force_terminal=True, color_system="standard", no_color=False))
    assert "\x1b[31m30.0†" in out.getvalue()


def pixels(file):
    return image.imread(file)[..., :3]


def assert_nothing_is_cut(done):
    """What runs over the edge of a figure would leave ink there."""
    for file in (file for file in done.files if file.suffix == ".png"):
        picture = pixels(file)
        for edge in (picture[:3], picture[-3:], picture[:, :3], picture[:, -3:]):
            assert (edge == 1).all(), f"{file.name}: something is cut at the edge"


def test_pictures_have_the_same_width_and_something_on_them(done):
    for file in done.files:
        if file.suffix == ".png":
            picture = pixels(file)
            assert picture.shape[1] == 1440
            dark = (picture.min(axis=2) < 0.9).mean()
            assert 0.01 < dark < 0.9, file
            colours = {tuple(colour) for colour in (picture.reshape(-1, 3)[::7] * 255).astype(int)}
            assert len(colours) > 20
        if file.suffix == ".pdf":
            assert file.read_bytes().startswith(b"%PDF")
    assert_nothing_is_cut(done)


@pytest.mark.usefixtures("no_pdf")
@pytest.mark.parametrize(
    ("strategies", "attacks", "seeds", "rounds"),
    [
        (["mean"], ["none"], 1, 1),
        (["mean"], ["alie"], 3, 5),
        ([f"strategy_{i}" for i in range(12)], ["none", *(f"a_rather_long_attack_{i}" for i in range(8))], 1, 2),
        ([LONG, "x" * 60, "cost $5_per_{round}"], ["none", "y" * 40], 2, 3),
    ],
    ids=["one", "three seeds", "many", "long"],
)
def test_nothing_is_cut_in_small_and_large_figures(tmp_path, make_study, strategies, attacks, seeds, rounds):
    done = report(make_study(tmp_path, strategies, attacks, seeds, rounds), quiet=True)
    assert_nothing_is_cut(done)


@pytest.mark.usefixtures("no_pdf")
def test_losses_that_explode_are_drawn(tmp_path, make_run):
    for seed in range(2):
        run = make_run(tmp_path / f"m{seed}", "mean", "ipm", seed, [0.5])
        run.append([(i, "test", None, "loss", 10.0**i if i < 6 else float("nan")) for i in range(1, 9)])
        run = make_run(tmp_path / f"k{seed}", "krum", "ipm", seed, [0.5])
        run.append([(i, "test", None, "loss", 1 / i) for i in range(1, 9)])
    done = report(tmp_path, metric="loss", quiet=True)
    assert_nothing_is_cut(done)
    assert np.isnan(done.tables[0].cells["mean", "ipm"].estimate.mean)
    assert "nan" in (done.folder / "table-loss.md").read_text()


@pytest.mark.usefixtures("no_pdf")
def test_a_users_plot_settings_are_neither_used_nor_changed(tmp_path, make_run):
    make_run(tmp_path / "a", values=[0.1, 0.2])
    first = {file.name: file.read_bytes() for file in report(tmp_path, quiet=True).files}
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        second = {file.name: file.read_bytes() for file in report(tmp_path, quiet=True).files}
        assert matplotlib.rcParams["font.size"] == 30
    assert first == second


def test_lines_differ_in_colour_dash_and_marker():
    styles = line_styles([f"s{i:02}" for i in range(28)])
    looks = {(style["color"], str(style["linestyle"])) for style in styles.values()}
    assert len(looks) == 28
    few = list(line_styles("abcd").values())
    assert len({str(style["linestyle"]) for style in few}) == len({style["marker"] for style in few}) == 4
    assert "#F0E442" not in COLOURS  # yellow fades on white


@pytest.mark.parametrize(
    ("name", "width", "lines"),
    [
        ("krum", 10, ["krum"]),
        ("fang_trimmed_mean", 12, ["fang_", "trimmed_mean"]),
        ("ipm_epsilon=0.5", 12, ["ipm_", "epsilon=0.5"]),
        ("sign-flip-0.5", 8, ["sign-", "flip-0.5"]),
        ("x" * 20, 8, ["x" * 20]),
        ("a_" + "x" * 50, 8, ["a_", "x" * 40, "x" * 10]),
        ("clip(radius=0.1)", 8, ["clip", "(radius=0.1)"]),
    ],
)
def test_names_break_where_a_reader_would(name, width, lines):
    assert break_name(name, width).split("\n") == lines
