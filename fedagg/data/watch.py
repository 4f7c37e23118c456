"""Watch activity: which exercise somebody does, from the sensors of a watch; every person is a natural client."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

from fedagg.data.datasets import Dataset
from fedagg.data.installed import Files
from fedagg.errors import ConfigError

FILES = Files(
    data="watch_activity",
    package="seglearn",
    version="1.2.5",
    folder="seglearn/data",
    names=("watch_dataset.npy",),
    sha256="eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537",
    install="pip install --no-deps seglearn==1.2.5",
)
EXERCISES = (
    "pendulum",
    "abduction",
    "forward elevation",
    "internal rotation",
    "external rotation",
    "trapezius extension",
    "upright row",
)


def watch_activity(
    test_subjects: Sequence[int] = (9, 10), window: int = 100, stride: int = 100, dir: str | Path | None = None
) -> Dataset:
    """Seven shoulder exercises of ten people, seen by the accelerometer and gyroscope of a watch at 50 Hz.

    Burns et al., "Shoulder physiotherapy exercise recognition: machine learning the inertial signals from a smartwatch", 2018.
    140 series of six axes are cut into windows. Features are standardised, axis by axis, with mean and standard deviation of
    the training rows.

    Args:
        test_subjects: people, 1 .. 10, who are the test set; the others own the training rows.
        window: samples in a row; 100 are two seconds.
        stride: from one row of a series to the next, in samples.
        dir: folder with ``watch_dataset.npy``. None looks at the environment variable ``FEDAGG_SEGLEARN``, then into the
            installed package.

    Shapes: 2,369 rows of [6, 100], stored as float32; 7 classes. Owners are people, 150 to 284 rows each.

    Raises:
        DatasetUnavailable: the file is not there, or is another one. It is a pickle, and read after its content is known.
        ConfigError: sizes that are no integers >= 1 or longer than a series; test subjects that leave nobody on one side.
    """
    for name, size in (("window", window), ("stride", stride)):
        if not isinstance(size, int) or size < 1:
            raise ConfigError(f"data.{name} must be an integer >= 1; got {size}")
    contents, source = FILES.read(dir)
    raw = np.load(BytesIO(contents["watch_dataset.npy"]), allow_pickle=True).item()
    people = sorted({int(subject) for subject in raw["subject"]})
    if not 0 < len({*test_subjects} & {*people}) < len(people) or {*test_subjects} - {*people}:
        raise ConfigError(f"data.test_subjects must be some of {people}, not all; got {list(test_subjects)}")
    shortest = min(len(series) for series in raw["X"])
    if window > shortest:
        raise ConfigError(f"data.window must be at most {shortest}, the shortest series; got {window}")
    cut = [np.lib.stride_tricks.sliding_window_view(series, window, axis=0)[::stride] for series in raw["X"]]
    counts = [len(rows) for rows in cut]
    x = np.concatenate(cut).astype(np.float32)  # [M, 6, window]
    y, subject = np.repeat(raw["y"], counts), np.repeat(raw["subject"], counts)
    test = np.isin(subject, list(test_subjects))
    shift = x[~test].mean(axis=(0, 2), dtype=np.float64)[:, None]
    scale = x[~test].std(axis=(0, 2), dtype=np.float64)[:, None]
    trained = [person for person in people if person not in test_subjects]
    return Dataset(
        "watch_activity",
        x[~test],
        y[~test],
        x[test],
        y[test],
        len(EXERCISES),
        source,
        shift,
        scale,
        class_names=EXERCISES,
        owners=np.searchsorted(trained, subject[~test]),
        owner_names=[f"subject {person}" for person in trained],
    )
