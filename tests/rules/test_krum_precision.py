"""Krum decides by small differences of long rows: float32 is not enough, and the rules here do not rely on it."""

import numpy as np
import pytest
import torch

from strategies import Krum, MultiKrum

N, F, D = 10, 3, 200_000


def direct_scores(updates, f):
    """Krum's scores from the differences of the rows, one pair at a time."""
    rows = updates.numpy().astype(np.float64)
    n = len(rows)
    scores = []
    for i in range(n):
        squares = sorted(float(((rows[i] - rows[j]) ** 2).sum()) for j in range(n) if j != i)
        scores.append(sum(squares[: n - f - 2]))
    return np.array(scores)


def riding_on_a_common_part():
    """Rows of float32 that differ by 1e-5 and have a norm of about 22 in common; the last F differ three times as much."""
    source = torch.Generator().manual_seed(11)
    common = 0.05 * torch.randn(D, generator=source, dtype=torch.float64)
    spread = torch.tensor([1e-5] * (N - F) + [3e-5] * F, dtype=torch.float64)
    return (common + spread[:, None] * torch.randn(N, D, generator=source, dtype=torch.float64)).float()


@pytest.mark.parametrize("last_row_is_zero", [False, True])  # then the shortest row is far from all others
def test_small_differences_on_a_large_common_part(last_row_is_zero):
    updates = riding_on_a_common_part()
    if last_row_is_zero:
        updates[-1] = 0.0
    wanted = direct_scores(updates, F)
    rule = Krum(f=F)
    winner = int(rule.client_weights(updates).argmax())
    assert winner == int(wanted.argmin())
    np.testing.assert_allclose(rule.last_info["scores"].numpy(), wanted, rtol=1e-6)
    multi = MultiKrum(f=F)
    multi.client_weights(updates)
    assert multi.last_info["selected"].tolist() == np.argsort(wanted, kind="stable")[: N - F].tolist()


def test_the_usual_formula_in_float32_would_not_do():
    """Why the case above is a test at all: ||a||^2 + ||b||^2 - 2ab is off by more than a tenth there."""
    updates = riding_on_a_common_part()
    squares = updates.square().sum(dim=1)
    naive = squares[:, None] + squares[None, :] - 2 * updates @ updates.T
    true = (updates[0].double() - updates[1].double()).square().sum()
    assert abs(float(naive[0, 1]) - float(true)) > 0.1 * float(true)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_two_colluders_far_away_and_close_together(dtype):
    source = torch.Generator().manual_seed(5)
    updates = torch.randn(7, 1000, generator=source, dtype=dtype)
    updates[5:] = 1e12
    updates[6, 0] += 1e6
    rule = Krum(f=2)
    assert int(rule.client_weights(updates).argmax()) == int(direct_scores(updates, 2).argmin()) < 5
    tolerance = 1e-5 if dtype == torch.float32 else 1e-7  # products are taken in the rows' own precision
    np.testing.assert_allclose(rule.last_info["scores"].numpy(), direct_scores(updates, 2), rtol=tolerance)


def test_colluders_that_send_the_same_row_are_each_others_neighbours():
    """A row is left out of its own score by its index, not because it lies at distance zero."""
    updates = torch.tensor([[0.0], [1.0], [2.0], [3.0], [9.0], [9.0]], dtype=torch.float64)
    rule = Krum(f=1)
    rule.client_weights(updates)
    assert rule.last_info["scores"].tolist() == [1 + 4 + 9, 1 + 1 + 4, 1 + 1 + 4, 1 + 4 + 9, 0 + 36 + 49, 0 + 36 + 49]
    assert rule.last_info["selected"].tolist() == [1]
