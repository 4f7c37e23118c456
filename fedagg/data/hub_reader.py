"""What ``fedagg.data.hub()`` runs in a process of its own: read splits with ``flwr-datasets``, write arrays.

    python -P hub_reader.py REQUEST ANSWER

REQUEST is JSON; ANSWER a file to write, ``.npz``. Exit code 2 means that the data are there and something in the request does
not fit them; any other but 0, that they are not there. The last line of stderr says why. Nothing of fedagg is imported: the
answer is to come at once, and torch takes seconds.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

UNFIT = 2  # the exit code


class Unfit(ValueError):
    """What is asked for does not fit the data."""


def read(request: dict[str, Any]) -> dict[str, Array]:
    """Return, for the split number i, ``x_i`` [m, ...], ``y_i`` [m]; if asked for, ``owner`` [m] of the first split; and
    ``num_classes`` [] and ``class_names``, one a class or none.

    Args:
        request: ``dataset``, ``subset``, ``splits``, and ``columns``: ``x``, ``y``, ``owner`` -> the column's name.

    Raises:
        Unfit: a split or a column that is not there, or not of a form we can use.
    """
    from flwr_datasets import FederatedDataset

    source = FederatedDataset(dataset=request["dataset"], subset=request["subset"], partitioners={}, shuffle=False)
    columns = request["columns"]
    splits = []
    for number, name in enumerate(request["splits"]):
        try:
            splits.append(source.load_split(name))
        except ValueError as error:  # the only one that names the splits there are
            raise Unfit(f"data.{('train', 'test')[number]}={name}: {error}") from error
        for option, column in columns.items():
            if column not in splits[-1].column_names:
                known = splits[-1].column_names
                near = "".join(f" (did you mean {name}?)" for name in difflib.get_close_matches(column, known, n=1))
                raise Unfit(f"data.{option}={column} is no column{near}; there are {', '.join(known)}")
    labels = [np.asarray(split[columns["y"]]) for split in splits]
    names = getattr(splits[0].features[columns["y"]], "names", None)  # where the data set names its classes, rows number them
    if names is None and labels[0].dtype.kind not in "iu":
        names = sorted({str(label) for part in labels for label in part})
        labels = [np.searchsorted(names, part.astype(str)) for part in labels]
    found = {f"x_{number}": _stacked(split[columns["x"]], columns["x"]) for number, split in enumerate(splits)}
    found |= {f"y_{number}": part for number, part in enumerate(labels)}
    if "owner" in columns:
        found["owner"] = np.asarray(splits[0][columns["owner"]])
    count = len(names) if names is not None else int(max(part.max() for part in labels)) + 1
    return found | {"num_classes": np.asarray(count), "class_names": np.asarray(names or [], dtype=str)}


def _stacked(values: Iterable[Any], column: str) -> Array:
    """Return the rows of a column as one array, channels of pictures first.

    Raises:
        Unfit: they are no numbers, or differ in shape.
    """
    rows = [np.asarray(value) for value in values]
    shapes = {row.shape for row in rows}
    if len(shapes) > 1 or rows[0].dtype.kind not in "iufb":
        found = f"shapes {sorted(shapes)[:3]}" if len(shapes) > 1 else f"values of type {type(rows[0].item()).__name__}"
        raise Unfit(f"data.x={column} must hold pictures or numbers of one shape; it holds {found}")
    x = np.stack(rows)
    if x.dtype == np.uint8 and x.ndim in (3, 4):  # pictures: [m, height, width] or [m, height, width, channels]
        return x[:, None] if x.ndim == 3 else np.moveaxis(x, -1, 1)
    return x.astype(np.float32) if x.dtype == np.float64 else x


def main(request: str, answer: str) -> int:
    """Read what ``request`` asks for into the file ``answer``; return the exit code."""
    try:
        arrays = read(json.loads(request))
    except Unfit as error:
        print(error, file=sys.stderr)
        return UNFIT
    np.savez(answer, **arrays)  # type: ignore[arg-type]
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
