"""Means, intervals, protocols and the worst attack, against values worked out by hand."""

import math

import numpy as np
import pytest

from fedagg.errors import ConfigError
from fedagg.report import report
from fedagg.report.captions import caption, seeds, verdict
from fedagg.report.grouping import group_runs
from fedagg.report.measures import Metric, Protocol
from fedagg.report.summary import estimate, interval, summarize
from fedagg.results import find_runs

ACCURACY, LOSS = Metric("test", "accuracy"), Metric("test", "loss")


def table_of(path, metric="accuracy", protocol="final"):
    groups, _ = group_runs(find_runs(path))
    (table,), _ = summarize(groups, Metric.parse(metric), Protocol.parse(protocol))
    return table


# t(0.975) for 1, 2 and 4 degrees of freedom, from printed tables.
T1, T2, T4 = 12.706205, 4.302653, 2.776445


@pytest.mark.parametrize(
    ("values", "mean", "half"),
    [
        ([0.0, 1.0, 2.0], 1.0, T2 * 1 / math.sqrt(3)),  # deviations -1, 0, 1: s = sqrt(2 / 2) = 1
        ([0.5, 0.7], 0.6, T1 * 0.1),  # s = 0.1 sqrt(2), over sqrt(2)
        ([2.0, 4.0, 4.0, 4.0, 6.0], 4.0, T4 * math.sqrt(2) / math.sqrt(5)),  # s^2 = (4 + 4) / 4
        ([0.3, 0.3, 0.3], 0.3, 0.0),
    ],
)
def test_mean_and_student_interval(values, mean, half):
    found = estimate(values)
    assert found.mean == pytest.approx(mean)
    assert found.half == pytest.approx(half, rel=1e-6, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((mean - half, mean + half), rel=1e-6)


def test_one_seed_has_no_interval_and_neither_has_what_is_not_finite():
    one = estimate([0.25])
    assert (one.n, one.mean, one.has_interval) == (1, 0.25, False)
    assert not estimate([0.25, float("nan")]).has_interval
    assert estimate([1.0, float("inf")]).mean == float("inf")
    assert not estimate([1.0, float("inf")]).has_interval


def test_interval_works_on_columns():
    mean, low, high = interval(np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0]]))
    assert mean.tolist() == [1.0, 5.0]
    assert (high - low).tolist() == pytest.approx([2 * T2 / math.sqrt(3), 0.0], rel=1e-6)


@pytest.mark.parametrize(
    ("protocol", "metric", "expected"),
    [
        ("final", ACCURACY, 0.5),
        ("last:1", ACCURACY, 0.5),
        ("last:3", ACCURACY, (0.9 + 0.6 + 0.5) / 3),
        ("best", ACCURACY, 0.9),
        ("best", LOSS, 0.2),
    ],
)
def test_protocols(protocol, metric, expected):
    rounds, values = np.array([0, 10, 20, 30, 35]), np.array([0.95, 0.2, 0.9, 0.6, 0.5])  # round 0 is no result of training
    assert Protocol.parse(protocol).apply(rounds, values, metric) == pytest.approx(expected)


def test_best_looks_past_nan_and_final_does_not():
    rounds, values = np.arange(4), np.array([0.1, 0.4, 0.3, float("nan")])
    assert Protocol.parse("best").apply(rounds, values, ACCURACY) == 0.4
    assert math.isnan(Protocol.parse("final").apply(rounds, values, ACCURACY))
    assert math.isnan(Protocol.parse("best").apply(rounds, values * float("nan"), ACCURACY))
    assert Protocol.parse("final").apply(np.array([0]), np.array([0.1]), ACCURACY) == 0.1


@pytest.mark.parametrize("text", ["first", "last", "last:", "last:0", "last:-1", "last:x", "best:2", ""])
def test_an_unknown_protocol_is_refused(text, tmp_path):
    with pytest.raises(ConfigError, match="final, last:K with K >= 1"):
        report(tmp_path, protocol=text)


def test_cells_hold_the_seeds_and_the_worst_attack_is_marked(tmp_path, make_run):
    final = {("krum", "none"): [0.5, 0.5, 0.5], ("krum", "alie"): [0.7, 0.8, 0.9], ("krum", "ipm"): [0.6, 0.7, 0.8]}
    final |= {("mean", "none"): [0.9, 0.9, 0.9], ("mean", "alie"): [0.1, 0.2, 0.3], ("mean", "ipm"): [0.2, 0.3, 0.4]}
    for (strategy, attack), values in final.items():
        for seed, value in enumerate(values):
            make_run(tmp_path / f"{strategy}{attack}{seed}", strategy, attack, seed, [0.1, value])
    table = table_of(tmp_path)
    assert table.attacks == ["none", "alie", "ipm"]
    assert table.strategies == ["krum", "mean"]  # by worst case
    cell = table.cells["krum", "alie"]
    assert (cell.seeds, cell.values) == ((0, 1, 2), (0.7, 0.8, 0.9))
    assert cell.estimate.mean == pytest.approx(0.8)
    assert cell.estimate.half == pytest.approx(T2 * 0.1 / math.sqrt(3), rel=1e-6)  # 0.2484
    assert table.worst("krum") == "ipm"  # 0.7, although none is 0.5: none is not an attack
    assert table.worst("mean") == "alie"
    assert seeds(cell.estimate for cell in table.cells.values()) == "n=3 seeds"
    # krum 0.7 ± 0.248 reaches down to 0.452, mean 0.2 ± 0.248 up to 0.448
    assert verdict(table) == [
        "Best worst case: krum, 70.0 ± 24.8 under ipm.",
        "No other strategy's worst case has an interval that overlaps with it.",
    ]


def test_overlapping_worst_cases_are_not_told_apart(tmp_path, make_study, make_run):
    for seed, (a, b) in enumerate([(0.50, 0.49), (0.60, 0.59)]):
        make_run(tmp_path / f"a{seed}", "krum", "alie", seed, [0.1, a])
        make_run(tmp_path / f"b{seed}", "median", "alie", seed, [0.1, b])
    make_run(tmp_path / "c", "mean", "alie", 0, [0.1, 0.2])
    assert verdict(table_of(tmp_path))[1:] == [
        "Its interval overlaps with that of median: these worst cases are not told apart.",
        "Not compared, with one seed only: mean.",
    ]


def test_only_strategies_that_met_every_attack_are_ranked(tmp_path, make_run):
    make_run(tmp_path / "1", "krum", "alie", 0, [0.1, 0.5])
    make_run(tmp_path / "2", "krum", "ipm", 0, [0.1, 0.6])
    make_run(tmp_path / "3", "lucky", "ipm", 0, [0.1, 0.9])
    table = table_of(tmp_path)
    assert table.strategies == ["krum", "lucky"]
    assert verdict(table)[0] == "Best worst case: krum, 50.0 under alie."
    assert verdict(table)[-1] == "Not ranked, since not measured under every attack: lucky."
    make_run(tmp_path / "4", "third", "mimic", 0, [0.1, 0.9])
    assert verdict(table_of(tmp_path)) == ["No strategy was measured under every attack, so worst cases do not compare."]


def test_one_seed_is_said(tmp_path, make_run):
    make_run(tmp_path / "1", "krum", "alie", 0, [0.1, 0.5])
    table = table_of(tmp_path)
    assert caption(table)[0] == "One seed (n=1, no interval)."
    assert verdict(table) == ["Worst case: krum, 50.0 under alie."]
    make_run(tmp_path / "2", "mean", "alie", 0, [0.1, 0.4])
    assert verdict(table_of(tmp_path))[1] == "One seed does not tell whether the others are worse."


def test_without_an_attack_there_is_no_worst(tmp_path, make_run):
    make_run(tmp_path / "1", "krum", "none", 0, [0.1, 0.5])
    make_run(tmp_path / "2", "mean", "none", 0, [0.1, 0.6])
    table = table_of(tmp_path)
    assert table.worst("krum") is None
    assert verdict(table) == []
    assert table.strategies == ["mean", "krum"]


def test_of_a_loss_the_highest_is_worst(tmp_path, make_run):
    for attack, value in (("alie", 0.9), ("ipm", 0.5), ("mimic", float("nan"))):
        make_run(tmp_path / attack, "krum", attack, 0, [0.1, value])  # the loss is 2.3 - 2 accuracy
    assert table_of(tmp_path, metric="loss").worst("krum") == "mimic"  # NaN is worse than anything
    make_run(tmp_path / "b", "mean", "alie", 0, [0.1, 0.9])
    make_run(tmp_path / "c", "mean", "ipm", 0, [0.1, 0.5])
    table = table_of(tmp_path, metric="test/loss")
    assert table.worst("mean") == "ipm"
    assert "highest mean" in " ".join(caption(table))


def test_caption_names_everything(tmp_path, make_study):
    table = table_of(make_study(tmp_path, ["krum", "mean"], ["none", "alie"], seeds=2, rounds=3), protocol="best")
    words = " ".join(caption(table))
    assert "n=2 seeds" in words
    assert "± is half of the 95 % Student-t interval" in words
    assert (
        "Protocol best: the highest value over all rounds, which is an oracle: it chooses the round on the test set" in words
    )
    assert "† marks the attack with the lowest mean" in words


def test_cells_with_fewer_seeds_are_named(tmp_path, make_study, make_run):
    make_study(tmp_path, ["krum", "mean"], ["none", "alie"], seeds=2, rounds=3)
    make_run(tmp_path / "more", "krum", "ipm", 0, [0.1, 0.2, 0.3, 0.4])
    table = table_of(tmp_path)
    assert seeds(cell.estimate for cell in table.cells.values()) == "n=1 to 2 seeds"
    assert "4 cells have n=2, 1 cell has n=1 (krum/ipm). n=1 has no interval." in caption(table)
    assert "– was not measured." in caption(table)


@pytest.mark.usefixtures("no_pictures")
def test_curves_keep_to_rounds_that_all_seeds_evaluated(tmp_path, make_run):
    make_run(tmp_path / "0", "krum", "alie", 0, [0.1, 0.2, 0.3])
    make_run(tmp_path / "1", "krum", "alie", 1, [0.3, 0.4, 0.5, 0.6], config={"rounds": 2})
    done = report(tmp_path, quiet=True)
    curve = done.tables[0].cells["krum", "alie"].curve
    assert curve.x.tolist() == [0, 1, 2]
    assert curve.mean.tolist() == pytest.approx([0.2, 0.3, 0.4])
    assert "The last evaluated round is not the same for all runs: 2 to 3" in map(str, done.notes)


def test_numbers_as_they_are_printed():
    assert [ACCURACY.show(value) for value in (0.12345, 1.0, float("nan"))] == ["12.3", "100.0", "nan"]
    assert [LOSS.show(value) for value in (0.12345, 123456.0, float("inf"))] == ["0.123", "1.23e+05", "inf"]
    worst = Metric.parse("clients/accuracy_worst_decile")
    assert (worst.split, worst.name, worst.percent) == ("clients", "accuracy_worst_decile", True)
    assert worst.words == "clients accuracy worst decile (%)"
