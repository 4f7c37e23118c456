"""Each client as a real Flower ``ClientApp``, and how clients and Grids read and write Flower messages."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.app.message.typeddict import TypedDict
from flwr.clientapp import ClientApp

from fedagg.clients.clients import Clients
from fedagg.clients.memory import Kept
from fedagg.clients.training import Reports, Training
from fedagg.errors import ClientError, ConfigError
from fedagg.params import ModelRecord, State, TensorArray
from fedagg.rankings import NOT_RANKED, is_permutation

R = TypeVar("R", ArrayRecord, ConfigRecord, MetricRecord)
EXTRAS = "extras"  # the record of vectors that travel beside the model
NOT_FINITE = "its model is not finite"


def client_app(clients: Clients) -> ClientApp:
    """Return the Flower app that any of these clients is; it reads its id from ``partition-id`` in its node's config.

    It runs wherever Flower runs apps, and trains exactly as the same client does in a Grid of ours.
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client, round = _client_id(context), server_round(message, default=0)
        state = received(clients, message)
        training = clients.fit(state, [client], round, kept=_remembered(context), received=extras_of(message))
        _reraise(training.errors)
        if training.kept:
            rows = {name: Array(values[0].cpu().numpy()) for name, values in training.kept.items()}
            context.state["kept"] = ArrayRecord(rows)
        content = training_contents(clients, training)[0]
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        client, round = _client_id(context), server_round(message, default=0)
        evaluation = clients.evaluate(received(clients, message), [client], round, _remembered(context))
        _reraise(evaluation.errors)
        if not evaluation.client_ids:
            raise ConfigError(f"client {client} holds nothing out to evaluate on; set evaluation.holdout above 0")
        return Message(evaluation_content(evaluation.num_examples[0], evaluation.metrics[0]), reply_to=message)

    return app


class ReplyContent(RecordDict):
    """A reply's records, whose views by kind go when nobody looks any more.

    Flower's own hold themselves, and with them the matrix of a round, until the garbage collector comes by.
    """

    @property
    def array_records(self) -> TypedDict[str, ArrayRecord]:
        """The models among the records."""
        return _let_go(super().array_records)

    @property
    def metric_records(self) -> TypedDict[str, MetricRecord]:
        """The metrics among the records."""
        return _let_go(super().metric_records)

    @property
    def config_records(self) -> TypedDict[str, ConfigRecord]:
        """The settings among the records."""
        return _let_go(super().config_records)

    def deflate(self) -> bytes:
        """Travel as a plain ``RecordDict``."""
        return RecordDict(dict(self)).deflate()

    def __reduce__(self) -> tuple[type[RecordDict], tuple[dict[str, Any]]]:
        return RecordDict, (dict(self),)


def _let_go(view: TypedDict[str, R]) -> TypedDict[str, R]:
    view.__dict__["_check_value_fn"] = partial(type(view).check_value, weakref.proxy(view))  # type: ignore[attr-defined]
    return view


def training_contents(clients: Clients, done: Training) -> list[RecordDict]:
    """Return what each client of a cohort sends after training, under the keys Flower's own strategies expect."""
    layout, extras, ranks = clients.layout, done.extras, clients.local.payload == "rankings"

    def arrays(i: int) -> ArrayRecord:
        if ranks:
            return rankings_record(extras["rankings"][i], layout.sizes())
        return layout.record(done.block.sent(i, done.finite[i]))

    contents: list[RecordDict] = [
        ReplyContent(
            {
                "arrays": arrays(i),
                "metrics": metric_record({"num-examples": done.num_examples[i], **done.metrics[i]}),
            }
        )
        for i in range(len(done.client_ids))
    ]
    for i, content in enumerate(contents) if extras and not ranks else ():
        content[EXTRAS] = extras_record({name: rows[i] for name, rows in extras.items()})
    return contents


def evaluation_content(num_examples: int, metrics: Mapping[str, float]) -> RecordDict:
    """Return what a client sends after evaluating."""
    return RecordDict({"metrics": metric_record({"num-examples": num_examples, **metrics})})


def metric_record(values: Mapping[str, Any] | Reports) -> MetricRecord:
    """Return Flower's record of these numbers, or lists of numbers."""
    record = MetricRecord()
    for name, value in values.items():
        record[name] = value
    return record


def records_of(message: Message, kind: type[R]) -> list[R]:
    """Return a message's records of one kind.

    Flower's own ``content.array_records`` builds a reference cycle that keeps the message, and with it the matrix of updates,
    until the garbage collector comes by.
    """
    return [record for record in message.content.values() if isinstance(record, kind)]


def bytes_of_arrays(messages: Iterable[Message]) -> int:
    """Return how many bytes the arrays in these messages hold: what is sent, without names, metrics and framing."""
    sizes: dict[int, int] = {}  # strategies put one record into all messages
    total = 0
    for message in messages:
        for record in records_of(message, ArrayRecord) if message.has_content() else ():
            if id(record) not in sizes:
                sizes[id(record)] = _bytes(record)
            total += sizes[id(record)]
    return total


def _bytes(record: ArrayRecord) -> int:
    if isinstance(record, ModelRecord) and record.state is not None:
        return record.layout.nbytes
    return sum(math.prod(array.shape) * np.dtype(array.dtype).itemsize for array in record.values())


def extras_record(vectors: Mapping[str, torch.Tensor]) -> ArrayRecord:
    """Return Flower's record of vectors [L], without a copy."""
    return ArrayRecord({name: TensorArray(vector, vector.dtype) for name, vector in vectors.items()})


def extras_of(message: Message) -> dict[str, torch.Tensor]:
    """Return the vectors [L] that travel beside the model, by name; to be read only."""
    record = message.content.get(EXTRAS)
    if not isinstance(record, ArrayRecord):
        return {}
    return {
        name: array.tensor if isinstance(array, TensorArray) else torch.from_numpy(array.numpy().copy())
        for name, array in record.items()
    }


def rankings_record(rankings: torch.Tensor, sizes: Mapping[str, int]) -> ArrayRecord:
    """Return ``rankings`` [d] as they travel: for each layer, by the name of its parameters, an array of its own, int32.

    Args:
        rankings: one after another.
        sizes: name of each layer's parameters -> how many there are.
    """
    return extras_record(dict(zip(sizes, torch.split(rankings.int(), list(sizes.values())), strict=True)))


def rankings_of(arrays: ArrayRecord, sizes: Mapping[str, int]) -> torch.Tensor:
    """Return the rankings of all layers [d] in a record, int32.

    Raises:
        ValueError: naming the array that is missing, unknown, or no permutation; ``NOT_FINITE`` where nothing could be ranked.
    """
    if set(sizes) != set(arrays):
        raise ValueError(
            f"missing arrays {sorted(set(sizes) - set(arrays))}, unknown arrays {sorted(set(arrays) - set(sizes))}"
        )
    parts = []
    for name, size in sizes.items():
        array = arrays[name]
        ranking = array.tensor if isinstance(array, TensorArray) else torch.from_numpy(array.numpy().copy())
        if ranking.shape == (size,) and (ranking == NOT_RANKED).all():
            raise ValueError(NOT_FINITE)
        if ranking.shape != (size,) or not is_permutation(ranking):
            raise ValueError(f"array {name} is no permutation of 0 .. {size - 1}")
        parts.append(ranking.int())
    return torch.cat(parts)


def ranked_sizes(arrays: ArrayRecord) -> dict[str, int]:
    """Return the sizes of the layers whose rankings a record holds; of a model, which holds floats, nothing."""
    if isinstance(arrays, ModelRecord) or any(not array.dtype.startswith("int") for array in arrays.values()):
        return {}
    return {name: math.prod(array.shape) for name, array in arrays.items()}


def received(clients: Clients, message: Message) -> State:
    """Return the model that clients are sent, which they may have to rebuild from rankings."""
    if clients.local.payload == "rankings":
        return clients.local.rebuild(rankings_of(arrays_of(message), clients.layout.sizes()))
    return clients.layout.read(arrays_of(message))


def arrays_of(message: Message) -> ArrayRecord:
    """Return the one ``ArrayRecord`` of a message that is a model, or rankings in its place.

    Raises:
        ValueError: when there is none, or more than one.
    """
    records = [record for name, record in message.content.items() if isinstance(record, ArrayRecord) and name != EXTRAS]
    if len(records) != 1:
        raise ValueError(f"a message must carry exactly one ArrayRecord; got {len(records)}")
    return records[0]


def server_round(message: Message, default: int) -> int:
    """Return the number of the round as the strategy wrote it into the message, under Flower's key ``server-round``."""
    for record in records_of(message, ConfigRecord):
        number = record.get("server-round")
        if isinstance(number, int):
            return number
    return default


def _remembered(context: Context) -> Kept | None:
    """Return what a client has kept in its node's state, if it has taken part before."""
    record = context.state.get("kept")
    if not isinstance(record, ArrayRecord):
        return None
    return {name: torch.from_numpy(array.numpy().copy())[None] for name, array in record.items()}


def _client_id(context: Context) -> int:
    return int(context.node_config.get("partition-id", context.node_id))


def _reraise(errors: Mapping[int, ClientError]) -> None:
    for error in errors.values():
        raise error
