"""What strategies share that remember the last update of every client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from fedagg import Cohort, ConfigError, Strategy


class Remembers(Strategy):
    """Base of a strategy with one vector [d] for each of the N clients.

    Args:
        memory_gb: refuse a memory of more gigabytes (10^9 bytes) than this in the first round.
        engine: what ``Strategy`` takes; no rule and no weighting, and only pre-aggregators whose rows stand for clients.
    """

    def __init__(self, memory_gb: float = 4.0, **engine: Any) -> None:
        super().__init__(**engine)
        name = type(self).__name__
        if not memory_gb > 0:
            raise ConfigError(f"{name} needs memory_gb > 0, gigabytes; got memory_gb={memory_gb}")
        for part in ("rule", "weighting"):
            if engine.get(part) is not None:
                raise ConfigError(f"{name} averages its memory, so {part}={engine[part]} would have no effect; leave it out")
        if mixing := ", ".join(str(part) for part in self.pre_aggregators if not part.keeps_clients):
            raise ConfigError(f"{name} remembers clients, but {mixing} leaves no row that stands for one; leave it out")
        self.memory_gb = memory_gb
        self._places: dict[int, int] = {}  # client id -> row, in the order in which they first took part
        self._memory: Tensor | None = None

    def __repr__(self) -> str:
        settings = "".join(f"{key}={value!r}, " for key, value in self._settings().items())
        return (
            f"{type(self).__name__}({settings}pre_aggregators={list(self.pre_aggregators)!r}, "
            f"server_optimizer={self.server_optimizer!r}, cohort={self.cohort}, evaluate_every={self.evaluate_every}, "
            f"seed={self.seed})"
        )

    def _settings(self) -> dict[str, Any]:
        return {"memory_gb": self.memory_gb}

    def configure_train(self, server_round: int, *args: Any, **kwargs: Any) -> Iterable[Any]:
        """As always; raises ``ConfigError`` where the memory would exceed its limit."""
        messages = super().configure_train(server_round, *args, **kwargs)
        assert self._state is not None
        assert self._population is not None
        params, n = self._state.params, self._population
        needed = n * params.nbytes / 1e9
        if needed > self.memory_gb:
            raise ConfigError(
                f"{type(self).__name__} remembers an update for each of {n:,} clients: {len(params):,} parameters each make "
                f"{needed:.3g} GB, and strategy.memory_gb={self.memory_gb:g} allows less. Raise it, lower population, or "
                "take strategy=fedau, which keeps a few numbers per client"
            )
        return messages

    def _remembered(self, cohort: Cohort) -> tuple[Tensor, Tensor, Tensor]:
        """Return the memory [N, d], the rows [n] of who takes part, and their updates [n, d], pre-aggregated.

        A client that left for good is still remembered, so N never falls.
        """
        name = type(self).__name__
        if cohort.population is None:
            raise ValueError(f"{name} needs to know how many clients there are in all; cohort.population is None")
        updates = cohort.updates
        for pre_aggregator in self.pre_aggregators:
            updates = pre_aggregator(updates)
        known = 0 if self._memory is None else len(self._memory)
        if self._memory is not None and self._memory.shape[1:] != updates.shape[1:]:
            raise ValueError(f"{name} remembers {self._memory.shape[1]} coordinates, the updates have {updates.shape[1]}")
        for client in cohort.client_ids:
            self._places.setdefault(client, len(self._places))
        rows = max(cohort.population, len(self._places), known)
        if self._memory is None or rows > known:
            self._memory = _grown(updates[:0] if self._memory is None else self._memory, rows)
        return self._memory, torch.tensor([self._places[client] for client in cohort.client_ids]), updates

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the parts and what is remembered of each client, copied."""
        state = {**super().state_dict(), "clients": list(self._places)}
        if self._memory is not None:
            state |= {"rows": len(self._memory), "memory": self._memory[: len(self._places)].clone()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a copy of ``state``."""
        super().load_state_dict(state)
        self._places = {client: place for place, client in enumerate(state["clients"])}
        self._memory = _grown(state["memory"], state["rows"]) if "memory" in state else None


def _grown(memory: Tensor, rows: int) -> Tensor:
    """Return a copy with zero rows appended, [rows, d]."""
    grown = memory.new_zeros(rows, memory.shape[1])
    grown[: len(memory)] = memory
    return grown
