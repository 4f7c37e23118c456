"""Partitioners of the package flwr-datasets."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from fedagg.console import suggest
from fedagg.data.partitions.contract import Indices, Labels, checked
from fedagg.errors import ConfigError
from fedagg.instantiate import class_of

INSTALL = "pip install flwr-datasets"


@dataclass(frozen=True)
class FlwrPartitioner:
    """Share samples out with a partitioner of ``flwr_datasets``.

    It sees a table in memory with the labels alone, as the column ``label``; nothing is downloaded. Of the arguments that are
    not given it gets ``num_partitions``, ``partition_by="label"`` and ``seed`` where it takes them; their own default would be
    seed 42 in every run.

    Args:
        partitioner: its class under ``_target_``, a name in ``flwr_datasets.partitioner`` or one's own, and its arguments.

    Shapes: labels [M] -> ``num_clients`` index arrays.
    Bound: what the partitioner demands. Those that divide columns, and not rows, are refused. Natural clients are ``Natural``.
    """

    partitioner: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not (isinstance(self.partitioner, Mapping) and isinstance(self.partitioner.get("_target_"), str)):
            raise ConfigError(
                "partition=flwr needs a partitioner, for example partition.partitioner="
                f"{{_target_:flwr_datasets.partitioner.IidPartitioner}}; got {self.partitioner}"
            )

    @property
    def min_size(self) -> int | None:
        """0 where the partitioner is told to allow empty clients."""
        return self.partitioner.get("min_partition_size")

    def __call__(self, labels: Labels, num_clients: int, seed: int) -> Indices:
        labels = checked(self, labels, num_clients, seed)
        partitioner = self._made(num_clients, seed)
        table = import_module("datasets").Dataset.from_dict({"label": labels, "row": np.arange(len(labels))})
        try:
            partitioner.dataset = table.with_format("numpy")
            if partitioner.num_partitions != num_clients:
                raise ConfigError(f"{self} makes {partitioner.num_partitions} clients; population is {num_clients}")
            parts = [partitioner.load_partition(client) for client in range(num_clients)]
        except (TypeError, ValueError) as error:
            raise error if isinstance(error, ConfigError) else ConfigError(f"{self}: {error}") from error
        return [np.asarray(part["row"], dtype=np.int64) for part in parts]

    def _made(self, num_clients: int, seed: int) -> Any:
        """Make the partitioner."""
        module, _, name = str(self.partitioner["_target_"]).rpartition(".")
        try:
            home = import_module(module)
            import_module("datasets")
        except (ImportError, ValueError) as error:
            raise ConfigError(f"{self} cannot be imported: {error}. flwr_datasets comes with {INSTALL}") from error
        cls = getattr(home, name, None)
        if cls is None:
            raise ConfigError(f"{module} has no partitioner {name}{suggest(name, vars(home))}")
        if name.startswith("Vertical"):
            raise ConfigError(f"{self} divides columns; clients here have rows")
        takes = inspect.signature(cls).parameters
        given = {key: _value(value, takes.get(key)) for key, value in self.partitioner.items() if key != "_target_"}
        ours = {"num_partitions": num_clients, "partition_by": "label", "seed": seed}
        try:
            return cls(**{key: value for key, value in ours.items() if key in takes} | given)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{self}: {error}\n  {name} takes {', '.join(takes)}") from error


def _value(given: Any, parameter: inspect.Parameter | None) -> Any:
    """Return an argument as the partitioner wants it: a function for its ``_target_``, an array where the parameter is one."""
    if isinstance(given, Mapping) and "_target_" in given:
        called = class_of(given["_target_"], "partition.partitioner")
        arguments = {key: value for key, value in given.items() if key not in ("_target_", "_partial_")}
        return partial(called, **arguments) if given.get("_partial_") else called(**arguments)
    if isinstance(given, list) and parameter is not None and "array" in str(parameter.annotation).lower():
        return np.asarray(given)
    return given
