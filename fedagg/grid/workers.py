"""What runs in the processes of a Grid that has several, and which clients each of them gets."""

from __future__ import annotations

import heapq
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp

from fedagg.clients import Clients, Evaluation
from fedagg.clients.training import Poison, Reports
from fedagg.errors import ClientError
from fedagg.grid.base import ensure_identity
from fedagg.grid.clients import AppCall
from fedagg.params import KINDS, ModelState, State
from fedagg.process import prepare_process

Share = list[int]
Arrays = tuple[Any, ...]
"""NumPy arrays, one for each kind of values in a model; they travel without pickle, and who receives them reads only."""


def place(costs: Mapping[int, float], workers: int) -> list[Share]:
    """Share clients out among workers, the most expensive first, each to the worker with least to do so far.

    The longest-processing-time rule (Graham, SIAM J. Appl. Math. 1969): at most 4/3 of the best makespan.

    Args:
        costs: client id -> expected work.
        workers: how many there are.

    Returns:
        One ascending list of ids per worker; together every client once. Equal inputs give equal shares.
    """
    shares: list[Share] = [[] for _ in range(workers)]
    loads = [(0.0, worker) for worker in range(workers)]
    for client in sorted(costs, key=lambda client: (-costs[client], client)):
        load, worker = heapq.heappop(loads)
        shares[worker].append(client)
        heapq.heappush(loads, (load + costs[client], worker))
    return [sorted(share) for share in shares]


def groups(ids: Sequence[int], size: int) -> dict[int, Share]:
    """Return ascending ids in groups of ``size``, the last one smaller perhaps, each under its first id.

    Clients that are batched together must stay together, wherever they run, for a result to have the same bits. A sorted union
    of some of these groups is divided into the same groups again.
    """
    return {ids[start]: list(ids[start : start + size]) for start in range(0, len(ids), size)}


def room(nodes: Iterable[Mapping[str, float]], needs: Mapping[str, float]) -> float:
    """Return how many workers fit; each lies on one node, and a worker that needs a part of a GPU on one GPU.

    Args:
        nodes: what each node has, by kind of resource.
        needs: what each worker needs.

    Example:
        >>> room([{"CPU": 4, "GPU": 2}, {"CPU": 3}], {"CPU": 2}), room([{"CPU": 16, "GPU": 2}], {"CPU": 1, "GPU": 0.4})
        (3, 4)
    """

    def fitting(kind: str, has: float) -> float:
        need = needs[kind]
        if need == 0:
            return math.inf
        return int(has) * int(1 / need) if kind == "GPU" and need < 1 else int(has / need + 1e-9)

    return sum(min(fitting(kind, node.get(kind, 0.0)) for kind in needs) for node in nodes)


@dataclass
class Trained:
    """What a worker sends back of a share.

    Args:
        rows: what its clients changed, and their buffers, [k, ...] each.
        facts: client id -> examples it trained on, its metrics, whether its row is finite; in the order of the rows.
        kept: name -> [k, L], what they will remember.
        extras: name -> [k, L], what they send beside their models.
        errors: client id -> what went wrong, for clients that have no row.
    """

    rows: Arrays
    facts: dict[int, tuple[int, Reports, bool]]
    kept: dict[str, Any]
    extras: dict[str, Any]
    errors: dict[int, ClientError]


class Worker:
    """What runs in one process: the clients, or the app they are.

    Args:
        threads: of torch.
    """

    def __init__(self, threads: int) -> None:
        prepare_process(threads)
        ensure_identity()

    def begin(self, source: Callable[[], Clients] | ClientApp) -> dict[str, Any]:
        """Take on an app, or the clients that ``source`` makes; return what is known of their engine, for the plan.

        Raises:
            ConfigError: the clients cannot be trained here.
        """
        if isinstance(source, ClientApp):
            self._app = source
            return {}
        self._clients = source()
        return {key: getattr(self._clients.engine, key) for key in ("name", "why", "device", "batch", "client_bytes")}

    def fit(
        self,
        model: Arrays,
        ids: Share,
        round: int,
        poisons: Mapping[int, Poison],
        kept: Mapping[str, Any],
        received: Mapping[str, Any],
        reports: frozenset[str],
    ) -> Trained:
        """Train a share of a cohort; ``reports`` is what clients say of themselves."""
        self._clients.report(reports)
        done = self._clients.fit(state_of(model), ids, round, poisons, _tensors(kept), _tensors(received))
        k, block = len(done.client_ids), done.block
        facts = zip(done.num_examples, done.metrics, done.finite, strict=True)
        return Trained(
            tuple(part[:k].numpy() for part in (block.updates, block.float_buffers, block.int_buffers)),
            dict(zip(done.client_ids, facts, strict=True)),
            {name: rows.numpy() for name, rows in done.kept.items()},
            {name: rows.cpu().numpy() for name, rows in done.extras.items()},
            done.errors,
        )

    def evaluate(self, model: Arrays, ids: Share, round: int, kept: Mapping[str, Any]) -> Evaluation:
        """Let a share of a cohort evaluate."""
        return self._clients.evaluate(state_of(model), ids, round, _tensors(kept) or None)

    def call(self, call: AppCall) -> tuple[Message | ClientError, RecordDict]:
        """Call the app; return its answer, and what the client remembers."""
        return call(self._app), call.context.state

    def resident_bytes(self) -> int:
        """Return the memory of this process."""
        return resident_bytes()

    def pid(self) -> int:
        """Return the process id."""
        return os.getpid()


def arrays_of(state: State) -> Arrays:
    """Return a model as it travels."""
    return tuple(getattr(state, kind).cpu().numpy() for kind in KINDS)


def state_of(model: Arrays) -> ModelState:
    """Return a model that has travelled, in memory of its own."""
    return ModelState(*(torch.from_numpy(np.array(part)) for part in model))


def _tensors(arrays: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(values)) for name, values in arrays.items()}


def resident_bytes() -> int:
    """Return the resident memory of this process that it shares with no other, such as the object store."""
    with open("/proc/self/statm", encoding="ascii") as file:
        _, resident, shared, *_ = map(int, file.read().split())
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
