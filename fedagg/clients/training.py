"""One round of local training of a cohort: who starts from what, trains on what, and what each sends and remembers."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedagg import rng
from fedagg.clients.executor import Block, Job
from fedagg.clients.local import LocalTraining, Sent
from fedagg.clients.memory import Kept
from fedagg.errors import ClientError, ConfigError
from fedagg.params import State, Update

if TYPE_CHECKING:
    from fedagg.clients.clients import Clients

Poison = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Reports = dict[str, float | list[int]]
PART = 2  # a client that sees less than one in so many of its examples is given these alone


@dataclass(frozen=True)
class Plan:
    """What a client will see in a round.

    Args:
        batches: its steps in order: for each the rows, among its examples or those chosen of them.
        examples: how many it has, m.
        chosen: which of them it is given, [m'] int64; None is all.
    """

    batches: list[Tensor]
    examples: int
    chosen: Tensor | None = None


@dataclass
class Training:
    """What a cohort sends after training: row i of ``block`` belongs to ``client_ids[i]``.

    Args:
        block: the rows; there may be more of them than clients answered.
        client_ids: ascending.
        num_examples: examples each client trained on.
        metrics: what each client reports beside them.
        finite: whether each client's row is.
        extras: name -> [k, L], what each sends beside its model.
        kept: name -> [k, L], what each will remember, where local training keeps something.
        errors: client id -> what went wrong, for clients that raised; they have no row.
    """

    block: Block
    client_ids: list[int] = field(default_factory=list)
    num_examples: list[int] = field(default_factory=list)
    metrics: list[Reports] = field(default_factory=list)
    finite: list[bool] = field(default_factory=list)
    extras: Kept = field(default_factory=dict)
    kept: Kept = field(default_factory=dict)
    errors: dict[int, ClientError] = field(default_factory=dict)


class CohortTraining:
    """The work of one round; see ``Clients.fit`` for the arguments."""

    def __init__(
        self,
        clients: Clients,
        state: State,
        client_ids: Sequence[int],
        round: int,
        poison: Mapping[int, Poison],
        kept: Mapping[str, Tensor] | None,
        received: Mapping[str, Tensor],
    ) -> None:
        self.clients, self.local, self.state, self.ids, self.round, self.poison = (
            clients,
            clients.local,
            state,
            client_ids,
            round,
            poison,
        )
        missing = [name for name in self.local.receives if name not in received]
        if missing:
            raise ConfigError(
                f"{type(self.local).__name__} needs a server that sends {', '.join(missing)} beside the model; "
                "take the strategy that belongs to it"
            )
        self.received = {name: received[name].to(state.params) for name in self.local.receives}
        if kept is None:
            first = self.local.first(state) if self.local.keeps else {}
            kept = {name: value.expand(len(client_ids), -1) for name, value in first.items()}
        self.kept: Kept = {name: kept[name] for name in self.local.keeps}
        self.place = {client: row for row, client in enumerate(client_ids)}
        self.errors: dict[int, ClientError] = {}

    def done(self, block: Block) -> Training:
        """Train, and return what clients send; their rows fill ``block``."""
        with rng.kept_torch():  # a layer that draws at random, other than dropout, uses the global generators
            reports = self._reports() if self.clients.reports else {}
            personal = {} if self.local.personal is None else self._personal(self.local.personal)
            result = Training(block)
            starts = self._starts() if self.local.own_start else {}
            ids = [client for client in self.ids if client not in self.errors] if self.errors else self.ids
            jobs = self._jobs(self.local, "batches", "dropout", starts)
            for done in self.clients.engine.executor.train(self.state, self.local, ids, jobs, block):
                if done.metrics is None:
                    self._failed(done.client, done.error)
                    continue
                result.client_ids.append(done.client)
                result.num_examples.append(done.num_examples)
                result.metrics.append({**done.metrics, **reports.get(done.client, {})})
                result.finite.append(done.finite)
        if "a_norm" in self.clients.reports:
            for metrics in result.metrics:
                metrics["a_norm"] = self.local.a_norm(int(metrics["local_steps"]))  # type: ignore[arg-type]
        if self.local.keeps or type(self.local).send is not LocalTraining.send:
            self._send(result, personal)
        result.errors = dict(sorted(self.errors.items()))
        return result

    def _send(self, result: Training, personal: Mapping[int, Kept]) -> None:
        """Let clients decide what they send; whoever ends up with a number that is not finite remembers what it did."""
        places = [self.place[client] for client in result.client_ids]
        k, block = len(places), result.block
        result.kept = {name: values[places] for name, values in self.kept.items()}
        for i, client in enumerate(result.client_ids):
            for name, values in personal.get(client, {}).items():
                result.kept[name][i] = values
        steps = torch.tensor([metrics.get("local_steps", 0.0) for metrics in result.metrics], dtype=torch.float64)
        sent = Sent(self.state, block.updates[:k], block.float_buffers[:k], steps, self.received)
        self.local.send(sent, result.kept)
        result.extras = sent.extras
        for i, good in enumerate(result.finite):
            beside = [rows[i] for rows in (*result.kept.values(), *result.extras.values()) if rows.is_floating_point()]
            vectors = [sent.rows[i], *beside]
            result.finite[i] = good and all(Update.checked(vector).finite for vector in vectors)
            if not result.finite[i]:
                for name, values in self.kept.items():
                    result.kept[name][i] = values[places[i]]

    def _personal(self, local: LocalTraining) -> dict[int, Kept]:
        """Train the models that clients keep for themselves; return what each becomes: parameters [d] and buffers [b]."""
        params, buffers, base = self.kept["personal"], self.kept["personal_buffers"], self.state.params
        starts = {client: (params[row], buffers[row]) for client, row in self.place.items()}
        rows = torch.empty(len(self.ids), len(base), dtype=base.dtype, device=base.device)
        into = Block.over(rows, base, self.clients.layout)
        become, made = dict[int, Kept](), 0
        jobs = self._jobs(local, "personal batches", "personal dropout", starts)
        for done in self.clients.engine.executor.train(self.state, local, self.ids, jobs, into):
            if done.metrics is None:
                self._failed(done.client, done.error)
                continue
            if done.finite:
                become[done.client] = {"personal": base + rows[made], "personal_buffers": into.float_buffers[made]}
            made += 1
        return become

    def _starts(self) -> dict[int, tuple[Tensor, Tensor]]:
        k, state = len(self.ids), self.state
        params, buffers = state.params.repeat(k, 1), state.float_buffers.repeat(k, 1)
        self.local.begin(params, buffers, self.kept)
        return {client: (params[row], buffers[row]) for client, row in self.place.items()}

    def _jobs(
        self, local: LocalTraining, order: str, noise: str, starts: Mapping[int, tuple[Tensor, Tensor]]
    ) -> Callable[[Sequence[int]], list[Job]]:
        seed, names = self.clients.seed, (*local.in_steps, *local.buffers_in_steps)
        shared = {"received": self.state.params, "received_buffers": self.state.float_buffers, **self.received}
        shared["round"] = torch.tensor([self.round])

        def seen(client: int, steps: int) -> dict[str, Tensor]:
            if not names:
                return {}
            known = {**shared, "steps": torch.tensor([steps])}
            return {name: known[name] if name in known else self.kept[name][self.place[client]] for name in names}

        def job(client: int, plan: Plan | None, x: Tensor, y: Tensor) -> Job:
            if plan is None:
                x, y = self.poison[client](x, y)
                plan = Plan(local.batches(len(y), ordered(client)), len(y))
            noises = rng.derive(seed, noise, self.round, client)
            return Job(x, y, plan.batches, plan.examples, noises, seen(client, len(plan.batches)), starts.get(client))

        def ordered(client: int) -> torch.Generator:
            return rng.generator(seed, order, self.round, client)

        def jobs(clients: Sequence[int]) -> list[Job]:
            plans = [None if client in self.poison else self._plan(local, client, ordered(client)) for client in clients]
            pairs = self.clients.examples(clients, [None if plan is None else plan.chosen for plan in plans])
            return [job(client, plan, *pair) for client, plan, pair in zip(clients, plans, pairs, strict=True)]

        return jobs

    def _plan(self, local: LocalTraining, client: int, order: torch.Generator) -> Plan:
        """Decide what a client will see; where that is a small part of its examples, the others need not be made."""
        m = len(self.clients.population.rows(client))
        batches = local.batches(m, order)
        sizes = [len(rows) for rows in batches]
        if PART * sum(sizes) > m:
            return Plan(batches, m)
        return Plan(list(torch.split(torch.arange(sum(sizes)), sizes)), m, torch.cat(batches))

    def _reports(self) -> dict[int, Reports]:
        """Return what clients say of their data before they train. Who cannot be asked will fail in training as well."""
        names, executor, classes = (
            self.clients.reports,
            self.clients.engine.executor,
            self.clients.population.dataset.num_classes,
        )
        reports: dict[int, Reports] = {}
        for client in self.ids if names - {"a_norm"} else ():
            try:
                ((x, y),) = self.clients.examples([client])
                if client in self.poison:
                    x, y = self.poison[client](x, y)
                reports[client] = {}
                if "label_counts" in names:
                    reports[client]["label_counts"] = torch.bincount(y, minlength=classes).tolist()
                if "loss_before" in names:
                    reports[client]["loss_before"] = executor.evaluate(self.state, x, y)["loss"]
            except Exception:
                self._failed(client, traceback.format_exc())
        return reports

    def _failed(self, client: int, detail: str) -> None:
        self.errors[client] = ClientError(client, self.round, "train", detail)
