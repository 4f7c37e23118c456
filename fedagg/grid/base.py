"""What our Grids share: Flower's four calls, the number of the round, and what they report about it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedagg.clients.app import server_round
from fedagg.clients.training import Poison
from fedagg.errors import FedaggError
from fedagg.params import Layout

SERVER_NODE_ID = 1 << 62  # clients are nodes 0..N-1; the server must be none of them


class SimulationGrid(Grid):
    """A Flower Grid that knows more about its clients than Flower asks: how many there are, and which round it is."""

    round: int = 0

    @property
    @abstractmethod
    def client_ids(self) -> Sequence[int]:
        """Clients that can ever be asked: those that hold data, ascending. A client's id is its node id."""

    @abstractmethod
    def get_node_ids(self) -> Sequence[int]:
        """Clients that can be asked now, ascending."""

    @property
    @abstractmethod
    def population(self) -> int:
        """N, how many clients there are, with data or without, reachable or not."""

    @property
    @abstractmethod
    def layout(self) -> Layout | None:
        """How the clients' model is laid out; None for clients whose model is not known."""

    @property
    def byzantine(self) -> frozenset[int]:
        """Ids of the Byzantine clients; empty where there is no adversary."""
        return frozenset()

    def begin_round(self, round: int) -> None:
        """Tell the Grid that a round begins; strategies ask for node ids before the first message names the round."""
        self.round = round

    def round_info(self) -> dict[str, float]:
        """Return what happened in this round, for the metrics: numbers by name."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold of this Grid and those below it, in tensors, records and plain containers."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``."""

    @abstractmethod
    def poison(self, attacks: Mapping[int, Poison]) -> None:
        """Let these clients train on poisoned data from now on: client id -> ``poison(x, y)``.

        Raises:
            FedaggError: when the clients load their own data, out of reach.
        """

    def _enter_round(self, messages: Iterable[Message]) -> list[Message]:
        """Take the number of the round from the messages, in case nobody announced it."""
        messages = list(messages)
        if messages and messages[0].has_content():
            self.round = server_round(messages[0], default=self.round)
        return messages


class _PassingGrid(SimulationGrid):
    """Passes Flower's calls on to another Grid."""

    grid: Grid

    def set_run(self, run: Run) -> None:
        self.grid.set_run(run)

    @property
    def run(self) -> Run:
        return self.grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return self.grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self.grid.push_messages(self._enter_round(messages))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self.grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self.grid.send_and_receive(self._enter_round(messages), timeout=timeout)


class OutsideGrid(_PassingGrid):
    """Somebody else's Grid, Flower's own for one: all that is known of the clients are the node ids it lists."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    @property
    def client_ids(self) -> Sequence[int]:
        return self.get_node_ids()

    def get_node_ids(self) -> Sequence[int]:
        return sorted(self.grid.get_node_ids())

    @property
    def population(self) -> int:
        return len(self.client_ids)

    @property
    def layout(self) -> None:
        return None

    def poison(self, attacks: Mapping[int, Poison]) -> None:
        if attacks:
            raise FedaggError(f"the data of clients behind a {type(self.grid).__name__} are out of reach of an attack")


class WorldGrid(_PassingGrid):
    """A Grid around a Grid. Everything is passed on; a subclass changes what the world does to the messages."""

    grid: SimulationGrid

    def __init__(self, grid: Grid) -> None:
        self.grid = known(grid)

    @property
    def client_ids(self) -> Sequence[int]:
        return self.grid.client_ids

    def get_node_ids(self) -> Sequence[int]:
        return self.grid.get_node_ids()

    @property
    def population(self) -> int:
        return self.grid.population

    @property
    def layout(self) -> Layout | None:
        return self.grid.layout

    @property
    def byzantine(self) -> frozenset[int]:
        return self.grid.byzantine

    def begin_round(self, round: int) -> None:
        super().begin_round(round)
        self.grid.begin_round(round)

    def round_info(self) -> dict[str, float]:
        return self.grid.round_info()

    def state_dict(self) -> dict[str, Any]:
        return {"grid": self.grid.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.grid.load_state_dict(state["grid"])

    def poison(self, attacks: Mapping[int, Poison]) -> None:
        self.grid.poison(attacks)


def layers(grid: Grid) -> Iterator[Grid]:
    """Yield a Grid, the Grid it is wrapped around, and so on down to where the clients are."""
    yield grid
    while isinstance(grid, _PassingGrid):
        grid = grid.grid
        yield grid


def known(grid: Grid) -> SimulationGrid:
    """Return ``grid`` itself if it is one of ours, else what can be known of it."""
    return grid if isinstance(grid, SimulationGrid) else OutsideGrid(grid)


def ensure_identity() -> None:
    """Give this process the identity that Flower's ``Message`` asks for, unless Flower has given it one."""
    identity: Any = TaskIdentity
    for name, value in (("task_id", 0), ("run_id", 0), ("node_id", SERVER_NODE_ID)):
        try:
            getattr(identity, name)
        except RuntimeError:
            setattr(identity, name, value)
