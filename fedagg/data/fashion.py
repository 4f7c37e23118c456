"""Fashion-MNIST from four files on this machine: found, read, and checked byte by byte. Nothing is ever downloaded."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedagg.data.datasets import Dataset
from fedagg.errors import DatasetUnavailable

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
ENVIRONMENT = "FEDAGG_FASHION_MNIST"
FILES = {  # name -> shape, SHA-256 of the decoded values (archives differ in compression, values do not)
    "train-images-idx3-ubyte": ((60000, 28, 28), "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012"),
    "train-labels-idx1-ubyte": ((60000,), "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7"),
    "t10k-images-idx3-ubyte": ((10000, 28, 28), "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a"),
    "t10k-labels-idx1-ubyte": ((10000,), "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9"),
}
MEAN, STD = 0.28604059698879547, 0.3530242445149226  # of all training pixels / 255; constants because the bytes are checked
CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
FIX = (
    f"Install them with 'apt-get install dataset-fashion-mnist', name a folder that holds them with data.dir=FOLDER or "
    f"{ENVIRONMENT}=FOLDER, or take data=digits"
)


def fashion_mnist(dir: str | Path | None = None) -> Dataset:
    """70,000 pictures of clothing, 28 x 28 pixels with 256 grey levels, ten classes of equal size.

    Xiao, Rasul & Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms", 2017.
    Features are pixels divided by 255, then standardised with mean and standard deviation of all training pixels.

    Args:
        dir: folder with the four IDX files, compressed or not. None looks at the environment variable
            ``FEDAGG_FASHION_MNIST``, then where the Debian package ``dataset-fashion-mnist`` puts them. The first place that
            is named decides: a folder without the files is an error, and the next place is not tried.

    Shapes: 60,000 + 10,000 rows of [1, 28, 28], stored as uint8 (47 MB + 8 MB); 10 classes.

    Raises:
        DatasetUnavailable: files are missing, cut short, or hold other values than the published set.
    """
    folder, origin = _folder(dir)
    paths = {name: _find(folder, name) for name in FILES}
    missing = [name for name, path in paths.items() if path is None]
    if missing:
        raise DatasetUnavailable(
            f"Fashion-MNIST needs {', '.join(FILES)} (each may end in .gz) in {folder} ({origin}); "
            f"{'none is there' if len(missing) == len(FILES) else 'missing: ' + ', '.join(missing)}. {FIX}"
        )
    x_train, y_train, x_test, y_test = (_verified(path, name) for name, path in paths.items() if path)
    return Dataset(
        "fashion_mnist",
        x_train[:, None],
        y_train,
        x_test[:, None],
        y_test,
        num_classes=10,
        source=str(folder),
        shift=255 * MEAN,
        scale=255 * STD,
        class_names=CLASSES,
    )


def read_idx(path: str | Path) -> npt.NDArray[np.uint8]:
    """Read unsigned bytes from an IDX file, the format of MNIST (LeCun, Cortes & Burges 1998), gzipped or not.

    Bytes 0 and 1 are zero, byte 2 is the type (8: unsigned byte), byte 3 the number of dimensions; then one big-endian
    32-bit size a dimension; then the values, last dimension fastest.

    Raises:
        DatasetUnavailable: the file cannot be read, is no such file, or is shorter or longer than its header says.
    """
    try:
        raw = Path(path).read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetUnavailable(f"{path} cannot be read, it may be cut short: {error}. {FIX}") from error
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08" or len(raw) < 4 + 4 * raw[3]:
        raise DatasetUnavailable(f"{path} must be an IDX file of unsigned bytes; it starts with {raw[:4].hex(' ')!r}. {FIX}")
    start = 4 + 4 * raw[3]
    shape = tuple(int(size) for size in np.frombuffer(raw, ">u4", count=raw[3], offset=4))
    if len(raw) - start != math.prod(shape):
        raise DatasetUnavailable(
            f"{path} must hold {math.prod(shape):,} values, its header says ({' x '.join(map(str, shape))}); "
            f"it holds {len(raw) - start:,}. {FIX}"
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def _folder(dir: str | Path | None) -> tuple[Path, str]:
    """Return where to look, and who said so."""
    if dir is not None:
        return Path(dir).expanduser(), "data.dir"
    if os.environ.get(ENVIRONMENT):
        return Path(os.environ[ENVIRONMENT]).expanduser(), f"environment variable {ENVIRONMENT}"
    return DEBIAN_FOLDER, "where the Debian package puts them"


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _verified(path: Path, name: str) -> npt.NDArray[np.uint8]:
    shape, expected = FILES[name]
    values = read_idx(path)
    if values.shape != shape:
        raise DatasetUnavailable(f"{path} must have shape {shape}; it has {values.shape}. {FIX}")
    found = hashlib.sha256(values.data).hexdigest()
    if found != expected:
        raise DatasetUnavailable(
            f"{path} does not hold the published Fashion-MNIST values: their SHA-256 is {expected}; found {found}. {FIX}"
        )
    return values
