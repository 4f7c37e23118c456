"""Who is best, who shares its rank, and what is said where that cannot be known."""

import csv

import numpy as np
import pytest
from scipy.stats import ttest_rel

from fedagg.report import report
from fedagg.report.leaderboard import leaderboard, leaderboard_csv, standings
from fedagg.report.sheets import BEST, SECOND, latex, marks, to_csv
from tests.report.test_report_numbers import T2, table_of

ATTACKS = ("none", "alie", "ipm")
FINAL = {  # by strategy and attack, of seeds 0, 1, 2
    "mean": ((0.90, 0.92, 0.91), (0.20, 0.25, 0.15), (0.30, 0.31, 0.29)),
    "krum": ((0.80, 0.82, 0.84), (0.70, 0.74, 0.72), (0.60, 0.64, 0.62)),
    "median": ((0.81, 0.80, 0.85), (0.71, 0.70, 0.73), (0.58, 0.66, 0.60)),
}


@pytest.fixture
def study(tmp_path, make_run):
    for strategy, rows in FINAL.items():
        for attack, values in zip(ATTACKS, rows, strict=True):
            for seed, value in enumerate(values):
                make_run(tmp_path / f"{strategy}{attack}{seed}", strategy, attack, seed, [0.1, value])
    return tmp_path


def test_order_ranks_and_ties(study):
    places = standings(table_of(study))
    # Means: krum 0.72, median 0.71555..., mean 0.47.
    assert [(place.strategy, place.rank) for place in places] == [("krum", 1), ("median", 1), ("mean", 3)]
    krum, median, mean = (np.array(FINAL[name]).ravel() for name in ("krum", "median", "mean"))
    p_median, p_mean = ttest_rel(median, krum).pvalue, ttest_rel(mean, krum).pvalue
    assert p_mean < p_median  # so Holm doubles the first and leaves the second
    assert places[1].compared.p == pytest.approx(max(p_median, 2 * p_mean), rel=1e-9)
    assert places[2].compared.p == pytest.approx(2 * p_mean, rel=1e-9)
    assert [place.compared.n for place in places[1:]] == [9, 9]
    assert places[2].compared.difference == pytest.approx(0.47 - 0.72)


def test_the_interval_is_over_seeds_of_the_mean_over_attacks(study):
    best = standings(table_of(study))[0].mean
    # krum over attacks: seed 0: 2.10 / 3, seed 1: 2.20 / 3, seed 2: 2.18 / 3.
    means = np.array([2.10, 2.20, 2.18]) / 3
    assert (best.n, best.mean) == (3, pytest.approx(means.mean()))
    assert best.half == pytest.approx(T2 * means.std(ddof=1) / np.sqrt(3), rel=1e-6)


def test_the_sheet_says_all_of_it(study):
    sheet = leaderboard(table_of(study), "leaderboard")
    assert list(sheet.header) == ["strategy", "rank", "mean", "worst case", "under", "difference", "p (Holm)", "pairs"]
    first, second, third = ([entry.text for entry in row] for row in sheet.rows)
    assert first == ["krum", "1=", "72.0 ± 4.4", "62.0 ± 5.0", "ipm", "–", "–", "–"]
    assert second[:2] == ["median", "1="]
    assert third[:6] == ["mean", "3", "47.0 ± 5.4", "20.0 ± 12.4", "alie", "−25.0"]
    assert third[7] == "9"
    assert [row[2].mark for row in sheet.rows] == [BEST, SECOND, ""]
    words = " ".join([*sheet.caption, *sheet.verdict])
    for part in (
        "over the 2 attacks and the case without attack",
        "Protocol final",
        "the test set of digits",
        "paired t-test",
        "Holm-corrected for 2 comparisons",
        "p >= 0.05 share rank 1",
        "does not mean that they are equal",
        "Bold: the best (highest)",
        "Tied with krum: median.",
    ):
        assert part in words


def test_where_all_differ_it_is_said(tmp_path, make_run):
    for strategy, level in (("krum", 0.8), ("mean", 0.2)):
        for seed in range(3):
            make_run(tmp_path / f"{strategy}{seed}", strategy, "alie", seed, [0.1, level + 0.01 * seed * (strategy == "krum")])
    sheet = leaderboard(table_of(tmp_path), "x")
    assert [row[1].text for row in sheet.rows] == ["1", "2"]
    assert list(sheet.verdict) == ["krum differs from every other strategy by the paired test."]


def test_one_pair_is_no_test(tmp_path, make_run):
    make_run(tmp_path / "a", "krum", "alie", 0, [0.1, 0.8])
    make_run(tmp_path / "b", "mean", "alie", 0, [0.1, 0.2])
    sheet = leaderboard(table_of(tmp_path), "x")
    assert [[entry.text for entry in row] for row in sheet.rows] == [
        ["krum", "1", "80.0", "80.0", "alie", "–", "–", "–"],
        ["mean", "2", "20.0", "20.0", "alie", "−60.0", "–", "1"],
    ]
    assert "With one pair there is no test" in sheet.verdict[0]
    assert "paired t-test" not in " ".join(sheet.caption)


def test_one_strategy_has_nobody_to_be_compared_with(tmp_path, make_run):
    make_run(tmp_path / "a", "krum", "alie", 0, [0.1, 0.8])
    sheet = leaderboard(table_of(tmp_path), "x")
    assert [row[1].text for row in sheet.rows] == ["1"]
    assert list(sheet.verdict) == []


def test_without_every_attack_there_is_no_rank(tmp_path, make_run):
    for seed in (0, 1):
        for attack in ("alie", "ipm"):
            make_run(tmp_path / f"k{attack}{seed}", "krum", attack, seed, [0.1, 0.5 + seed / 10])
        make_run(tmp_path / f"l{seed}", "lucky", "ipm", seed, [0.1, 0.9])
    make_run(tmp_path / "s0", "split", "ipm", 0, [0.1, 0.9])
    make_run(tmp_path / "s1", "split", "alie", 1, [0.1, 0.9])
    sheet = leaderboard(table_of(tmp_path), "x")
    assert [(row[0].text, row[1].text) for row in sheet.rows] == [("krum", "1"), ("split", "–"), ("lucky", "–")]
    assert list(sheet.verdict) == ["Not ranked, since no seed was run under every attack: split, lucky."]


def test_of_a_loss_the_lowest_is_best_and_nan_is_last(tmp_path, make_run):
    for seed in (0, 1, 2):
        make_run(tmp_path / f"a{seed}", "krum", "alie", seed, [0.1, 0.5 + seed / 100])  # the loss is 2.3 - 2 accuracy
        make_run(tmp_path / f"b{seed}", "mean", "alie", seed, [0.1, 0.9])
        make_run(tmp_path / f"c{seed}", "burst", "alie", seed, [0.1, float("nan")])
    places = standings(table_of(tmp_path, metric="loss"))
    assert [(place.strategy, place.rank) for place in places] == [("mean", 1), ("krum", 2), ("burst", 3)]
    sheet = leaderboard(table_of(tmp_path, metric="loss"), "x")
    assert "Bold: the best (lowest)" in " ".join(sheet.caption)
    assert "Not tested, for want of pairs or of finite values: burst." in sheet.verdict


@pytest.mark.usefixtures("no_pictures")
def test_files(study):
    done = report(study, quiet=True)
    rows = list(csv.DictReader((done.folder / "leaderboard.csv").read_text().splitlines()))
    assert [(row["strategy"], row["rank"], row["tied"]) for row in rows] == [
        ("krum", "1", "False"),
        ("median", "1", "True"),
        ("mean", "3", "False"),
    ]
    assert float(rows[2]["mean"]) == pytest.approx(0.47)
    assert (rows[2]["worst_attack"], rows[2]["pairs"], rows[0]["pairs"]) == ("alie", "9", "")
    assert rows[0]["measured_on"] == "the test set of digits"
    source = (done.folder / "leaderboard.tex").read_text()
    assert r"\textbf{72.0} & ${}\pm 4.4$" in source
    assert r"\underline{71.6} & $" in source
    assert r"$-$25.0 &" in source
    assert source.count("{") == source.count("}")


def test_settings_are_columns(tmp_path, make_study):
    for alpha in (0.1, 1.0):
        make_study(tmp_path / str(alpha), ["krum"], ["alie"], 2, 2, config={"partition": {"alpha": alpha}})
    from fedagg.report.grouping import group_runs
    from fedagg.report.measures import Metric, Protocol
    from fedagg.report.summary import summarize
    from fedagg.results import find_runs

    tables, _ = summarize(group_runs(find_runs(tmp_path))[0], Metric.parse("accuracy"), Protocol.parse("final"))
    rows = list(csv.DictReader(to_csv(leaderboard_csv(tables)).splitlines()))
    assert [row["partition.alpha"] for row in rows] == ["0.1", "1.0"]


@pytest.mark.parametrize(
    ("column", "lower", "expected"),
    [
        ([(0.5, "50.0"), (0.9, "90.0"), (0.7, "70.0")], False, ["", BEST, SECOND]),
        ([(0.5, "50.0"), (0.9, "90.0"), (0.7, "70.0")], True, [BEST, "", SECOND]),
        ([(0.9, "90.0"), (0.9001, "90.0"), (0.1, "10.0")], False, [BEST, BEST, SECOND]),
        ([(0.9, "90.0"), (0.9, "90.0")], False, ["", ""]),  # nothing to choose
        ([(0.9, "90.0")], False, [""]),
        ([(float("nan"), "nan"), (0.1, "10.0"), (0.2, "20.0")], True, ["", BEST, SECOND]),
        ([], False, []),
    ],
)
def test_marks(column, lower, expected):
    assert marks(column, lower) == expected


def test_latex_marks_the_best_of_each_attack_and_states_the_rule(study):
    from fedagg.report.tables import table_sheet

    source = latex(table_sheet(table_of(study), "table"), "x")
    rows = {line.split("&")[0].strip(): line for line in source.splitlines() if line.endswith(r"\\") and "±" not in line}
    assert r"\textbf{91.0}" in rows["mean"]  # under none, and nowhere else
    assert rows["mean"].count(r"\textbf") == 1
    assert rows["krum"].count(r"\textbf") == 3  # under alie and ipm, and in the column of worst cases
    assert "Bold: the best (highest) number of its column as printed. Underlined: the second." in source
