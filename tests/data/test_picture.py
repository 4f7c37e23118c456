import sys

import numpy as np
import pytest
from matplotlib.image import imread

from fedagg.data import IID, Dataset, Dirichlet, Population, Shards, digits, label_picture
from fedagg.data.partitions import FeatureSkew, LongTail


def synthetic(samples=20000, classes=10):
    y = np.random.default_rng(0).permutation(np.arange(samples) % classes)
    return Dataset("synthetic", np.zeros((samples, 1), np.uint8), y, np.zeros((1, 1), np.uint8), [0], classes, "zeros")


def assert_drawn(path):
    """Big enough to read, mostly in use, and many colours."""
    pixels = imread(path)[:, :, :3]
    assert min(pixels.shape[:2]) > 350
    inked = (pixels < 0.99).any(axis=2)
    assert 0.02 < inked.mean() < 0.95
    assert len(np.unique((pixels[::3, ::3] * 15).astype(int).reshape(-1, 3), axis=0)) > 20
    assert inked.any(axis=1)[: len(inked) // 8].any()  # the title
    for half in np.array_split(inked, 2, axis=1):
        assert half.any()


@pytest.mark.parametrize("clients", [1, 10, 20, 100, 1000])
def test_pictures_of_every_size(tmp_path, clients):
    population = Population.split(synthetic(), Dirichlet(0.3, min_size=0), clients, seed=1)
    path = label_picture(population, tmp_path / "new" / f"{clients}.png")
    assert path == tmp_path / "new" / f"{clients}.png"
    assert_drawn(path)


@pytest.mark.parametrize(
    "population",
    [
        Population.split(digits(), Shards(2), 40, holdout=0.2),
        Population.split(synthetic(classes=100), IID(), 50),
        Population(digits(), [range(100), [], [1, 2]]),
    ],
    ids=["held out", "100 classes", "by hand, one empty"],
)
def test_other_kinds_of_populations(tmp_path, population):
    assert_drawn(label_picture(population, tmp_path / "p.png"))


def test_different_populations_look_different(tmp_path):
    data = digits()
    first = label_picture(Population.split(data, Dirichlet(0.1), 10, seed=0), tmp_path / "a.png").read_bytes()
    again = label_picture(Population.split(data, Dirichlet(0.1), 10, seed=0), tmp_path / "b.png").read_bytes()
    other = label_picture(Population.split(data, Dirichlet(0.1), 10, seed=1), tmp_path / "c.png").read_bytes()
    assert first == again != other


def test_the_title_says_what_is_drawn(tmp_path):
    text = label_picture(Population.split(digits(), Dirichlet(0.2), 12, seed=7), tmp_path / "p.svg").read_text()
    assert "<!-- digits, Dirichlet(alpha=0.2, min_size=1), seed 7, N = 12 -->" in text
    assert "<!-- 1,438 samples; " in text


def test_a_long_title_is_broken_into_lines(tmp_path):
    partition = FeatureSkew(LongTail(Dirichlet(0.3), ratio=5), rotation=(0, 90, 180, 270), noise=0.2)
    text = label_picture(Population.split(digits(), partition, 10), tmp_path / "p.svg").read_text()
    assert str(partition) not in text
    assert "<!-- digits, FeatureSkew(base=LongTail(base=Dirichlet(alpha=0.3, min_size=1)," in text


def test_matplotlib_has_no_global_state_afterwards(tmp_path):
    label_picture(Population.split(digits(), IID(), 5), tmp_path / "p.png")
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
