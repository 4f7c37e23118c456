"""One Ray for all tests of this folder: starting it takes seconds."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, cast

import pytest

from fedagg.grid.ray import ray


@pytest.fixture(scope="package")
def cluster() -> Iterator[str]:
    """The address of a running Ray with room for three workers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray leaves files and sockets open
        started = ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False)
        yield cast(Any, started).address_info["address"]
        ray.shutdown()
