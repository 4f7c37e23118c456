"""Clients on Ray: workers that hold the population for the whole run and get one message each a round."""

from __future__ import annotations

import heapq
import logging
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal, cast

import numpy as np
import torch
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor

from fedagg.clients import Clients, Evaluation, Training
from fedagg.clients.clients import Poison
from fedagg.clients.executor import Block
from fedagg.errors import ClientError, ConfigError, FedaggError
from fedagg.grid.base import ensure_identity
from fedagg.grid.clients import AppCall, ClientGrid, NodeConfig
from fedagg.params import KINDS, ModelState, State
from fedagg.rows import RowBuffer

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # else a process under `uv run` packs its directory for workers
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what its next version does; it warns of the change

import ray as _ray  # reads the lines above
from ray.exceptions import RayError, RayTaskError

ray = cast(Any, _ray)  # its annotations know nothing of actors
logger = logging.getLogger(__name__)

PATIENCE = 60.0  # seconds to wait for a first worker, or for another one when none is left
Share = list[int]


def place(costs: Mapping[int, float], workers: int) -> list[Share]:
    """Share clients out among workers, the most expensive first, each to the worker with least to do so far.

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


@dataclass
class _Trained:
    """What a worker sends back of a share: a ``Training`` whose rows are NumPy arrays, which travel without pickle."""

    block: tuple[Any, ...]
    training: Training


class _Worker:
    """What runs in a process of Ray's: the clients, or the app they are."""

    def __init__(self, clients: tuple[Any, ...] | ClientApp, threads: int) -> None:
        torch.set_num_threads(threads)
        ensure_identity()
        self._app = clients if isinstance(clients, ClientApp) else None
        if not isinstance(clients, ClientApp):
            population, model, local, settings = clients
            self._clients = Clients(population, model, local, **settings)

    def fit(self, model: tuple[Any, ...], ids: Share, round: int, poisons: Mapping[int, Poison]) -> _Trained:
        done = self._clients.fit(_state(model), ids, round, poisons)
        k, block = len(done.client_ids), done.block
        rows = tuple(part[:k].numpy() for part in (block.updates, block.float_buffers, block.int_buffers))
        nothing = torch.empty(0)
        return _Trained(rows, replace(done, block=Block(nothing, nothing, nothing, nothing)))

    def evaluate(self, model: tuple[Any, ...], ids: Share, round: int) -> Evaluation:
        return self._clients.evaluate(_state(model), ids, round)

    def call(self, call: AppCall) -> tuple[Message | ClientError, RecordDict]:
        assert self._app is not None
        return call(self._app), call.context.state

    def resident_bytes(self) -> int:
        return resident_bytes()

    def pid(self) -> int:
        return os.getpid()

    def node(self) -> str:
        return str(ray.get_runtime_context().get_node_id())


class RayGrid(ClientGrid):
    """Run clients in ``workers`` processes of Ray's, on this machine or on a cluster; the numbers are those of ``LocalGrid``.

    Population, model and local training go into the object store once. A round is one message per worker: the model is put
    into the store once, ids go out, one block of rows [k, d] comes back. Clients are placed by their number of examples. A
    foreign ``ClientApp`` is called message by message; what its clients remember stays here. If a worker is lost, or its
    node, its clients run again elsewhere, and a new worker is started where there is room for one.

    Args:
        clients: ``Clients``, or a Flower ``ClientApp`` that Ray can pickle.
        num_clients: N; needed for a ``ClientApp``.
        workers: how many processes.
        cpus_per_worker: CPUs that Ray sets aside for each.
        gpus_per_worker: GPUs, or a share of one; workers then compute on it, and this process on the CPU.
        threads: of torch in each worker.
        address: None starts Ray on this machine for this Grid; "auto" or an address joins a running cluster.
        on_client_error: see ``ClientGrid``.
        seed: see ``ClientGrid``.
        node_config: see ``ClientGrid``.
        run_config: see ``ClientGrid``.

    Raises:
        ConfigError: numbers that are impossible, no cluster at ``address``, or one that is too small.
    """

    def __init__(
        self,
        clients: Clients | ClientApp,
        num_clients: int | None = None,
        *,
        workers: int = 2,
        cpus_per_worker: float = 1,
        gpus_per_worker: float = 0,
        threads: int = 1,
        address: str | None = None,
        on_client_error: Literal["raise", "drop"] = "raise",
        seed: int = 0,
        node_config: NodeConfig | None = None,
        run_config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            clients,
            num_clients,
            on_client_error=on_client_error,
            seed=seed,
            node_config=node_config,
            run_config=run_config,
        )
        for name, value, least in (("workers", workers, 1), ("threads", threads, 1)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"engine.{name} must be an integer >= {least}; got {value}")
        for name, share in (("cpus_per_worker", cpus_per_worker), ("gpus_per_worker", gpus_per_worker)):
            if isinstance(share, bool) or not isinstance(share, int | float) or not share >= 0 or share == math.inf:
                raise ConfigError(f"engine.{name} must be a number >= 0; got {share}")
        self.workers, self.threads = workers, threads
        self._needs = {"CPU": float(cpus_per_worker), "GPU": float(gpus_per_worker)}
        self._rows = RowBuffer()
        self._started = _connect(address, workers, self._needs)
        variables = {"OMP_NUM_THREADS": str(threads), "FLWR_TELEMETRY_ENABLED": os.environ.get("FLWR_TELEMETRY_ENABLED", "0")}
        self._actor = ray.remote(_Worker).options(
            num_cpus=cpus_per_worker, num_gpus=gpus_per_worker, runtime_env={"env_vars": variables}
        )
        if isinstance(clients, Clients):
            here = {} if gpus_per_worker == 0 else {"device": "cuda"}
            self._parts = ray.put((clients.population, clients.model, clients.local, {**clients.settings, **here}))
        else:
            self._parts = ray.put(clients)
        self._staff: list[Any] = []
        self._hire()

    def __str__(self) -> str:
        return f"{self.workers} Ray workers of {self.threads} thread{'s' if self.threads != 1 else ''}"

    def fit(self, clients: Clients, state: State, client_ids: Sequence[int], round: int) -> Training:
        model = ray.put(tuple(getattr(state, kind).cpu().numpy() for kind in KINDS))
        counts = clients.population.num_examples
        costs = {client: float(counts[client]) for client in client_ids}
        poisons = self.poisons

        def ask(worker: Any, ids: Share) -> Any:
            return worker.fit.remote(model, ids, round, {client: poisons[client] for client in ids if client in poisons})

        shares: list[_Trained] = self._shared_out(costs, ask)
        order = sorted(client for share in shares for client in share.training.client_ids)
        places = {client: row for row, client in enumerate(order)}
        base, layout = state.params, clients.layout
        rows = self._rows.take(len(client_ids), layout.size(), base.dtype, base.device)
        result = Training(Block.over(rows, base, layout), client_ids=order)
        facts: dict[int, tuple[int, dict[str, float], bool]] = {}
        for share in shares:
            done = share.training
            mine = [places[client] for client in done.client_ids]
            for into, part in zip((rows, result.block.float_buffers, result.block.int_buffers), share.block, strict=True):
                _write(into, mine, part)
            facts |= dict(zip(done.client_ids, zip(done.num_examples, done.metrics, done.finite, strict=True), strict=True))
            result.errors |= done.errors
        for client in order:
            examples, metrics, finite = facts[client]
            result.num_examples.append(examples)
            result.metrics.append(metrics)
            result.finite.append(finite)
        result.errors = dict(sorted(result.errors.items()))
        return result

    def evaluate(self, clients: Clients, state: State, client_ids: Sequence[int], round: int) -> Evaluation:
        model = ray.put(tuple(getattr(state, kind).cpu().numpy() for kind in KINDS))
        counts = clients.population.num_examples
        costs = {client: float(counts[client]) for client in client_ids}
        shares: list[Evaluation] = self._shared_out(costs, lambda worker, ids: worker.evaluate.remote(model, ids, round))
        rows = [row for share in shares for row in zip(share.client_ids, share.num_examples, share.metrics, strict=True)]
        rows.sort(key=lambda row: row[0])
        errors = {client: error for share in shares for client, error in sorted(share.errors.items())}
        return Evaluation([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows], errors)

    def call(self, app: ClientApp, calls: Sequence[AppCall]) -> Iterable[Message | ClientError]:
        answers: dict[int, Message | ClientError] = {}
        waiting, running = list(range(len(calls)))[::-1], dict[Any, tuple[Any, int]]()
        idle = self._hire()
        while waiting or running:
            while waiting and idle:
                worker, number = idle.pop(), waiting.pop()
                running[worker.call.remote(calls[number])] = worker, number
            if not running:
                idle = self._hire()
                continue
            (ready,), _ = ray.wait(list(running), num_returns=1)
            worker, number = running.pop(ready)
            try:
                answers[number], calls[number].context.state = ray.get(ready)
            except RayTaskError as error:
                raise FedaggError(f"a Ray worker failed: {error}") from error
            except RayError as error:
                self._lose(worker, error)
                waiting.append(number)
                continue
            idle.append(worker)
        return [answers[number] for number in range(len(calls))]

    def close(self) -> None:
        """Stop the workers, and Ray if this Grid has started it."""
        for worker in self._staff:
            ray.kill(worker)
        self._staff = []
        self._rows = RowBuffer()
        if self._started:
            ray.shutdown()
            self._started = False

    def __enter__(self) -> RayGrid:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def memory(self) -> dict[str, int]:
        """Return bytes in use: by this process, by its workers, and in the object store of the cluster."""
        held = ray.cluster_resources().get("object_store_memory", 0) - ray.available_resources().get("object_store_memory", 0)
        workers = sum(ray.get([worker.resident_bytes.remote() for worker in self._staff]))
        return {"driver": resident_bytes(), "workers": workers, "object store": int(held)}

    def _shared_out(self, costs: Mapping[int, float], ask: Any) -> list[Any]:
        """Let every client run once, whatever happens to workers; return what comes back, in no order."""
        results = []
        while costs:
            staff = self._hire()
            shares = place(costs, min(len(staff), len(costs)))
            running = {ask(worker, share): (worker, share) for worker, share in zip(staff, shares, strict=False)}
            failed: list[int] = []
            while running:
                (ready,), _ = ray.wait(list(running), num_returns=1)
                worker, share = running.pop(ready)
                try:
                    results.append(ray.get(ready))
                except RayTaskError as error:
                    raise FedaggError(f"a Ray worker failed: {error}") from error
                except RayError as error:
                    self._lose(worker, error)
                    failed += share
            costs = {client: costs[client] for client in failed}
        return results

    def _lose(self, worker: Any, error: RayError) -> None:
        if worker in self._staff:
            self._staff.remove(worker)
        ray.kill(worker)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        logger.warning("a Ray worker was lost (%s); its clients run again, %d workers are left", reason, len(self._staff))

    def _hire(self) -> list[Any]:
        """Return the workers, after starting those that are missing as far as there is room; wait while there is none.

        Raises:
            FedaggError: nobody could be started for a while.
        """
        deadline = time.monotonic() + PATIENCE
        while len(self._staff) < self.workers:
            free = ray.available_resources()
            if all(free.get(kind, 0.0) >= amount for kind, amount in self._needs.items()):
                worker = self._actor.remote(self._parts, self.threads)
                try:
                    ray.get(worker.resident_bytes.remote(), timeout=PATIENCE)
                    self._staff.append(worker)
                    continue
                except RayTaskError as error:
                    raise FedaggError(f"a Ray worker could not be started: {error}") from error
                except RayError as error:
                    ray.kill(worker)
                    logger.warning("a Ray worker could not be started: %s", error)
            if self._staff:
                break
            if time.monotonic() > deadline:
                found = _listed({kind: free.get(kind, 0.0) for kind in self._needs})
                raise FedaggError(
                    f"no Ray worker is left, and none came in {PATIENCE:.0f} s: each needs {_listed(self._needs)}, "
                    f"and {found} are free"
                )
            time.sleep(0.2)
        return list(self._staff)


def _connect(address: str | None, workers: int, needs: Mapping[str, float]) -> bool:
    """Connect to Ray and see whether it is large enough; return whether it was started here."""
    started = not ray.is_initialized() and address is None
    if started:
        cores = os.cpu_count() or 1
        if workers * needs["CPU"] > cores:
            logger.warning("%d workers x %g CPUs are more than the %d cores of this machine", workers, needs["CPU"], cores)
        ray.init(
            address="local",
            num_cpus=max(1, math.ceil(workers * needs["CPU"])),
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    elif not ray.is_initialized():
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        except ConnectionError as error:
            raise ConfigError(
                f"engine.address={address}: no Ray cluster can be joined ({str(error).splitlines()[0]}). Start one with "
                "`ray start --head`, or leave engine.address out"
            ) from error
    there = ray.cluster_resources()
    short = {kind: there.get(kind, 0.0) for kind, amount in needs.items() if workers * amount > there.get(kind, 0.0)}
    if short:
        if started:
            ray.shutdown()
        wanted = _listed({kind: workers * needs[kind] for kind in short})
        raise ConfigError(
            f"{workers} workers need {wanted}; Ray has {_listed(short)}. Lower engine.workers, or what each needs"
        )
    return started


def _listed(resources: Mapping[str, float]) -> str:
    return " and ".join(f"{amount:g} {kind}s" for kind, amount in resources.items())


def _state(model: tuple[Any, ...]) -> ModelState:
    """Return a model from the object store, whose memory is shared and read-only, in memory of its own."""
    return ModelState(*(torch.from_numpy(np.array(part)) for part in model))


def _write(into: Tensor, places: list[int], part: Any) -> None:
    """Copy the rows of ``part`` [k, ...], a view of the object store, to ``places`` in ``into`` [n, ...]."""
    if into.device.type == "cpu":
        into.numpy()[places] = part
    else:
        into[torch.tensor(places, device=into.device)] = torch.from_numpy(np.array(part)).to(into.device)


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
