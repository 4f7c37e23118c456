"""What our Grids share: Flower's four calls, the number of the round, and what they report about it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedagg.clients.app import server_round
from fedagg.clients.clients import Poison
from fedagg.errors import FedaggError
from fedagg.params import Layout

SERVER_NODE_ID = 1 << 62  # clients are nodes 0..N-1; the server must be none of them


class SimulationGrid(Grid):
    """A Flower Grid whose node ids are client ids, 0..N-1, and which knows the number of the round."""

    round: int = 0

    @property
    @abstractmethod
    def population(self) -> int:
        """N, how many clients there are, reachable or not."""

    @property
    @abstractmethod
    def client_ids(self) -> list[int]:
        """Clients that can ever be asked: those that hold data, ascending."""

    @property
    @abstractmethod
    def layout(self) -> Layout | None:
        """How the clients' model is laid out; None for clients whose model is not known."""

    def begin_round(self, round: int) -> None:
        """Tell the Grid that a round begins; strategies ask for node ids before the first message names the round."""
        self.round = round

    def round_info(self) -> dict[str, float]:
        """Return what happened in this round, for the metrics: numbers by name."""
        return {}

    def poison(self, attacks: Mapping[int, Poison]) -> None:
        """Let these clients train on poisoned data from now on: client id -> ``poison(x, y)``.

        Raises:
            FedaggError: when the clients load their own data, out of reach.
        """
        raise FedaggError(f"{type(self).__name__} cannot reach the data of its clients")

    def _enter_round(self, messages: Iterable[Message]) -> list[Message]:
        """Take the number of the round from the messages, in case nobody announced it."""
        messages = list(messages)
        if messages and messages[0].has_content():
            self.round = server_round(messages[0], default=self.round)
        return messages


class WorldGrid(SimulationGrid):
    """A Grid around a Grid. Everything is passed on; a subclass changes what the world does to the messages."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    @property
    def population(self) -> int:
        return self.grid.population if isinstance(self.grid, SimulationGrid) else len(list(self.grid.get_node_ids()))

    @property
    def client_ids(self) -> list[int]:
        return self.grid.client_ids if isinstance(self.grid, SimulationGrid) else sorted(self.grid.get_node_ids())

    @property
    def layout(self) -> Layout | None:
        return self.grid.layout if isinstance(self.grid, SimulationGrid) else None

    @property
    def byzantine(self) -> frozenset[int]:
        """Ids of the Byzantine clients, where an ``Adversary`` is among the Grids below."""
        below: frozenset[int] = getattr(self.grid, "byzantine", frozenset[int]())
        return below

    def begin_round(self, round: int) -> None:
        super().begin_round(round)
        if isinstance(self.grid, SimulationGrid):
            self.grid.begin_round(round)

    def round_info(self) -> dict[str, float]:
        return self.grid.round_info() if isinstance(self.grid, SimulationGrid) else {}

    def poison(self, attacks: Mapping[int, Poison]) -> None:
        if not isinstance(self.grid, SimulationGrid):
            raise FedaggError(f"{type(self.grid).__name__} cannot reach the data of its clients")
        self.grid.poison(attacks)

    def set_run(self, run: Run) -> None:
        self.grid.set_run(run)

    @property
    def run(self) -> Run:
        return self.grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return self.grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        return self.grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self.grid.push_messages(self._enter_round(messages))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self.grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self.grid.send_and_receive(self._enter_round(messages), timeout=timeout)


def ensure_identity() -> None:
    """Give this process the identity that Flower's ``Message`` asks for, unless Flower has given it one."""
    identity: Any = TaskIdentity
    for name, value in (("task_id", 0), ("run_id", 0), ("node_id", SERVER_NODE_ID)):
        try:
            getattr(identity, name)
        except RuntimeError:
            setattr(identity, name, value)
