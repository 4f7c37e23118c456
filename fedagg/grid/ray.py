"""Clients on Ray: workers that hold the population for the whole run and get one message each a round."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pickle import PicklingError
from types import TracebackType
from typing import Any, Literal, cast

import numpy as np
import torch
from flwr.app import Message
from flwr.clientapp import ClientApp
from torch import Tensor

from fedagg.clients import Clients, Evaluation, Training
from fedagg.clients.choice import Engine
from fedagg.clients.executor import Block
from fedagg.clients.memory import Kept
from fedagg.clients.training import Reports
from fedagg.errors import ClientError, ConfigError, FedaggError
from fedagg.grid.clients import AppCall, ClientGrid, NodeConfig, Vectors
from fedagg.grid.workers import Share, Worker, arrays_of, groups, place, resident_bytes, room
from fedagg.params import State
from fedagg.rows import RowBuffer

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # else a process under `uv run` packs its directory for workers
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what its next version does; it warns of the change

import ray as _ray  # reads the lines above
from ray.exceptions import RayError, RayTaskError

ray = cast(Any, _ray)  # its annotations know nothing of actors
logger = logging.getLogger(__name__)

PATIENCE = 60.0  # seconds to wait for a first worker, or for another one when none is left
LOSSES = 5  # a client whose worker is lost so often in a row is itself to blame


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
        ConfigError: numbers that are impossible; and when it is opened: no cluster at ``address``, or one that is too small.
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
        self.workers, self.threads, self.address = workers, threads, address
        self._needs = {"CPU": float(cpus_per_worker), "GPU": float(gpus_per_worker)}
        self._rows = RowBuffer()
        self._source: Any = None  # of the clients, in the object store, once Ray is there
        self._started = False
        self._staff: list[Any] = []
        self._coming: dict[Any, Any] = {}  # what a worker will say when it is ready -> the worker
        self._engine: dict[str, Any] = {}

    def __str__(self) -> str:
        return f"{self.workers} Ray workers of {self.threads} thread{'s' if self.threads != 1 else ''}"

    @property
    def engine(self) -> Engine | None:
        """What the workers train with, once they are there; its executor is that of this process."""
        here = super().engine
        return replace(here, **self._engine) if here else None

    def open(self) -> None:
        """Connect to Ray and start the workers; the first message does it otherwise."""
        if self._source is not None:
            return
        self._started = connect("engine", self.address, self.workers, self._needs, self.threads)
        try:
            there = "cuda" if self._needs["GPU"] else "cpu"
            try:
                clients = self.clients
                self._source = ray.put(clients.made_again(device=there) if isinstance(clients, Clients) else clients)
            except (TypeError, PicklingError) as error:
                raise ConfigError(f"Ray cannot send these clients to its workers: {_line(error)}") from error
            self._start(self.workers)
            self._welcome(self.workers, PATIENCE)
            if len(self._hire()) < self.workers:
                logger.warning("only %d of %d Ray workers could be started", len(self._staff), self.workers)
        except BaseException:
            self.close()
            raise

    def fit(
        self, clients: Clients, state: State, client_ids: Sequence[int], round: int, kept: Kept, received: Vectors
    ) -> Training:
        model, poisons = ray.put(arrays_of(state)), self.poisons
        beside = ray.put({name: vector.cpu().numpy() for name, vector in received.items()})
        places = {client: row for row, client in enumerate(client_ids)}

        def ask(worker: Any, ids: Share) -> Any:
            theirs = {name: rows[[places[client] for client in ids]].cpu().numpy() for name, rows in kept.items()}
            poison = {client: poisons[client] for client in ids if client in poisons}
            return worker.fit.remote(model, ids, round, poison, theirs, beside, clients.reports)

        base, layout = state.params, clients.layout
        block = Block.over(self._rows.take(len(client_ids), layout.size(), base.dtype, base.device), base, layout)
        parts = block.updates, block.float_buffers, block.int_buffers
        result, errors = Training(block), dict[int, ClientError]()
        facts: dict[int, tuple[int, Reports, bool]] = {}
        extras: dict[str, Tensor] = {}
        for done in self._shared_out(clients, client_ids, ask):
            for part, rows in zip(parts, done.rows, strict=True):
                _write(rows, part, [places[client] for client in done.facts])
            for name, rows in done.kept.items():
                _write(rows, kept[name], [places[client] for client in done.facts])
            for name, rows in done.extras.items():
                sent = torch.from_numpy(rows[:0].copy()).to(base.device)  # the store's own memory is read-only
                into = extras.setdefault(name, sent.new_empty(len(client_ids), *rows.shape[1:]))
                _write(rows, into, [places[client] for client in done.facts])
            facts |= done.facts
            errors |= done.errors
        result.client_ids, result.errors = sorted(facts), dict(sorted(errors.items()))
        for client in result.client_ids:
            examples, metrics, finite = facts[client]
            result.num_examples.append(examples)
            result.metrics.append(metrics)
            result.finite.append(finite)
        answered = [places[client] for client in result.client_ids]
        result.kept = {name: rows[answered] for name, rows in kept.items()}
        result.extras = {name: rows[answered] for name, rows in extras.items()}
        if errors:  # nothing was written to their rows
            for part in parts:
                part[: len(facts)] = part[answered]
        return result

    def evaluate(self, clients: Clients, state: State, client_ids: Sequence[int], round: int, kept: Kept) -> Evaluation:
        model, places = ray.put(arrays_of(state)), {client: row for row, client in enumerate(client_ids)}

        def ask(worker: Any, ids: Share) -> Any:
            theirs = {name: rows[[places[client] for client in ids]].cpu().numpy() for name, rows in kept.items()}
            return worker.evaluate.remote(model, ids, round, theirs)

        facts, errors = dict[int, tuple[int, dict[str, float]]](), dict[int, ClientError]()
        for done in self._shared_out(clients, client_ids, ask):
            facts |= zip(done.client_ids, zip(done.num_examples, done.metrics, strict=True), strict=True)
            errors |= done.errors
        answered, errors = sorted(facts), dict(sorted(errors.items()))
        return Evaluation(
            answered, [facts[client][0] for client in answered], [facts[client][1] for client in answered], errors
        )

    def call(self, app: ClientApp, calls: Sequence[AppCall]) -> Iterable[Message | ClientError]:
        answers: dict[int, Message | ClientError] = {}
        waiting, running, losses = list(range(len(calls)))[::-1], dict[Any, tuple[Any, int]](), [0] * len(calls)
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
            answer = self._result(ready, worker)
            if answer is None:
                losses[number] += 1
                _give_up([calls[number].message.metadata.dst_node_id], losses[number])
                waiting.append(number)
            else:
                answers[number], calls[number].context.state = answer
                idle.append(worker)
        return [answers[number] for number in range(len(calls))]

    def close(self) -> None:
        """Stop the workers, and Ray if this Grid has started it."""
        for worker in [*self._staff, *self._coming.values()]:
            ray.kill(worker)
        self._staff, self._coming, self._source, self._rows = [], {}, None, RowBuffer()
        if self._started:
            ray.shutdown()
            self._started = False

    def __enter__(self) -> RayGrid:
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def memory(self) -> dict[str, int]:
        """Return bytes in use: by this process, by its workers, and in the object store of the cluster. Linux only."""
        held = ray.cluster_resources().get("object_store_memory", 0) - ray.available_resources().get("object_store_memory", 0)
        workers = sum(ray.get([worker.resident_bytes.remote() for worker in self._staff]))
        return {"driver": resident_bytes(), "workers": workers, "object store": int(held)}

    def _shared_out(self, clients: Clients, ids: Sequence[int], ask: Callable[[Any, Share], Any]) -> Iterator[Any]:
        """Let every client run once, whatever happens to workers; yield what comes back, in no order."""
        held, losses = clients.population.indices, 0
        together = groups(ids, self._engine.get("batch", 1))
        costs = {first: float(sum(len(held[client]) for client in group)) for first, group in together.items()}
        while costs:
            staff = self._hire()
            shares = place(costs, min(len(staff), len(costs)))
            running = {
                ask(worker, [client for first in share for client in together[first]]): (worker, share)
                for worker, share in zip(staff, shares, strict=False)
            }
            lost: Share = []
            while running:
                (ready,), _ = ray.wait(list(running), num_returns=1)
                worker, share = running.pop(ready)
                result = self._result(ready, worker)
                if result is None:
                    lost += share
                else:
                    yield result
            losses += bool(lost)
            _give_up([client for first in lost for client in together[first]], losses)
            costs = {first: costs[first] for first in lost}

    def _result(self, ready: Any, worker: Any) -> Any:
        """Return what came back, None where the worker or what it made is lost.

        Raises:
            FedaggError: the worker lives, and its code failed.
        """
        try:
            return ray.get(ready)
        except RayTaskError as error:
            if isinstance(error.cause, FedaggError):
                raise error.cause from error
            raise FedaggError(f"a Ray worker failed: {error}") from error
        except RayError as error:
            if worker in self._staff:
                self._staff.remove(worker)
            ray.kill(worker)
            logger.warning(
                "a Ray worker was lost (%s); its clients run again, %d workers are left", _line(error), len(self._staff)
            )
            return None

    def _hire(self) -> list[Any]:
        """Return the workers. Those that are missing are started where there is room, and waited for if there is no other.

        Raises:
            FedaggError: nobody could be started.
        """
        self.open()
        deadline = time.monotonic() + PATIENCE
        while len(self._staff) < self.workers:
            self._welcome(1, 0.0 if self._staff else 0.2)
            missing, free = self.workers - len(self._staff) - len(self._coming), ray.available_resources()
            self._start(int(min(missing, room([free], self._needs))))
            if self._staff:
                break
            if time.monotonic() > deadline:
                raise FedaggError(
                    f"no Ray worker is left, and none came in {PATIENCE:.0f} s: each needs {_listed(self._needs)}, and "
                    f"{_listed({kind: free.get(kind, 0.0) for kind in self._needs})} are free"
                )
        return list(self._staff)

    def _start(self, count: int) -> None:
        """Ask Ray for workers; they are taken on once they are ready."""
        telemetry = os.environ.get("FLWR_TELEMETRY_ENABLED", "0")
        actor = ray.remote(Worker).options(
            num_cpus=self._needs["CPU"],
            num_gpus=self._needs["GPU"],
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(self.threads), "FLWR_TELEMETRY_ENABLED": telemetry}},
        )
        for _ in range(count):
            worker = actor.remote(self.threads)
            self._coming[worker.begin.remote(self._source)] = worker

    def _welcome(self, count: int, timeout: float) -> None:
        """Take on the workers that are ready, after waiting for ``count`` of them for at most ``timeout`` seconds."""
        if not self._coming:
            time.sleep(timeout)
            return
        coming = list(self._coming)
        for answer in ray.wait(coming, num_returns=min(count, len(coming)), timeout=timeout)[0]:
            worker = self._coming.pop(answer)
            engine = self._result(answer, worker)
            if engine is not None:
                self._engine = engine
                self._staff.append(worker)


def connect(section: str, address: str | None, workers: int, needs: Mapping[str, float], threads: int) -> bool:
    """Connect to Ray and see whether it is large enough; return whether it was started here.

    Raises:
        ConfigError: naming the setting of ``section`` that does not fit what is there.
    """
    started = not ray.is_initialized() and address is None
    if started:
        cores, wanted = os.cpu_count() or 1, workers * max(needs["CPU"], threads)
        if wanted > cores:
            logger.warning("%d workers want %g cores, and this machine has %d: they will share", workers, wanted, cores)
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
                f"{section}.address={address}: no Ray cluster can be joined ({_line(error)}). Start one with "
                f"`ray start --head`, or leave {section}.address out"
            ) from error
    elif address not in (None, "auto", ray.get_runtime_context().gcs_address):
        joined = ray.get_runtime_context().gcs_address
        raise ConfigError(f"{section}.address={address}: this process has joined the Ray cluster at {joined} already")
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if workers > room(nodes, needs):
        if started:
            ray.shutdown()
        there = " and ".join(_listed({kind: node.get(kind, 0.0) for kind in needs}) for node in nodes)
        raise ConfigError(
            f"{section}.workers={workers}, each with {_listed(needs)}: Ray has room for {room(nodes, needs):g}, "
            f"on {len(nodes)} node{'s' if len(nodes) != 1 else ''} with {there}. Lower {section}.workers, or what each needs"
        )
    return started


def _give_up(clients: Sequence[int], losses: int) -> None:
    """Raise ``FedaggError`` when the same clients have lost their worker too often to blame the machine."""
    if losses >= LOSSES:
        some = ", ".join(map(str, sorted(clients)[:10]))
        raise FedaggError(
            f"{losses} times in a row a Ray worker was lost while it ran clients {some}{', ...' * (len(clients) > 10)}; "
            "run them with engine=local to see what ends the process (often it is memory)"
        )


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _listed(resources: Mapping[str, float]) -> str:
    return " and ".join(f"{amount:g} {kind}{'s' if amount != 1 else ''}" for kind, amount in resources.items())


def _write(rows: Any, part: Tensor, places: list[int]) -> None:
    """Copy ``rows`` [k, ...], a view of the object store, to ``places`` in ``part`` [n, ...]."""
    if part.device.type == "cpu":
        part.numpy()[places] = rows
    else:
        part[torch.tensor(places, device=part.device)] = torch.from_numpy(np.array(rows)).to(part.device)
