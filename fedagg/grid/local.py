"""Clients in this process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flwr.app import Message
from flwr.clientapp import ClientApp

from fedagg.clients import Clients, Evaluation, Training
from fedagg.clients.memory import Kept
from fedagg.errors import ClientError
from fedagg.grid.clients import AppCall, ClientGrid, Vectors
from fedagg.params import State


class LocalGrid(ClientGrid):
    """Run clients in this process; see ``ClientGrid`` for the arguments."""

    def __str__(self) -> str:
        return "this process"

    def fit(
        self, clients: Clients, state: State, client_ids: Sequence[int], round: int, kept: Kept, received: Vectors
    ) -> Training:
        return clients.fit(state, client_ids, round, self.poisons, kept, received)

    def evaluate(self, clients: Clients, state: State, client_ids: Sequence[int], round: int, kept: Kept) -> Evaluation:
        return clients.evaluate(state, client_ids, round, kept)

    def call(self, app: ClientApp, calls: Sequence[AppCall]) -> Iterable[Message | ClientError]:
        return (call(app) for call in calls)
