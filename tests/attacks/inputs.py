"""Rows that several tests look at."""

import torch
from hypothesis import strategies as st

X5H = [[1, 2], [2, 1], [1.5, 1.5], [2, 2]]
X7H = [[1, 0, 2], [1.2, 0.1, 1.8], [0.8, -0.2, 2.1], [1.1, 0.3, 1.9], [0.9, 0.05, 2.2]]


def matrix(rows):
    return torch.tensor(rows, dtype=torch.float64)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@st.composite
def honest_rows(draw, least_h=1):
    h, d = draw(st.integers(least_h, 7)), draw(st.integers(1, 4))
    values = st.one_of(st.integers(-2, 2).map(float), st.floats(-1e6, 1e6))  # with many equal ones
    return draw(st.lists(st.lists(values, min_size=d, max_size=d), min_size=h, max_size=h))


@st.composite
def scattered_rows(draw, least_h=1):
    """Rows without ties: a common part and noise of any two sizes."""
    h, d, seed = draw(st.integers(least_h, 8)), draw(st.integers(1, 5)), draw(st.integers(0, 10**6))
    common, spread = draw(st.sampled_from([0.0, 1.0, 100.0])), draw(st.sampled_from([1e-3, 1.0, 30.0]))
    return (common * normal(1, d, seed=seed) + spread * normal(h, d, seed=seed + 1)).tolist()


def close(got, wanted, tolerance=1e-9):
    torch.testing.assert_close(got, matrix(wanted), rtol=tolerance, atol=tolerance)
