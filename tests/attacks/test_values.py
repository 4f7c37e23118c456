"""What the attacks send: values worked out apart from this project's code, and slow references on random input."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedagg import rng
from fedagg.attacks import ALIE, IPM, GaussianNoise, NaNAttack, SignFlip
from fedagg.attacks._rows import COLUMNS

from . import reference
from .inputs import X5H, close, honest_rows, matrix

often = settings(max_examples=100, deadline=None, derandomize=True)


@pytest.mark.parametrize(
    ("attack", "value"),
    [
        (ALIE(z=1.5), [2.34307, 2.34307]),
        (ALIE(), [1.625, 1.625]),
        (IPM(epsilon=2), [-3.25, -3.25]),
        (SignFlip(), [-1.625, -1.625]),
    ],
    ids=str,
)
def test_golden_value(attack, value):
    close(attack(matrix(X5H), f=1), [value], 1e-5)
    close(attack(matrix(X5H).float(), f=1).double(), [value], 1e-5)


@pytest.mark.parametrize(
    ("formula", "n", "f", "z"),
    [
        ("paper", 5, 1, 0.0),
        ("paper", 7, 2, 0.25335),
        ("paper", 25, 5, 0.25335),
        ("n", 5, 1, 0.25335),
        ("n", 7, 2, 0.56595),
        ("n", 25, 5, 0.46770),
        ("paper", 50, 3, 0.027),  # the quantile, where the distribution function would give 0.698
        ("paper", 50, 12, 0.336),
    ],
)
def test_golden_z(formula, n, f, z):
    tolerance = 5e-4 if n == 50 else 1e-5
    assert ALIE(formula=formula).shift(n, f) == pytest.approx(z, abs=tolerance)
    assert reference.alie_z(n, f, formula) == pytest.approx(z, abs=tolerance)


@pytest.mark.parametrize("formula", ["paper", "n"])
def test_z_for_every_small_cohort(formula):
    for n in range(2, 60):
        for f in range(n // 2 + 1):
            if f < n:
                assert ALIE(formula=formula).shift(n, f) == pytest.approx(reference.alie_z(n, f, formula), abs=1e-9)


def test_alie_among_few_honest_clients():
    with pytest.raises(ValueError, match=r"f <= n/2 to compute z \(Baruch et al. 2019\), or z given; got n=5, f=3"):
        ALIE()(matrix([[1.0], [2.0]]), f=3)
    close(ALIE(z=1.0)(matrix([[1.0], [3.0]]), f=3), [[2 + 2**0.5]] * 3)
    with pytest.raises(ValueError, match="h - ddof >= 1 honest updates for a standard deviation; got h=1, ddof=1"):
        ALIE(z=1.0)(matrix([[1.0]]), f=1)
    close(ALIE(z=1.0, ddof=0)(matrix([[1.0]]), f=1), [[1.0]])


@often
@given(honest_rows(), st.integers(1, 3), st.sampled_from([1.0, 0.5, 10.0, -2.0]))
def test_sign_flip_and_ipm(rows, f, size):
    close(SignFlip(scale=size)(matrix(rows), f), reference.sign_flip(rows, f, size))
    close(IPM(epsilon=size)(matrix(rows), f), reference.ipm(rows, f, size))


@often
@given(honest_rows(), st.integers(1, 3), st.floats(-3, 3))
def test_sign_flip_of_own(rows, f, scale):
    own = torch.randn(f, len(rows[0]), generator=torch.Generator().manual_seed(f), dtype=torch.float64)
    wanted = [[-scale * x for x in row] for row in own.tolist()]
    close(SignFlip(scale=scale, of="own")(matrix(rows), f, own=own), wanted)


@pytest.mark.parametrize("formula", ["paper", "n"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("ddof", [0, 1])
@often
@given(rows=honest_rows(least_h=2), f=st.integers(1, 2), z=st.none() | st.floats(-3, 3))
def test_alie(formula, sign, ddof, rows, f, z):
    close(ALIE(z=z, sign=sign, formula=formula, ddof=ddof)(matrix(rows), f), reference.alie(rows, f, z, sign, formula, ddof))


@pytest.mark.parametrize(("dtype", "common"), [(torch.float32, 1e2), (torch.float64, 1e6)])
def test_deviations_survive_a_large_common_part(dtype, common):
    """Where sigma is much smaller than mu, the difference of squares would be nothing but rounding."""
    small = torch.randn(9, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1e-2
    honest = (small + common).to(dtype)
    sigma = (ALIE(z=1000.0)(honest, f=1).double() - ALIE(z=0.0)(honest, f=1).double()) / 1000.0
    close(sigma, [reference.std(honest.double().tolist(), ddof=1)], 1e-7)
    naive = ((honest.square().mean(0) - honest.mean(0).square()).clamp(min=0) * 9 / 8).sqrt()
    assert (naive.double() - sigma[0]).abs().max() > 0.1 * sigma.max()


def test_many_columns_are_read_block_by_block():
    d = COLUMNS + 3
    honest = torch.randn(4, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = honest[:, -5:].tolist()
    close(IPM(epsilon=1.0)(honest, f=1)[:, -5:], reference.ipm(rows, 1, 1.0))
    close(ALIE(z=2.0)(honest, f=1)[:, -5:], reference.alie(rows, 1, 2.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_nan_attack(dtype):
    honest = torch.zeros(3, 4, dtype=dtype)
    assert NaNAttack()(honest, f=2).isnan().all()
    assert (NaNAttack(kind="inf")(honest, f=2) == float("inf")).all()
    huge = NaNAttack(kind="huge")(honest, f=2)
    assert huge.isfinite().all()
    assert huge.square().sum(dim=1).isinf().all()


def test_gaussian_noise_has_the_distribution_it_says():
    """With 400,000 draws the mean has a standard error of 0.0047, the deviation of 0.0034; bounds of six of them."""
    rows = GaussianNoise(std=3.0, mean=-1.0)(torch.zeros(3, 200_000), f=2).double()
    assert abs(rows.mean() + 1.0) < 0.029
    assert abs(rows.std() - 3.0) < 0.021
    assert abs(torch.corrcoef(rows)[0, 1]) < 6 / 200_000**0.5  # the rows are drawn apart


def test_gaussian_noise_on_top_of_the_own_update():
    honest, own = torch.zeros(3, 50, dtype=torch.float64), torch.arange(100, dtype=torch.float64).view(2, 50)
    noise = GaussianNoise(std=0.5, mean=0.2)(honest, f=2)
    torch.testing.assert_close(GaussianNoise(std=0.5, mean=0.2, add=True)(honest, f=2, own=own), own + noise)
    assert torch.equal(GaussianNoise(std=0.0, add=True)(honest, f=2, own=own), own)


def test_gaussian_noise_draws_from_the_generator_it_is_given():
    honest = torch.zeros(3, 20)
    given_one = GaussianNoise(generator=torch.Generator().manual_seed(7))
    fresh = torch.Generator().manual_seed(7)
    first, second = given_one(honest, f=1), given_one(honest, f=1)
    assert torch.equal(first, torch.randn(1, 20, generator=fresh, dtype=torch.float64).float())
    assert torch.equal(second, torch.randn(1, 20, generator=fresh, dtype=torch.float64).float())
    assert not torch.equal(first, GaussianNoise()(honest, f=1))


def test_gaussian_noise_borrows_a_generator():
    honest, attack = torch.zeros(3, 20), GaussianNoise()
    alone = attack(honest, f=1)
    draws = []
    for _ in range(2):
        with rng.lend_generator(attack, rng.generator(5, "attack", 2)):
            draws.append(attack(honest, f=1))
    with rng.lend_generator(attack, rng.generator(5, "attack", 3)):
        draws.append(attack(honest, f=1))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert attack.generator is None
    assert torch.equal(attack(honest, f=1), alone)
    assert torch.equal(alone, GaussianNoise()(honest, f=1))


def test_noise_is_the_same_in_either_precision():
    single, double = (GaussianNoise()(torch.zeros(1, 30, dtype=dtype), f=2) for dtype in (torch.float32, torch.float64))
    assert torch.equal(single, double.float())
