"""Many clients at once: their parameters stacked, every step one vectorised call (``torch.func``)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn
from torch.func import grad_and_value, vmap
from torch.nn.utils.rnn import pad_sequence

from fedagg.clients.dropout import pass_keys
from fedagg.clients.executor import Block, Executor, Job, Jobs, OneAtATime, Outcome, laid_out, made
from fedagg.clients.local import LocalTraining, Memory
from fedagg.clients.local.base import Seen
from fedagg.params import Slot, State

logger = logging.getLogger(__name__)


class Batched(Executor):
    """Train ``batch`` clients at once; numbers agree with ``OneAtATime`` up to the order in which sums are taken.

    Clients are sorted by their number of steps, so that those who still have a batch are always the first ones. Uneven batches
    of one step are filled up with copies of their first example, which a mask keeps out of the loss. If a group fails, its
    clients train one at a time, so that the error is that of its client.

    Memory beside the round's matrix, for ``batch`` clients: parameters, gradients, what local training remembers, activations.

    Args:
        model: the architecture; ``trial.obstacle`` says whether it can be trained like this.
        device: where to compute.
        precision: what the forward pass computes in; parameters, gradients and losses are float32 either way.
        batch: clients at once.
    """

    def __init__(
        self, model: nn.Module, device: torch.device, precision: torch.dtype = torch.float32, batch: int = 32
    ) -> None:
        self.alone, self.device, self.precision, self.batch = OneAtATime(model, device, precision), device, precision, batch
        self._failed = False  # whether a group has failed; said once
        self.layout, self.module = self.alone.layout, self.alone.resident.module
        self._network = self.alone.network

    def train(self, state: State, local: LocalTraining, clients: Sequence[int], jobs: Jobs, into: Block) -> Iterable[Outcome]:
        row = 0
        for start in range(0, len(clients), self.batch):
            for outcome in self._group(state, local, clients[start : start + self.batch], jobs, into.below(row)):
                row += outcome.metrics is not None
                yield outcome

    def evaluate(self, state: State, x: Tensor, y: Tensor) -> dict[str, float]:
        return self.alone.evaluate(state, x, y)

    def _group(self, state: State, local: LocalTraining, clients: Sequence[int], jobs: Jobs, into: Block) -> Iterable[Outcome]:
        if len(clients) == 1:
            return self.alone.train(state, local, clients, jobs, into)
        work, errors = made(jobs, clients)
        try:
            done = self.together(state, local, work, into) if work else {}
        except Exception as error:
            level, self._failed = (logging.INFO if self._failed else logging.WARNING), True
            logger.log(level, "%d clients trained one at a time, because together they fail: %r", len(work), error)
            return self.alone.train(state, local, clients, jobs, into)
        return [done[client] if client in done else Outcome(client, error=errors[client]) for client in clients]

    def together(self, state: State, local: LocalTraining, work: Mapping[int, Job], into: Block) -> dict[int, Outcome]:
        """Train all clients of ``work`` at once; the j-th fills row j of ``into``.

        Their float buffers are those all received: of a model that can be batched, training changes none.
        """
        self.alone.resident.load(state)
        self.module.train()
        batches = {client: job.batches for client, job in work.items()}
        order = sorted(work, key=lambda client: -len(batches[client]))
        x = torch.cat([work[client].x.to(self.device) for client in order])
        y = torch.cat([work[client].y.to(self.device) for client in order])
        seeds = torch.tensor([work[client].noise for client in order], device=self.device)
        starts = accumulate((len(work[client].y) for client in order), initial=0)
        steps = _steps(
            [[rows + start for rows in batches[client]] for client, start in zip(order, starts, strict=False)], self.device
        )
        base = into.base.to(self.device)
        begins = _stack([work[client].begin(state).params for client in order], self.device)
        stacked = [values.clone() for values in self.alone.resident.views(begins)]
        losses = torch.zeros(len(steps), len(order), device=self.device)
        vectors = {name: _stack([work[client].seen[name] for client in order], self.device) for name in work[order[0]].seen}
        memory: Memory = laid_out(self.alone.resident, local, vectors)
        for number, (rows, mask) in enumerate(steps):
            active = len(rows)
            params = [values[:active] for values in stacked]
            memory = {name: [values[:active] for values in kept] for name, kept in memory.items()}
            seen = {name: memory[name] for name in vectors}
            gradient = vmap(grad_and_value(partial(self._loss, local)), in_dims=(0, 0, 0, 0, None if mask is None else 0, 0))
            grads, loss = gradient(params, pass_keys(seeds[:active], number), x[rows], y[rows], mask, seen)
            with torch.no_grad():
                local.step(params, list(grads), memory)
            losses[number, :active] = loss
        places = {client: row for row, client in enumerate(work)}
        finite = self._store(state, base, stacked, into, torch.tensor([places[client] for client in order]))
        return {
            client: Outcome(client, work[client].examples, local.summary(seen[: len(batches[client])]), good)
            for client, seen, good in zip(order, losses.T.tolist(), finite, strict=True)
        }

    def _loss(
        self, local: LocalTraining, params: list[Tensor], key: Tensor, x: Tensor, y: Tensor, mask: Tensor | None, seen: Seen
    ) -> Tensor:
        """Return the loss of one client's batch; it is called for all of them at once."""
        if self.alone.noise:
            self.alone.noise.begin_pass(key)
        return local.objective(self._network, params, x, y, mask, seen)

    def _store(self, state: State, base: Tensor, stacked: list[Tensor], into: Block, places: Tensor) -> list[bool]:
        """Write what was added to ``base`` [d] into the rows ``places`` [k]; return of each whether it is finite."""
        k, places = len(places), places.to(into.updates.device)
        squares = torch.zeros(k, dtype=torch.float64, device=self.device)
        for slot, values in zip(self.alone.resident.slots, stacked, strict=True):
            change = values.view(k, slot.size).sub_(base[_columns(slot)])
            squares += torch.linalg.vector_norm(change, dim=1).square()
            into.updates[:, _columns(slot)].index_copy_(0, places, change.to(into.updates.device))
        into.float_buffers[:k] = state.float_buffers
        into.int_buffers[:k] = state.int_buffers
        return squares.isfinite().tolist()


def _steps(clients: Sequence[Sequence[Tensor]], device: torch.device) -> list[tuple[Tensor, Tensor | None]]:
    """Return of each step the rows [a, b] of those clients who still have a batch, and which of them count, [a, b].

    Args:
        clients: k lists of batches, each a list of row numbers; clients with more batches come first, all have one.
        device: where the result lies.

    Returns:
        A short batch is filled up with its first row, and 0 in the mask; the mask is None where none is short.
    """
    by_step = [[client[step] for client in clients if step < len(client)] for step in range(len(clients[0]))]
    table = pad_sequence([rows for step in by_step for rows in step], batch_first=True, padding_value=-1).to(device)
    counts = table >= 0
    table, ends = torch.where(counts, table, table[:, :1]), [0, *accumulate(map(len, by_step))]
    steps = list[tuple[Tensor, Tensor | None]]()
    for step, (start, end) in zip(by_step, pairwise(ends), strict=True):
        sizes = [len(rows) for rows in step]
        part = slice(start, end), slice(0, max(sizes))
        steps.append((table[part], counts[part].float() if min(sizes) < max(sizes) else None))
    return steps


def _stack(rows: Sequence[Tensor], device: torch.device) -> Tensor:
    """Return rows [d] as one tensor [k, d]; the same row k times is not copied."""
    if all(row is rows[0] for row in rows):
        return rows[0].to(device).expand(len(rows), -1)
    return torch.stack([row.to(device) for row in rows])


def _columns(slot: Slot) -> slice:
    return slice(slot.offset, slot.offset + slot.size)
