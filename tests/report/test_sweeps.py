"""The metric against a key: which settings are joined for it, and which must not be."""

import csv

import pytest

from fedagg.report import report
from fedagg.report.grouping import group_runs
from fedagg.report.measures import Metric, Protocol
from fedagg.report.summary import summarize
from fedagg.report.sweeps import find_sweeps, sweep_sheet
from fedagg.results import find_runs


def sweeps_of(path):
    tables, _ = summarize(group_runs(find_runs(path))[0], Metric.parse("accuracy"), Protocol.parse("final"))
    return find_sweeps(tables)


def make(make_run, folder, strategy="krum", attack="alie", seed=0, value=0.5, **config):
    nested = {
        "partition": {"alpha": config.pop("alpha", 0.5)},
        "attack": {"fraction": config.pop("fraction", 0.2), "method": attack},
        "strategy": {"rule": {"f": config.get("f")}},
    }
    number = len(list(folder.iterdir()))
    make_run(folder / str(number), strategy, attack, seed, [0.1, value], config=nested | config)


def test_accuracy_against_the_fraction_with_f_following(tmp_path, make_run):
    for fraction, f, values in ((0.1, 2, (0.8, 0.9)), (0.3, 6, (0.4, 0.6))):
        for seed, value in enumerate(values):
            make(make_run, tmp_path, seed=seed, fraction=fraction, f=f, value=value)
            make(make_run, tmp_path, attack="none", seed=seed, fraction=fraction, f=f, value=0.95)
    (sweep,) = sweeps_of(tmp_path)
    assert (sweep.key, sweep.title, sweep.values) == ("attack.fraction", "", [0.1, 0.3])
    assert list(sweep.lines) == [("krum", "alie")]  # without an attack there is no fraction
    line = sweep.lines["krum", "alie"]
    assert {value: found.mean for value, found in line.items()} == pytest.approx({0.1: 0.85, 0.3: 0.5})
    assert line[0.1].n == 2


def test_f_that_was_set_apart_is_a_setting(tmp_path, make_run):
    for fraction in (0.1, 0.3):
        for f in (2, 6):
            make(make_run, tmp_path, fraction=fraction, f=f, value=fraction + f / 100)
    found = sweeps_of(tmp_path)
    assert [(sweep.key, sweep.title) for sweep in found] == [("attack.fraction", "f=2"), ("attack.fraction", "f=6")]
    assert [found.mean for found in found[1].lines["krum", "alie"].values()] == pytest.approx([0.16, 0.36])


def test_two_keys_give_a_sweep_for_each_value_of_the_other(tmp_path, make_run):
    for alpha in (10.0, 0.1, 1.0):
        for fraction in (0.1, 0.3):
            make(make_run, tmp_path, alpha=alpha, fraction=fraction, value=alpha / 20 + fraction)
    found = {(sweep.key, sweep.title): sweep for sweep in sweeps_of(tmp_path)}
    assert set(found) == {
        ("attack.fraction", "partition.alpha=0.1"),
        ("attack.fraction", "partition.alpha=1.0"),
        ("attack.fraction", "partition.alpha=10.0"),
        ("partition.alpha", "attack.fraction=0.1"),
        ("partition.alpha", "attack.fraction=0.3"),
    }
    sweep = found["partition.alpha", "attack.fraction=0.3"]
    assert {value: line.mean for value, line in sweep.lines["krum", "alie"].items()} == pytest.approx(
        {0.1: 0.305, 1.0: 0.35, 10.0: 0.8}
    )


def test_settings_that_differ_in_more_are_not_joined(tmp_path, make_run):
    make(make_run, tmp_path, alpha=0.1, population=20)
    make(make_run, tmp_path, alpha=1.0, population=50)
    assert sweeps_of(tmp_path) == []


def test_what_has_no_number_has_no_place_on_the_axis(tmp_path, make_run):
    make(make_run, tmp_path, alpha=0.1)
    make(make_run, tmp_path, alpha=None)
    assert sweeps_of(tmp_path) == []
    make(make_run, tmp_path, alpha=1.0)
    (sweep,) = sweeps_of(tmp_path)
    assert sweep.values == [0.1, 1.0]


def test_a_line_needs_two_values(tmp_path, make_run):
    for alpha in (0.1, 1.0):
        make(make_run, tmp_path, alpha=alpha)
    make(make_run, tmp_path, "median", alpha=1.0)
    (sweep,) = sweeps_of(tmp_path)
    assert list(sweep.lines) == [("krum", "alie")]


def test_the_best_is_marked_within_an_attack_and_a_value(tmp_path, make_run):
    final = {
        ("krum", "alie"): (0.5, 0.9),
        ("mean", "alie"): (0.6, 0.1),
        ("krum", "none"): (0.7, 0.7),
        ("mean", "none"): (0.9, 0.9),
    }
    for (strategy, attack), values in final.items():
        for alpha, value in zip((0.1, 1.0), values, strict=True):
            make(make_run, tmp_path, strategy, attack, alpha=alpha, value=value)
    (sweep,) = sweeps_of(tmp_path)
    sheet = sweep_sheet(sweep, "x")
    assert [[(entry.text, entry.mark) for entry in row] for row in sheet.rows] == [
        [("krum, none", ""), ("70.0", "second"), ("70.0", "second")],
        [("mean, none", ""), ("90.0", "best"), ("90.0", "best")],
        [("krum, alie", ""), ("50.0", "second"), ("90.0", "best")],
        [("mean, alie", ""), ("60.0", "best"), ("10.0", "second")],
    ]
    assert list(sheet.header) == ["strategy, attack", "0.1", "1"]
    assert "number of its attack and column" in " ".join(sheet.caption)
    assert "Protocol final" in " ".join(sheet.caption)


def test_files_and_sections(tmp_path, make_run):
    for alpha in (0.1, 1.0, 10.0):
        for seed in (0, 1):
            make(make_run, tmp_path, alpha=alpha, seed=seed, value=0.3 + seed / 10)
    done = report(tmp_path, quiet=True)
    names = {file.name for file in done.files}
    assert {f"against-partition.alpha.{kind}" for kind in ("png", "pdf", "csv", "tex")} <= names
    assert not any("against-attack" in name for name in names)
    rows = list(csv.DictReader((done.folder / "against-partition.alpha.csv").read_text().splitlines()))
    assert [float(row["partition.alpha"]) for row in rows] == [0.1, 1.0, 10.0]
    assert {row["n"] for row in rows} == {"2"}
    page = (done.folder / "report.html").read_text()
    assert "<h2>Against the Dirichlet alpha</h2>" in page
    assert "Against the Byzantine fraction" not in page
