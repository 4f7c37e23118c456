"""Values worked out apart from this project's code, in float64."""

import pytest
import torch

from strategies import Krum, Mean, Median, MultiKrum, TrimmedMean

from . import reference

X5 = [[1, 2], [2, 1], [1.5, 1.5], [2, 2], [10, -10]]
X7 = [[1, 0, 2], [1.2, 0.1, 1.8], [0.8, -0.2, 2.1], [1.1, 0.3, 1.9], [0.9, 0.05, 2.2], [-5, 4, -3], [-5.5, 4.5, -2.5]]
Z = [[-3, -1], [3, 4], [0, -3], [2, 3], [2, -1], [2, -3], [4, 4]]


def matrix(rows):
    return torch.tensor(rows, dtype=torch.float64)


def close(got, wanted):
    torch.testing.assert_close(got, matrix(wanted), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("rule", "rows", "value"),
    [
        (Mean(), X5, [3.3, -0.7]),
        (Median(), X5, [2, 1.5]),
        (Median(), X7, [0.9, 0.1, 1.9]),
        (Median(), X7[:4], [1.05, 0.05, 1.95]),
        (Median(even="lower"), X7[:4], [1.0, 0.0, 1.9]),
        (TrimmedMean(f=2), X7, [0.9, 0.15, 1.9]),
        (Krum(f=1), X5, [1.5, 1.5]),
        (Krum(f=2), X7, [1, 0, 2]),
        (Krum(f=2), Z, [2, 3]),
        (Krum(f=2, neighbours="byzfl"), Z, [2, -1]),
        (MultiKrum(f=2, m=3), X7, [1, 0.116667, 2.033333]),
        (MultiKrum(f=2), X7, [1, 0.05, 2]),
    ],
    ids=str,
)
def test_value(rule, rows, value):
    close(rule(matrix(rows)), value)


@pytest.mark.parametrize(
    ("neighbours", "f", "rows", "scores", "winner"),
    [
        ("paper", 1, X5, [1.5, 1.5, 1, 1.5, 389.5], 2),
        ("paper", 2, X7, [0.2325, 0.4025, 0.5125, 0.3625, 0.3275, 152.35, 164.05], 0),
        ("paper", 2, Z, [67, 29, 25, 23, 28, 37, 35], 3),
        ("byzfl", 2, Z, [108, 79, 65, 59, 53, 73, 88], 4),
    ],
)
def test_krum_scores(neighbours, f, rows, scores, winner):
    rule = Krum(f=f, neighbours=neighbours)
    weights = rule.client_weights(matrix(rows))
    close(rule.last_info["scores"], scores)
    assert rule.last_info["selected"].tolist() == [winner]
    assert weights.tolist() == [float(i == winner) for i in range(len(rows))]
    assert reference.krum_scores(rows, f, neighbours) == pytest.approx(scores)  # the reference is held to the same values


def test_multi_krum_ranks_its_rows():
    rule = MultiKrum(f=2, m=3)
    rule(matrix(X7))
    assert rule.last_info["selected"].tolist() == [0, 4, 3]
    close(rule.last_info["client_weights"], [1 / 3, 0, 0, 1 / 3, 1 / 3, 0, 0])


def test_multi_krum_of_one_row_is_krum_and_of_all_rows_the_mean():
    assert torch.equal(MultiKrum(f=2, m=1)(matrix(Z)), Krum(f=2)(matrix(Z)))
    close(MultiKrum(f=2, m=7)(matrix(Z)), reference.mean(Z))


def test_the_lower_median_is_that_of_torch():
    updates = torch.randn(10, 50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Median(even="lower")(updates), updates.median(dim=0).values)


def test_mean_applies_weights_as_they_are():
    close(Mean()(matrix(X5), torch.tensor([2.0, 0.0, 0.0, 1.0, 0.0])), [4.0, 6.0])


def test_trimmed_mean_adds_in_float64():
    updates = torch.tensor([[-3e8], [-1e8], [1.0], [1e8], [2e8]])
    assert TrimmedMean(f=1)(updates).item() == pytest.approx(1 / 3, rel=1e-7)
