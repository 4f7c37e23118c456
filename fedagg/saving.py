"""State as tensors and plain containers: what ``torch.load(weights_only=True)`` reads back without running anybody's code."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy as FlowerStrategy
from torch import Tensor

from fedagg.errors import FedaggError

ARRAYS = [np.dtype(code) for code in ("?", "b", "h", "i", "q", "B", "H", "I", "Q", "e", "f", "d")]  # what torch has as well
PLAIN = (type(None), bool, int, float, str, bytes)
RECORDS: dict[str, type[Any]] = {"config": ConfigRecord, "metrics": MetricRecord, "records": RecordDict}
KIND, VALUE = "fedagg kind", "value"


class Unsavable(FedaggError):
    """Some state is neither a number, text, tensor, array or Flower record, nor a container of those."""


def encode(value: Any, path: str) -> Any:
    """Return ``value`` in tensors and plain containers.

    Args:
        value: tensors, arrays, numbers, text, None, Flower's records, and containers of those.
        path: what to call it in an error.

    Raises:
        Unsavable: naming the part that is something else.
    """
    if type(value) in PLAIN:
        return value
    if isinstance(value, Tensor):
        saved = value.detach().cpu().clone()  # a view would bring the memory behind it
        return saved if value.device.type == "cpu" else _tagged("tensor", (str(value.device), saved))
    if isinstance(value, np.ndarray | np.generic) and value.dtype in ARRAYS:
        return _tagged("scalar" if isinstance(value, np.generic) else "numpy", torch.from_numpy(np.array(value)))
    if isinstance(value, ArrayRecord):
        return _tagged("arrays", [(name, encode(array.numpy(), f"{path}.{name}")) for name, array in value.items()])
    for kind, record in RECORDS.items():
        if isinstance(value, record):
            return _tagged(kind, encode(dict(value), path))
    if type(value) is list:
        return [encode(item, f"{path}[{i}]") for i, item in enumerate(value)]
    if type(value) is tuple:
        return tuple(encode(item, f"{path}[{i}]") for i, item in enumerate(value))
    if type(value) in (dict, OrderedDict):
        return _tagged("dict", [(encode(k, path), encode(item, f"{path}[{k!r}]")) for k, item in value.items()])
    raise Unsavable(f"{path} is a {type(value).__module__}.{type(value).__qualname__}, which cannot be saved")


def decode(value: Any) -> Any:
    """Return what ``encode`` was given, tensors on their device; subclasses of records and dicts come back as plain ones."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if isinstance(value, tuple):
        return tuple(decode(item) for item in value)
    if not isinstance(value, dict):
        return value
    kind, content = value[KIND], value[VALUE]
    if kind == "tensor":
        device, tensor = content
        return tensor.to(device)
    if kind == "numpy":
        return content.numpy()
    if kind == "scalar":
        return content.numpy()[()]
    if kind == "arrays":
        return ArrayRecord({name: Array(decode(array)) for name, array in content})
    if kind == "dict":
        return {decode(k): decode(item) for k, item in content}
    return RECORDS[kind](decode(content))


def state_of(strategy: FlowerStrategy, path: str) -> Any:
    """Return the state of a strategy, encoded: its ``state_dict()``, or where it has none, as Flower's, its attributes.

    Functions, methods, classes and modules among the attributes are left out, since the config makes them again; a strategy
    inside the strategy is entered.

    Raises:
        Unsavable: naming an attribute that cannot be saved.
    """
    if hasattr(strategy, "state_dict"):
        return encode(strategy.state_dict(), path)
    state = {}
    for name, value in vars(strategy).items():
        if isinstance(value, FlowerStrategy):
            state[name] = state_of(value, f"{path}.{name}")
        elif not _made_again(value):
            state[name] = encode(value, f"{path}.{name}")
    return state


def restore(strategy: FlowerStrategy, state: Any) -> None:
    """Give a strategy the state that ``state_of`` returned."""
    if hasattr(strategy, "load_state_dict"):
        strategy.load_state_dict(decode(state))
        return
    for name, value in state.items():
        held = vars(strategy).get(name)
        if isinstance(held, FlowerStrategy):
            restore(held, value)
        else:
            vars(strategy)[name] = decode(value)


def _made_again(value: Any) -> bool:
    """Whether an attribute holds no state. A callable object may: a torch module is one."""
    stateless = callable(value) and getattr(value, "__dict__", None) == {}
    return stateless or inspect.isroutine(value) or isinstance(value, type | partial | ModuleType)


def encode_rows(rows: list[tuple[int, str, int | None, str, float]]) -> dict[str, Any]:
    """Return rows of metrics as columns; clients are numbered, since node ids of Flower's need 64 bits without a sign."""
    names: dict[str, int] = {}
    clients: dict[int | None, int] = {}
    columns = list(zip(*rows, strict=True)) or [()] * 5
    return {
        "round": torch.tensor(columns[0], dtype=torch.int64),
        "split": torch.tensor([names.setdefault(split, len(names)) for split in columns[1]], dtype=torch.int32),
        "client": torch.tensor([clients.setdefault(client, len(clients)) for client in columns[2]], dtype=torch.int32),
        "metric": torch.tensor([names.setdefault(metric, len(names)) for metric in columns[3]], dtype=torch.int32),
        "value": torch.tensor(columns[4], dtype=torch.float64),
        "names": list(names),
        "clients": list(clients),
    }


def decode_rows(columns: Mapping[str, Any]) -> list[tuple[int, str, int | None, str, float]]:
    """Return the rows that ``encode_rows`` was given."""
    names, clients = columns["names"], columns["clients"]
    return [
        (r, names[split], clients[client], names[metric], value)
        for r, split, client, metric, value in zip(
            *(columns[name].tolist() for name in ("round", "split", "client", "metric", "value")), strict=True
        )
    ]


def _tagged(kind: str, value: Any) -> dict[str, Any]:
    return {KIND: kind, VALUE: value}
