import re

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from fedagg.clients.data import ResidentData, examples
from fedagg.data import Dataset, Population, Views, digits
from fedagg.data.partitions import Dirichlet, FeatureSkew
from fedagg.data.partitions.feature_skew import rotated
from fedagg.errors import ConfigError
from tests.data.test_partitions import binomial_range

SIZES = [6, 1, 9, 14]


def holding(skew, holdout=0.0, seed=5, data=None):
    """Four clients of unlike size, who see what ``skew`` makes of it."""
    ends = np.cumsum([0, *SIZES])
    parts = [np.arange(ends[i], ends[i + 1])[::-1] for i in range(4)]
    return Population(data or digits(), parts, holdout, seed, partition=skew)


ALL = FeatureSkew(rotation=40.0, brightness=0.5, noise=0.3)


def test_what_a_client_does_depends_on_seed_and_client_alone():
    few, many = holding(ALL), Population.split(digits(), ALL, 50, seed=5)
    assert [ALL.of(client, 5) for client in range(4)] == [many.partition.of(client, 5) for client in range(4)]
    assert len({ALL.of(client, seed) for client in range(10) for seed in range(3)}) == 30
    before = torch.get_rng_state()
    for client in range(4):
        assert torch.equal(few.train(client)[0], holding(ALL).train(client)[0])
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(few.train(0)[0], holding(ALL, seed=6).train(0)[0])


def test_one_setting_does_not_move_another():
    angle, factor, deviation = ALL.of(3, 0)
    assert FeatureSkew(rotation=40.0).of(3, 0) == (angle, 1.0, 0.0)
    assert FeatureSkew(brightness=0.5).of(3, 0) == (0.0, factor, 0.0)
    assert FeatureSkew(noise=0.3).of(3, 0) == (0.0, 1.0, deviation)


def test_draws_are_uniform():
    """240 clients; the number of them below each of two quantiles is Binomial(240, q); alarm 1e-6 each, 6e-6 in all."""
    drawn = np.array([ALL.of(client, 0) for client in range(240)])
    lowest, highest = np.array([-40, 0.5, 0]), np.array([40, 1.5, 0.3])
    assert (drawn >= lowest).all()
    assert (drawn <= highest).all()
    for quantile in (0.25, 0.6):
        below = (drawn < lowest + quantile * (highest - lowest)).sum(axis=0)
        low, high = binomial_range(240, quantile, 1e-6)
        assert low <= below.min() <= below.max() <= high


def test_angles_to_choose_from():
    """Each of four angles is chosen Binomial(400, 0.25) times by clients 0 .. 399; alarm 1e-6 each, 4e-6 in all."""
    skew = FeatureSkew(rotation=[0, 90, 180, 270])
    times = np.unique([skew.of(client, 0)[0] for client in range(400)], return_counts=True)
    low, high = binomial_range(400, 0.25, 1e-6)
    assert times[0].tolist() == [0, 90, 180, 270]
    assert low <= times[1].min() <= times[1].max() <= high


def test_without_settings_nothing_changes():
    plain, skewed = holding(None, 0.3), holding(FeatureSkew(), 0.3)
    for client in range(4):
        assert torch.equal(plain.train(client)[0], skewed.train(client)[0])
        assert torch.equal(plain.validation(client)[0], skewed.validation(client)[0])
    assert not plain.transformed
    assert skewed.transformed


# Each of the three


@pytest.mark.parametrize("angle", [17.0, -40.0, 90.0, 135.0, 180.0, -100.0])
@pytest.mark.parametrize("shape", [(8, 8), (5, 5), (7, 10)])
def test_rotations_are_those_of_scipy(angle, shape):
    images = np.random.default_rng(0).random((3, 2, *shape), dtype=np.float32)
    expected = ndimage.rotate(images, angle, axes=(3, 2), reshape=False, order=1, mode="grid-constant")
    np.testing.assert_allclose(rotated(torch.from_numpy(images), angle).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_are_exact(turns):
    images = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    assert rotated(images, 90.0 * turns).numpy().tobytes() == np.rot90(images.numpy(), turns, axes=(2, 3)).tobytes()
    assert torch.equal(rotated(images, 90.0 * turns - 360), rotated(images, 90.0 * turns))


def test_a_client_turns_raw_values_and_zeros_come_in():
    """Raw ones all over, as features (1 - 3) / 2 = -1; turned by 45 degrees the corners are raw zeros, -1.5 as features."""
    x = np.ones((10, 1, 9, 9), np.uint8)
    data = Dataset("ones", x, np.zeros(10, int), x[:1], [0], 1, "made here", shift=3.0, scale=2.0)
    turned = Population(data, [range(10)], partition=FeatureSkew(rotation=[45])).train(0)[0]
    assert turned[:, 0, 4, 4].tolist() == [-1.0] * 10
    assert turned[:, 0, 0, 0].tolist() == [-1.5] * 10
    assert -1.5 <= turned.min() <= turned.max() <= -1.0


def test_brightness_multiplies_raw_values(toy):
    """Features are (raw - 1) / 2 there, so that feature f becomes (factor (2 f + 1) - 1) / 2."""
    skew = FeatureSkew(brightness=0.9)
    population, plain = holding(skew, data=toy), holding(None, data=toy)
    factors = [skew.of(client, 5)[1] for client in range(4)]
    assert len(set(factors)) == 4
    for client, factor in enumerate(factors):
        expected = (factor * (2 * plain.train(client)[0] + 1) - 1) / 2
        torch.testing.assert_close(population.train(client)[0], expected, atol=1e-5, rtol=1e-5)


def test_noise_has_its_standard_deviation():
    """8,192 differences of a client: their mean square over the variance, times 8192, is chi-square; alarm 1e-6 for each of 4.

    And they are normal: Kolmogorov and Smirnov's test, alarm 1e-6 each.
    """
    x = np.zeros((512, 1, 4, 4), np.uint8)
    data = Dataset("zeros", x, np.zeros(512, int), x[:1], [0], 1, "made here")
    skew = FeatureSkew(noise=2.0)
    population = Population(data, [range(512)] * 4, partition=skew, seed=1)
    low, high = stats.chi2.ppf(5e-7, 8192), stats.chi2.isf(5e-7, 8192)
    noises = [population.train(client)[0].double().flatten().numpy() for client in range(4)]
    for client, noise in enumerate(noises):
        deviation = skew.of(client, 1)[2]
        assert low <= (noise**2).sum() / deviation**2 <= high
        assert stats.kstest(noise / deviation, "norm").pvalue > 1e-6
    assert abs(np.corrcoef(noises)[np.triu_indices(4, 1)]).max() < 5 / 8192**0.5  # of unrelated clients; alarm 4e-6 in all


# Where it is applied


def test_what_is_held_out_is_seen_alike(toy):
    """A sample looks the same whether it is trained on or held out, and however large the share held out is."""
    skew = FeatureSkew(brightness=0.5, noise=0.3)
    everything = holding(skew, 0.0, data=toy)
    for share in (0.3, 0.6):
        population = holding(skew, share, data=toy)
        for client in range(4):
            seen = torch.cat([population.train(client)[0], population.validation(client)[0]])
            expected = everything.train(client)[0]
            assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, expected.tolist()))
            kept = population.rows(client).tolist()
            mine = [everything.rows(client).tolist().index(row) for row in kept]
            assert torch.equal(population.train(client)[0], expected[mine])
            assert population.train(client)[1].tolist() == [row % 4 for row in kept]


def test_the_server_sees_things_as_they_are():
    data = digits()
    population = Population.split(data, ALL, 10, seed=0, trusted=50)
    assert torch.equal(population.test()[0], data.features(data.x_test))
    own = Population(data, [population.trusted]).train(0)[0]
    assert torch.equal(own, data.features(data.x_train[population.trusted]))


def test_it_never_reads_from_a_copy_on_a_gpu():
    for device in ("cpu", "cuda"):
        population = holding(ALL)
        source = examples(population, torch.device(device))
        assert not isinstance(source, ResidentData)
        for (x, y), client, some in zip(
            source([2, 0], [None, torch.tensor([4, 1])]), [2, 0], [slice(None), [4, 1]], strict=True
        ):
            assert torch.equal(x, population.train(client)[0][some])
            assert torch.equal(y, population.train(client)[1][some])


def test_the_base_shares_out():
    data = digits()
    for base, clients in ((Dirichlet(0.3), 10), (Dirichlet(0.01, min_size=0), 60), (Views(20), 3000)):
        skewed, plain = Population.split(data, FeatureSkew(base, noise=0.1), clients), Population.split(data, base, clients)
        assert skewed.fingerprint == plain.fingerprint
        assert torch.equal(skewed.label_counts, plain.label_counts)
    x, y = Population(data, [[0], []], partition=ALL).train(1)
    assert (x.shape, y.shape) == ((0, 1, 8, 8), (0,))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: FeatureSkew(rotation=-1), "rotation between 0 and 180; got rotation=-1"),
        (lambda: FeatureSkew(rotation=[]), "angles in degrees to choose from; got rotation=[]"),
        (lambda: FeatureSkew(rotation=[0, float("nan")]), "angles in degrees"),
        (lambda: FeatureSkew(rotation="much"), "got rotation=much"),
        (lambda: FeatureSkew(brightness=1.5), "brightness between 0 and 1; got brightness=1.5"),
        (lambda: FeatureSkew(noise=-0.1), "noise >= 0; got noise=-0.1"),
        (lambda: FeatureSkew(noise=float("inf")), "noise=inf"),
        (lambda: FeatureSkew(FeatureSkew()), "base that leaves features alone"),
    ],
)
def test_impossible_settings_are_refused(make, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        make()


def test_only_images_can_be_turned(toy):
    for rotation in (10, [0, 90]):
        with pytest.raises(ConfigError, match=re.escape("rows of toy have the shape [2]. Leave rotation out")):
            Population.split(toy, FeatureSkew(rotation=rotation), 4)


def test_a_transform_of_ones_own(toy):
    def halves(labels, num_clients, seed):
        return np.array_split(np.arange(len(labels)), num_clients)

    halves.transform = lambda x, dataset, client, seed: x * (client + seed)
    population = Population.split(toy, halves, 2, seed=3)
    plain = Population(toy, population.indices)
    for client in range(2):
        assert torch.equal(population.train(client)[0], plain.train(client)[0] * (client + 3))
