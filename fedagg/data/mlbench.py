"""Tables of numbers from the R package mlbench: many classes, a rare class, speakers."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedagg.data.datasets import Array, Dataset, stratified_test_rows
from fedagg.data.installed import Files
from fedagg.errors import ConfigError, DatasetUnavailable

SHA256 = {
    "LetterRecognition": "967a1a3e10b548d7269cbe50182bcecd6365cc58ea07638bbc34c51f17f34f1d",
    "Satellite": "29f8cf9bb1bc51b769d694c9caf740fd1c36ed6a7c87603edf5985962e330f64",
    "Shuttle": "5b1db218b76a47c83f575f1ff38d7a7d36e569b0e27d8bf4aa92eae6c0bcb826",
    "Vowel": "6577f9ca304153797ec7621d79020b010d160c425da2007639b9e6a2b23fb127",
}
LETTERS_TRAIN = 16_000


def letter(dir: str | Path | None = None) -> Dataset:
    """20,000 printed capital letters in 20 distorted fonts, each described by 16 numbers from 0 to 15.

    Frey & Slate, "Letter Recognition Using Holland-Style Adaptive Classifiers", 1991. As there, the first 16,000 rows are for
    training. Features are standardised, column by column, with mean and standard deviation of the training rows.

    Args:
        dir: folder with ``LetterRecognition.rda``. None looks at the environment variable ``FEDAGG_MLBENCH``, then where the
            Debian package ``r-cran-mlbench`` puts it.

    Shapes: 16,000 + 4,000 rows of [16], stored as float32; 26 classes.

    Raises:
        DatasetUnavailable: the file is not there, or is another one; the package ``rdata``, which reads it, is missing.
    """
    table, source = _table("letter", "LetterRecognition", dir)
    return _dataset("letter", table, source, "lettr", np.arange(len(table)) >= LETTERS_TRAIN)


def satellite(test_fraction: float = 0.2, dir: str | Path | None = None) -> Dataset:
    """6,435 neighbourhoods of 3 x 3 pixels in four spectral bands of a Landsat picture, by the soil in the middle.

    Statlog (Michie, Spiegelhalter & Taylor, "Machine Learning, Neural and Statistical Classification", 1994). Features as
    in ``letter``.

    Args:
        test_fraction: share of every class, rounded, that becomes the test set. Which rows is fixed, see ``SPLIT_SEED``.
        dir: folder with ``Satellite.rda``, see ``letter``.

    Shapes: 5,147 + 1,288 rows of [36], stored as float32; 6 classes.

    Raises:
        DatasetUnavailable: see ``letter``.
        ConfigError: ``test_fraction`` leaves a class without training or test rows.
    """
    table, source = _table("satellite", "Satellite", dir)
    return _dataset("satellite", table, source, "classes", stratified_test_rows(_codes(table["classes"]), test_fraction))


def shuttle(test_fraction: float = 0.2, dir: str | Path | None = None) -> Dataset:
    """58,000 states of a space shuttle's radiators; four fifths are of one class, the rarest has ten rows.

    Statlog, as in ``satellite``. Features as in ``letter``.

    Args:
        test_fraction: share of every class, rounded, that becomes the test set. Which rows is fixed, see ``SPLIT_SEED``.
        dir: folder with ``Shuttle.rda``, see ``letter``.

    Shapes: 46,400 + 11,600 rows of [9], stored as float32; 7 classes.

    Raises:
        DatasetUnavailable: see ``letter``.
        ConfigError: ``test_fraction`` leaves a class without training or test rows.
    """
    table, source = _table("shuttle", "Shuttle", dir)
    return _dataset("shuttle", table, source, "Class", stratified_test_rows(_codes(table["Class"]), test_fraction))


def vowel(test_speakers: Sequence[int] = range(8, 15), dir: str | Path | None = None) -> Dataset:
    """Eleven English vowels, each spoken six times by 15 people: 990 rows of nine spectral numbers.

    Robinson, "Dynamic Error Propagation Networks", 1989. As there, the first eight speakers are for training. Features as in
    ``letter``.

    Args:
        test_speakers: people, 0 .. 14, who are the test set; the others own the training rows.
        dir: folder with ``Vowel.rda``, see ``letter``.

    Shapes: 528 + 462 rows of [9], stored as float32; 11 classes. Owners are speakers, 66 rows each.

    Raises:
        DatasetUnavailable: see ``letter``.
        ConfigError: test speakers that leave nobody on one side.
    """
    table, source = _table("vowel", "Vowel", dir)
    speakers = _codes(table["V1"])
    people = sorted(set(speakers.tolist()))
    if not 0 < len({*test_speakers}) < len(people) or {*test_speakers} - {*people}:
        raise ConfigError(f"data.test_speakers must be some of {people}, not all; got {list(test_speakers)}")
    return _dataset("vowel", table.drop(columns="V1"), source, "Class", np.isin(speakers, list(test_speakers)), speakers)


def _table(data: str, stem: str, dir: str | Path | None) -> tuple[Any, str]:
    """Return the table ``stem``, a data frame, and where it is from."""
    contents, source = Files(
        data=data,
        package="mlbench",
        version="2.1-3",
        folder="/usr/lib/R/site-library/mlbench/data",
        names=(f"{stem}.rda",),
        sha256=SHA256[stem],
        install="apt-get install r-cran-mlbench",
    ).read(dir)
    try:
        import rdata
    except ImportError as error:
        raise DatasetUnavailable(f"data={data} is in R's own format; 'pip install rdata' brings what reads it") from error
    return rdata.read_rda(BytesIO(contents[f"{stem}.rda"]), default_encoding="ascii")[stem], source


def _dataset(
    data: str, table: Any, source: str, label: str, test: npt.NDArray[np.bool_], speakers: Array | None = None
) -> Dataset:
    x, y, names = table.drop(columns=label).to_numpy(np.float64), _codes(table[label]), list(table[label].cat.categories)
    shift, scale = x[~test].mean(axis=0), x[~test].std(axis=0)
    x = x.astype(np.float32)
    owners, owner_names = None, list[str]()
    if speakers is not None:
        people, owners = np.unique(speakers[~test], return_inverse=True)
        owner_names = [f"speaker {person}" for person in people]
    return Dataset(
        data,
        x[~test],
        y[~test],
        x[test],
        y[test],
        len(names),
        source,
        shift,
        scale,
        class_names=names,
        owners=owners,
        owner_names=owner_names,
    )


def _codes(column: Any) -> Array:
    """Return the classes of a column of categories by their numbers."""
    return column.cat.codes.to_numpy(np.int64)  # type: ignore[no-any-return]
