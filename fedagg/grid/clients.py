"""What Grids that have their clients at hand share: messages in, work, replies out."""

from __future__ import annotations

import copy
import traceback
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from flwr.app import ArrayRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.supercore.run import Run
from torch import Tensor

from fedagg import rng
from fedagg.clients import Clients
from fedagg.clients.app import arrays_of, evaluation_content, extras_of, received, server_round, training_contents
from fedagg.clients.choice import Engine
from fedagg.clients.clients import Evaluation
from fedagg.clients.memory import ClientMemory, Kept
from fedagg.clients.training import Poison, Training
from fedagg.errors import ClientError, ConfigError, FedaggError
from fedagg.grid.base import SimulationGrid, ensure_identity
from fedagg.params import Layout, State

NodeConfig = Mapping[str, Any] | Callable[[int], Mapping[str, Any]]
Vectors = Mapping[str, Tensor]


class ClientGrid(SimulationGrid):
    """A Grid that has its clients at hand: it takes Flower's messages apart, lets the clients work, and makes the replies.

    All four calls of Flower's Grid work; replies come by ascending id. ``Clients`` of ours are handed a whole cohort at once.
    Any other Flower ``ClientApp`` is called message by message, each client with a ``Context`` of its own whose ``state`` is
    kept, with ``partition-id`` and ``num-partitions`` in its node config, and with the global random generators seeded for
    (seed, round, client). A subclass says where the work is done.

    Args:
        clients: ``Clients``, or a Flower ``ClientApp``.
        num_clients: N; needed for a ``ClientApp``, known for ``Clients``.
        on_client_error: "raise" stops the run with client id, round and traceback; "drop" answers for the client with a
            Flower error reply, which is counted.
        seed: the run's seed; reaches a ``ClientApp`` through the global generators.
        node_config: further entries for the clients' node config, or a function of the client id that returns them.
        run_config: the clients' run config.
    """

    def __init__(
        self,
        clients: Clients | ClientApp,
        num_clients: int | None = None,
        *,
        on_client_error: Literal["raise", "drop"] = "raise",
        seed: int = 0,
        node_config: NodeConfig | None = None,
        run_config: Mapping[str, Any] | None = None,
    ) -> None:
        if on_client_error not in ("raise", "drop"):
            raise ConfigError(f"on_client_error must be raise or drop; got {on_client_error}")
        if isinstance(clients, Clients):
            if num_clients not in (None, len(clients.population)):
                raise ConfigError(f"the population has {len(clients.population)} clients; got num_clients={num_clients}")
            self._ids, self._population = clients.ids, len(clients.population)
        elif num_clients is None or num_clients < 1:
            raise ConfigError(f"a ClientApp needs num_clients >= 1; got {num_clients}")
        else:
            self._ids, self._population = range(num_clients), num_clients
        ensure_identity()
        self.clients, self.on_client_error, self.seed = clients, on_client_error, seed
        self._node_config, self._run_config = node_config, dict(run_config or {})
        self._contexts: dict[int, Context] = {}
        self._memory = ClientMemory(clients.local.keeps if isinstance(clients, Clients) else ())
        self.poisons: dict[int, Poison] = {}
        self._mailbox: dict[str, Message] = {}
        self._sent = 0
        self._errors: dict[int, ClientError] = {}
        self._run = Run.create_empty(run_id=0)

    @property
    def population(self) -> int:
        return self._population

    @property
    def client_ids(self) -> Sequence[int]:
        return self._ids

    @property
    def layout(self) -> Layout | None:
        return self.clients.layout if isinstance(self.clients, Clients) else None

    @property
    def engine(self) -> Engine | None:
        """What the clients are trained with; None for a ``ClientApp``."""
        return self.clients.engine if isinstance(self.clients, Clients) else None

    def open(self) -> None:
        """Get what the clients run on; the first message does it otherwise."""

    def close(self) -> None:
        """Give back what the clients run on."""

    @abstractmethod
    def fit(
        self, clients: Clients, state: State, client_ids: Sequence[int], round: int, kept: Kept, received: Vectors
    ) -> Training:
        """Train a cohort; see ``Clients.fit``."""

    @abstractmethod
    def evaluate(self, clients: Clients, state: State, client_ids: Sequence[int], round: int, kept: Kept) -> Evaluation:
        """Let a cohort evaluate; see ``Clients.evaluate``."""

    @abstractmethod
    def call(self, app: ClientApp, calls: Sequence[AppCall]) -> Iterable[Message | ClientError]:
        """Call a foreign app, once per message; yield its replies, or what it raised, in this order."""

    def begin_round(self, round: int) -> None:
        super().begin_round(round)
        self._errors = {}

    def round_info(self) -> dict[str, float]:
        return {"client_errors": float(len(self._errors))}

    def state_dict(self) -> dict[str, Any]:
        contexts = {client: context.state for client, context in self._contexts.items()}
        return {"contexts": contexts, "memory": self._memory.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for client, kept in state["contexts"].items():
            self._context(client).state = kept
        self._memory.load_state_dict(state["memory"])

    def poison(self, attacks: Mapping[int, Poison]) -> None:
        if attacks and not isinstance(self.clients, Clients):
            raise FedaggError("a ClientApp loads its own data, out of reach of an attack on the data; use one on updates")
        self.poisons = dict(attacks)

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Sequence[int]:
        return self._ids

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run the clients now and keep their replies until they are pulled."""
        messages = self._enter_round(messages)
        for message in messages:
            self._sent += 1
            message.metadata.__dict__["_message_id"] = str(self._sent)
            if message.metadata.dst_node_id not in self._ids:
                raise FedaggError(f"no client {message.metadata.dst_node_id}; clients are {self._ids[0]} to {self._ids[-1]}")
        for reply in self._answer(sorted(messages, key=lambda message: message.metadata.dst_node_id)):
            reply.metadata.__dict__["_message_id"] = f"reply-{reply.metadata.reply_to_message_id}"
            self._mailbox[reply.metadata.reply_to_message_id] = reply
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to these messages, by ascending client id; each reply can be pulled once."""
        replies = [self._mailbox.pop(message_id) for message_id in message_ids if message_id in self._mailbox]
        return sorted(replies, key=lambda reply: reply.metadata.src_node_id)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Run the clients and return their replies; nothing is waited for, so ``timeout`` has no effect."""
        return self.pull_messages(self.push_messages(messages))

    def _answer(self, messages: list[Message]) -> list[Message]:
        if isinstance(self.clients, Clients):
            return self._answer_together(self.clients, messages)
        calls = [
            AppCall(self.seed, server_round(message, default=self.round), message, self._context(message.metadata.dst_node_id))
            for message in messages
        ]
        return [
            self._failed(message, answer) if isinstance(answer, ClientError) else answer
            for message, answer in zip(messages, self.call(self.clients, calls), strict=True)
        ]

    def _answer_together(self, clients: Clients, messages: list[Message]) -> list[Message]:
        replies: list[Message] = []
        for group in _same_request(messages):
            stage = group[0].metadata.message_type
            round = server_round(group[0], default=self.round)
            state = received(clients, group[0])
            ids = [message.metadata.dst_node_id for message in group]
            by_id = dict(zip(ids, group, strict=True))
            local = clients.local
            first = local.first(state) if local.keeps else {}
            if stage == "train":
                done = self.fit(clients, state, ids, round, self._memory.take(ids, first), extras_of(group[0]))
                if done.kept:
                    self._memory.put(done.client_ids, done.kept)
                contents = training_contents(clients, done)
                answered, errors = done.client_ids, done.errors
            elif stage == "evaluate":
                kept = self._memory.take(ids, first) if local.personalises else {}
                judged = self.evaluate(clients, state, ids, round, kept)
                contents = [evaluation_content(*sent) for sent in zip(judged.num_examples, judged.metrics, strict=True)]
                answered, errors = judged.client_ids, judged.errors
            else:
                raise FedaggError(f"these clients train and evaluate; got a message of type {stage}")
            replies += [Message(content, reply_to=by_id[client]) for client, content in zip(answered, contents, strict=True)]
            replies += [self._failed(by_id[client], error) for client, error in errors.items()]
        return replies

    def _context(self, client: int) -> Context:
        if client not in self._contexts:
            extra = self._node_config(client) if callable(self._node_config) else (self._node_config or {})
            node_config = {"partition-id": client, "num-partitions": self._population, **extra}
            self._contexts[client] = Context(
                run_id=0, node_id=client, node_config=node_config, state=RecordDict(), run_config=dict(self._run_config)
            )
        return self._contexts[client]

    def _failed(self, message: Message, error: ClientError) -> Message:
        if self.on_client_error == "raise":
            raise error
        self._errors[error.client_id] = error
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, str(error)), reply_to=message)


@dataclass
class AppCall:
    """One message for one client of a foreign app; calling it lets the client work and keeps its state in ``context``."""

    seed: int
    round: int
    message: Message
    context: Context

    def __call__(self, app: ClientApp) -> Message | ClientError:
        """Return the reply, or what the app raised."""
        client, stage = self.message.metadata.dst_node_id, self.message.metadata.message_type
        # Flower's engine serializes, so a client owns what it receives; strategies put one object into all messages.
        received = copy.copy(self.message)
        received.content = _own_copy(self.message.content)
        try:
            with rng.seeded_globals(self.seed, f"client {stage}", self.round, client):
                reply = app(received, self.context)
            if reply.has_content():
                reply.content = _own_copy(reply.content)
        except Exception:
            return ClientError(client, self.round, stage, traceback.format_exc())
        return reply


def _same_request(messages: list[Message]) -> Iterable[list[Message]]:
    """Group messages that ask the same of their clients: one type, one round, one model (strategies share the record)."""
    groups: dict[tuple[Any, ...], list[Message]] = {}
    for message in messages:
        key = (message.metadata.message_type, server_round(message, default=-1), id(arrays_of(message)))
        groups.setdefault(key, []).append(message)
    return groups.values()


def _own_copy(content: RecordDict) -> RecordDict:
    copied = RecordDict()
    for name, record in content.items():
        copied[name] = _plain(record) if isinstance(record, ArrayRecord) else record.copy()
    return copied


def _plain(arrays: ArrayRecord) -> ArrayRecord:
    plain = ArrayRecord()
    for name, array in arrays.items():
        plain[name] = array
    return plain
