"""Sanitize: which replies a strategy that believes everything is spared, and how that is counted."""

import math
import re
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid
from torch import nn

from fedagg import Clients, Faults, LocalGrid, Population
from fedagg.data import IID, Dataset
from fedagg.grid import Sanitize, WorldGrid
from fedagg.params import Layout

Ask = Callable[..., list[Message]]
Change = Callable[[Message], None]


class Tampering(WorldGrid):
    """Changes the reply of client 1."""

    def __init__(self, grid: Grid, change: Change) -> None:
        super().__init__(grid)
        self.change = change

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._tamper(super().pull_messages(message_ids))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self._tamper(super().send_and_receive(messages, timeout=timeout))

    def _tamper(self, replies: Iterable[Message]) -> Iterable[Message]:
        for reply in replies:
            if reply.metadata.src_node_id == 1:
                self.change(reply)
            yield reply


def put(name: str, value: object) -> Change:
    def change(reply: Message) -> None:
        arrays = reply.content["arrays"]
        first = next(iter(arrays))
        key = name.format(first=first)
        shape = arrays[key if key in arrays else first].shape
        arrays[key] = Array(np.broadcast_to(np.asarray(value), shape).copy())

    return change


def reshape(reply: Message) -> None:
    arrays = reply.content["arrays"]
    name = next(iter(arrays))
    arrays[name] = Array(arrays[name].numpy().reshape(-1)[:1])


def remove(reply: Message) -> None:
    del reply.content["arrays"][next(iter(reply.content["arrays"]))]


def remove_all(reply: Message) -> None:
    del reply.content["arrays"]


def add_record(reply: Message) -> None:
    reply.content["more"] = reply.content["arrays"]


BAD: dict[str, tuple[Change, str]] = {
    "an array too many": (put("extra", 0.0), r"unknown arrays \['extra'\]"),
    "an array missing": (remove, "missing arrays"),
    "another shape": (reshape, r"must have shape .*got \[1\]"),
    "text": (put("{first}", "text"), "must hold numbers"),
    "NaN": (put("{first}", math.nan), "its model is not finite"),
    "infinity": (put("{first}", math.inf), "its model is not finite"),
    "a norm that overflows": (put("{first}", np.float32(1e30)), "its model is not finite"),
    "no arrays": (remove_all, "exactly one ArrayRecord; got 0"),
    "two records": (add_record, "exactly one ArrayRecord; got 2"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_reply_that_does_not_fit_is_dropped_counted_and_named(
    clients: Clients, ask: Ask, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    change, reason = BAD[case]
    grid = Sanitize(Tampering(LocalGrid(clients), change))
    grid.begin_round(1)
    with caplog.at_level("INFO", logger="fedagg"):
        replies = list(grid.send_and_receive(ask([0, 1, 2])))
    assert [reply.metadata.src_node_id for reply in replies] == [0, 2]
    assert grid.round_info()["sanitized"] == 1
    (record,) = [record for record in caplog.records if record.name == "fedagg.grid.sanitize"]
    assert record.getMessage().startswith("round 1: dropped a reply of client 1: ")
    assert re.search(reason, record.getMessage())
    grid.begin_round(2)
    assert grid.round_info()["sanitized"] == 0


def test_sound_replies_pass_as_they_are(clients: Clients, ask: Ask) -> None:
    """Other floats of the same shape are an update like any other, in double precision too."""
    for change in (lambda reply: None, put("{first}", 0.25), put("{first}", np.float64(0.25))):
        inner = Tampering(LocalGrid(clients), change)
        sent = list(inner.send_and_receive(ask([0, 1, 2])))
        grid = Sanitize(inner)
        passed = list(grid.send_and_receive(ask([0, 1, 2])))
        for a, b in zip(sent, passed, strict=True):
            assert {name: array.data for name, array in a.content["arrays"].items()} == {
                name: array.data for name, array in b.content["arrays"].items()
            }
        assert grid.round_info()["sanitized"] == 0


def test_buffers_must_be_finite_too(dataset: Dataset) -> None:
    """A running mean of infinity would be in the model after one average."""
    population = Population.split(dataset, IID(), num_clients=3, seed=0)
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))
    content = Layout.of_model(model).record(Layout.of_model(model).gather(model))
    grid = Sanitize(Tampering(LocalGrid(Clients(population, model)), put("1.running_mean", math.inf)))
    record = RecordDict({"arrays": content, "config": ConfigRecord({"server-round": 1})})
    asked = [Message(record, dst_node_id=client, message_type="train") for client in range(3)]
    assert [reply.metadata.src_node_id for reply in grid.send_and_receive(asked)] == [0, 2]


def test_a_reply_passes_once(clients: Clients, ask: Ask) -> None:
    grid = Sanitize(Faults(LocalGrid(clients), duplicate=1.0))
    pushed = list(grid.push_messages(ask([2, 0, 1])))
    assert [reply.metadata.src_node_id for reply in grid.pull_messages(pushed)] == [0, 1, 2]
    assert grid.round_info()["sanitized"] == 3


def test_the_sound_one_of_two_passes(clients: Clients, ask: Ask) -> None:
    """The first copy is broken: its twin is no repetition."""
    broken = iter([True, False])
    twice = Faults(LocalGrid(clients), duplicate=1.0)
    grid = Sanitize(Tampering(twice, lambda reply: reshape(reply) if next(broken) else None))
    assert [reply.metadata.src_node_id for reply in grid.send_and_receive(ask([0, 1, 2]))] == [0, 1, 2]
    assert grid.round_info()["sanitized"] == 3


def test_errors_pass(clients: Clients, ask: Ask) -> None:
    class Failing(WorldGrid):
        def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
            return [
                Message(Error(0, "no power"), reply_to=message) if message.metadata.dst_node_id == 1 else reply
                for message, reply in zip(messages, self.grid.send_and_receive(messages), strict=True)
            ]

    replies = list(Sanitize(Failing(LocalGrid(clients))).send_and_receive(ask([0, 1, 2])))
    assert [reply.has_error() for reply in replies] == [False, True, False]


def test_a_reply_to_an_earlier_round_is_dropped(clients: Clients, ask: Ask) -> None:
    grid = Sanitize(LocalGrid(clients))
    grid.begin_round(1)
    pushed = list(grid.push_messages(ask([0, 1])))
    grid.begin_round(2)
    assert list(grid.pull_messages(pushed)) == []
    assert grid.round_info()["sanitized"] == 2
