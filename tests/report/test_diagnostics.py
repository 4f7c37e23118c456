"""Exclusion and costs: from what runs recorded to the tables, by hand; and nothing where nothing was recorded."""

import csv

import pytest

from fedagg.report import report
from fedagg.report.costs import costs, costs_sheet, read_timing
from fedagg.report.exclusion import exclusion_sheet, exclusions
from tests.report.test_report_numbers import table_of

NAN = float("nan")


def excluded(run, precision, recall):
    rows = []
    for number, (p, r) in enumerate(zip(precision, recall, strict=True), start=1):
        rows += [(number, "server", None, "exclusion_precision", p), (number, "server", None, "exclusion_recall", r)]
    run.append(rows)


def test_exclusion_is_the_mean_over_rounds_and_then_over_seeds(tmp_path, make_run):
    excluded(make_run(tmp_path / "a", "krum", "alie", 0), [0.5, 1.0, NAN], [0.2, 0.4, 0.6])
    excluded(make_run(tmp_path / "b", "krum", "alie", 1), [0.25], [1.0])
    excluded(make_run(tmp_path / "c", "krum", "none", 0), [NAN, NAN], [NAN, NAN])
    make_run(tmp_path / "d", "mean", "alie", 0)
    precision, recall = exclusions(table_of(tmp_path))
    assert list(precision.cells) == [("krum", "alie")]
    value = precision.cells["krum", "alie"]
    assert (value.n, value.mean) == (2, pytest.approx((0.75 + 0.25) / 2))
    assert recall.cells["krum", "alie"].mean == pytest.approx((0.4 + 1.0) / 2)
    sheet = exclusion_sheet(precision, "x")
    assert (list(sheet.header), [row[0].text for row in sheet.rows]) == (["strategy", "alie"], ["krum"])
    assert sheet.rows[0][1].text.startswith("50.0 ± ")
    assert "among those that the rule gave no weight" in " ".join(sheet.caption)


def test_costs_are_medians_over_rounds_and_runs(tmp_path, make_run):
    first = make_run(
        tmp_path / "a", "krum", "alie", 0, fields={"hardware": {"machine": "x86_64", "cores": 2, "device": "cpu"}}
    )
    first.append_timing(
        [(0, "evaluate", 9.0), (1, "train", 1.0), (1, "evaluate", 0.5), (2, "train", 3.0), (2, "evaluate", 0.5)]
    )
    second = make_run(tmp_path / "b", "krum", "none", 0)
    second.append_timing([(1, "train", 8.0)])
    second.append([(1, "server", None, "bytes_down", 4e6), (1, "server", None, "bytes_up", 1e6)])
    make_run(tmp_path / "c", "mean", "none", 0)
    found = costs(table_of(tmp_path))
    # train: 1, 3, 8; evaluate: 0.5, 0.5 (round 0 aside); totals: 1.5, 3.5, 8.
    assert found.by_strategy == {"krum": {"train": 3.0, "evaluate": 0.5, "total": 3.5, "bytes_down": 4e6, "bytes_up": 1e6}}
    sheet = costs_sheet(found, "costs")
    assert list(sheet.header) == ["strategy", "train (s)", "evaluate (s)", "total (s)", "MB down", "MB up"]
    assert [entry.text for entry in sheet.rows[0]] == ["krum", "3.0", "0.50", "3.5", "4.0", "1.0"]
    assert "x86_64, 2 cores, cpu" in " ".join(sheet.caption)


def test_the_lowest_cost_is_best_and_a_column_has_one_precision(tmp_path, make_run):
    for strategy, seconds in (("krum", 12.0), ("mean", 0.04), ("median", 0.5)):
        make_run(tmp_path / strategy, strategy).append_timing([(1, "aggregate", seconds)])
    sheet = costs_sheet(costs(table_of(tmp_path)), "costs")
    found = {row[0].text: (row[1].text, row[1].mark) for row in sheet.rows}
    assert found == {"krum": ("12.000", ""), "mean": ("0.040", "best"), "median": ("0.500", "second")}
    assert "the best (lowest)" in " ".join(sheet.caption)


def test_a_damaged_clock_is_read_up_to_there(tmp_path, make_run):
    run = make_run(tmp_path / "a")
    run.append_timing([(1, "train", 0.5), (2, "train", 0.75)])
    file = run.path / "timing.csv"
    whole = file.read_text()
    file.write_text(whole + "3,train,0.12")  # the end is missing
    assert read_timing(file) == [(1, "train", 0.5), (2, "train", 0.75)]
    file.write_text(whole + "3,tr\n4,train,1.0\n")
    assert read_timing(file) == [(1, "train", 0.5), (2, "train", 0.75)]
    file.unlink()
    assert read_timing(file) == []


@pytest.mark.usefixtures("no_pictures")
def test_sections_appear_with_what_they_need(tmp_path, make_run):
    run = make_run(tmp_path / "a", "krum", "alie")
    page = (report(tmp_path, quiet=True).folder / "report.html").read_text()
    assert "Excluding attackers" not in page
    assert "Time and communication" not in page
    run.append_timing([(1, "train", 0.5)])
    excluded(run, [1.0], [0.5])
    done = report(tmp_path, quiet=True)
    page = (done.folder / "report.html").read_text()
    assert "<h2>Excluding attackers</h2>" in page
    assert "<h2>Time and communication</h2>" in page
    assert {"exclusion.csv", "exclusion_precision.tex", "exclusion_recall.tex", "costs.csv", "costs.tex"} <= {
        file.name for file in done.files
    }
    (row,) = (row for row in csv.DictReader((done.folder / "costs.csv").read_text().splitlines()) if row["cost"] == "train")
    assert (row["strategy"], row["unit"], row["median"], row["data"]) == ("krum", "seconds", "0.5", "digits")
    rows = list(csv.DictReader((done.folder / "exclusion.csv").read_text().splitlines()))
    assert [(row["metric"], row["mean"]) for row in rows] == [("exclusion_precision", "1.0"), ("exclusion_recall", "0.5")]
