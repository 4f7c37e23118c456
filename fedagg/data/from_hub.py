"""Data sets of the Hugging Face Hub, or Parquet and picture folders of your own, through ``flwr-datasets``.

All that is read, is read in a process of its own. It can be stopped when it hangs, which the hub's own settings do not
achieve; it gets its environment before it imports anything; and the libraries, 2 seconds and 500 MB of them, stay out of this
process.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from fedagg.data import hub_reader
from fedagg.data.datasets import Array, Dataset, stratified_test_rows
from fedagg.errors import ConfigError, DatasetUnavailable

ENDPOINT = "https://huggingface.co"
REACH_SECONDS = 3.0  # for a connection to the endpoint
LOCAL_SECONDS = 600.0  # for what is on this machine


def hub(
    name: str | None = None,
    subset: str | None = None,
    train: str = "train",
    test: str | None = "test",
    x: str = "image",
    y: str = "label",
    owner: str | None = None,
    scale: float = 255.0,
    test_fraction: float = 0.2,
    download: bool = False,
    timeout: float = 3600.0,
    dir: str | Path | None = None,
) -> Dataset:
    """Any data set of the Hugging Face Hub whose rows are pictures or lists of numbers of one shape, with a class each.

    Looked for in ``dir``, then in the hub library's cache on this machine, then on the hub, but only with ``download=True``.

    Args:
        name: of the data set, ``owner/name``.
        subset: which of its configurations, where it has several.
        train: the split that is trained on.
        test: the split that is measured on; None takes ``test_fraction`` of every class from ``train``.
        x: the column of pictures or numbers.
        y: the column of classes: numbers, names, or classes that the data set names itself.
        owner: the column that says whose row it is, the natural client; None where there is none.
        scale: features are values divided by this.
        test_fraction: see ``test``.
        download: ask the hub for what is not on this machine.
        timeout: seconds a download may take.
        dir: a folder with files of your own: Parquet, or a folder of pictures a class. ``name`` is not needed then.

    Shapes: pictures become [channels, height, width], stored as uint8; numbers stay as they are.

    Raises:
        DatasetUnavailable: ``flwr-datasets`` is not installed; the data are neither in ``dir`` nor on this machine nor to be
            had; the hub does not answer, or the download takes too long.
        ConfigError: neither ``name`` nor ``dir``; columns or splits that are not there, or not of these forms.
    """
    if name is None and dir is None:
        raise ConfigError("data=hub needs data.name=OWNER/NAME of a data set, or data.dir=FOLDER with files of your own")
    if dir is not None and not Path(dir).expanduser().is_dir():
        raise DatasetUnavailable(f"data=hub needs a folder; data.dir={dir} is none")
    if find_spec("flwr_datasets") is None:
        raise DatasetUnavailable("data=hub needs the package flwr-datasets: pip install 'fedagg[hub]'")
    request = {
        "dataset": str(name) if dir is None else str(Path(dir).expanduser().absolute()),
        "subset": subset,
        "splits": [train] if test is None else [train, test],
        "columns": {"x": x, "y": y} | ({} if owner is None else {"owner": owner}),
    }
    found, told = _read(request, offline=True, seconds=LOCAL_SECONDS)
    if found is None and dir is None and download:
        _reach()
        found, told = _read(request, offline=False, seconds=timeout)
    if found is None:
        where = "on this machine" + " and on the hub" * (download and dir is None)
        fix = "Take data=digits" if download or dir is not None else "data.download=true asks the hub; or take data=digits"
        raise DatasetUnavailable(f"data=hub looked for {request['dataset']} {where}: {told}. {fix}")
    short = name or Path(str(request["dataset"])).name
    return _dataset(short, found, test is None, test_fraction, scale, str(request["dataset"]))


def _dataset(name: str, found: dict[str, Array], divide: bool, test_fraction: float, scale: float, source: str) -> Dataset:
    x, y, owners = found["x_0"], found["y_0"], found.get("owner")
    if divide:
        held_out = stratified_test_rows(y, test_fraction)
        x_test, y_test, x, y = x[held_out], y[held_out], x[~held_out], y[~held_out]
        owners = None if owners is None else owners[~held_out]
    else:
        x_test, y_test = found["x_1"], found["y_1"]
    people, numbers = (None, None) if owners is None else np.unique(owners, return_inverse=True)
    return Dataset(
        name,
        x,
        y,
        x_test,
        y_test,
        int(found["num_classes"]),
        source,
        scale=scale,
        class_names=found["class_names"].tolist(),
        owners=numbers,
        owner_names=[] if people is None else [str(person) for person in people],
    )


def _read(request: dict[str, Any], offline: bool, seconds: float) -> tuple[dict[str, Array] | None, str]:
    """Let a process of its own read what ``request`` names; return its arrays, or None and why there are none.

    Raises:
        ConfigError: the data are there, and are not what the request takes them for.
    """
    environment = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
    if offline:
        environment |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    with TemporaryDirectory() as folder:
        answer = Path(folder, "answer.npz")
        # -P: beside the reader lies a module datasets, which is not theirs
        command = [sys.executable, "-P", hub_reader.__file__, json.dumps(request), str(answer)]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            return None, f"not done after {seconds:g} seconds (data.timeout)"
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        if done.returncode == hub_reader.UNFIT:
            raise ConfigError(last)
        if done.returncode != 0:
            return None, last
        with np.load(answer) as arrays:
            return dict(arrays), ""


def _reach() -> None:
    """Raise at once where the hub cannot be reached; its own library would try for minutes."""
    endpoint = os.environ.get("HF_ENDPOINT", ENDPOINT)
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    url = urlsplit(proxy or endpoint)
    try:
        port = url.port or (443 if url.scheme == "https" else 80)
        socket.create_connection((url.hostname or "", port), REACH_SECONDS).close()
    except OSError as error:
        raise DatasetUnavailable(
            f"data.download=true, but {url.hostname}:{port} does not answer within {REACH_SECONDS:g} seconds: {error}. Go "
            "online, name a folder with data.dir=FOLDER, or take data=digits"
        ) from error
