"""Who can be reached: a Grid around a Grid that hides clients. The patterns stand in ``participation`` and ``trace``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from flwr.app import Message
from flwr.serverapp import Grid

from fedagg.compact import Ids
from fedagg.errors import ConfigError, FedaggError
from fedagg.grid.base import WorldGrid
from fedagg.grid.participation import (
    Bernoulli,
    ClassBiased,
    Cyclic,
    Markov,
    Participation,
    class_biased_probabilities,
    cyclic_lengths,
    markov_transition,
)
from fedagg.grid.trace import Trace

__all__ = [
    "Availability",
    "Bernoulli",
    "ClassBiased",
    "Cyclic",
    "Markov",
    "Participation",
    "Trace",
    "class_biased_probabilities",
    "cyclic_lengths",
    "markov_transition",
]

PATIENCE = 8  # a strategy that samples asks for node ids a few times a round; one that waits asks for ever


class Availability(WorldGrid):
    """Let the server reach only the clients that are available in a round, for training.

    Where a strategy of ours lets clients evaluate, all of them do: that is the simulation's measurement, on which nothing that
    the server does depends, and it should not depend on who happens to be there.

    Args:
        grid: where the clients run.
        participation: who is available when.
        unreachable: "hide" leaves them out of the node ids, so that a strategy of ours does not ask them. "silent" lists them,
            but they never answer: for strategies that wait for as many nodes as they want to sample, as Flower's own do.
    """

    def __init__(self, grid: Grid, participation: Participation, *, unreachable: Literal["hide", "silent"] = "hide") -> None:
        super().__init__(grid)
        if unreachable not in ("hide", "silent"):
            raise ConfigError(f"unreachable must be hide or silent; got {unreachable}")
        self.participation, self.unreachable = participation, unreachable
        self._asked = 0
        self._known: tuple[int, Ids] | None = None  # the round, and who can be reached in it

    def begin_round(self, round: int) -> None:
        super().begin_round(round)
        self._asked = 0

    def round_info(self) -> dict[str, float]:
        return {**super().round_info(), "reachable": float(len(self._reachable()))}

    def state_dict(self) -> dict[str, Any]:
        state = self.participation.state_dict() if hasattr(self.participation, "state_dict") else None
        return {**super().state_dict(), "participation": state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        if hasattr(self.participation, "load_state_dict"):
            self.participation.load_state_dict(state["participation"])

    def get_node_ids(self) -> Sequence[int]:
        """Return the ids a strategy may ask.

        Raises:
            FedaggError: when a strategy keeps asking without sending anything, which means that it waits for more clients
                than can be reached, and would wait for ever.
        """
        if self.unreachable == "silent":
            return self.grid.get_node_ids()
        self._asked += 1
        reachable = self._reachable()
        if self._asked > PATIENCE:
            raise FedaggError(
                f"round {self.round}: the strategy waits for more clients than the {len(reachable)} of {self.population} that "
                "can be reached; lower what it asks for, or use Availability(..., unreachable='silent')"
            )
        return reachable

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self.grid.push_messages(self._reached(messages))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self.grid.send_and_receive(self._reached(messages), timeout=timeout)

    def _reached(self, messages: Iterable[Message]) -> list[Message]:
        messages = self._enter_round(messages)
        self._asked = 0
        reachable = self._reachable()
        measured = ("evaluate",) if self.unreachable == "hide" else ()
        return [
            message
            for message in messages
            if message.metadata.message_type in measured or message.metadata.dst_node_id in reachable
        ]

    def _reachable(self) -> Ids:
        if self._known is None or self._known[0] != self.round:
            available = self.participation.available(self.round)
            if len(available) != self.population:
                raise ConfigError(f"participation is for {len(available)} clients; the population has {self.population}")
            self._known = self.round, Ids.of(self.grid.get_node_ids()).where(available.bool().numpy())
        return self._known[1]
