"""The matrix of a round: memory that serves again, but never while somebody holds a row of it."""

from __future__ import annotations

import gc
import pickle
import weakref

import pytest
import torch
from flwr.app import Array, ConfigRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_object_type_from_object_content
from torch import nn

from fedagg import Clients, LocalGrid, Population
from fedagg.clients.app import arrays_of
from fedagg.params import Layout, ModelState, SentState, Update
from fedagg.rows import RowBuffer, stack_rows
from tests.conftest import Ask

CPU = torch.device("cpu")


def test_memory_serves_again_once_nobody_holds_a_row() -> None:
    buffer = RowBuffer()
    first = buffer.take(4, 10, torch.float32, CPU)
    row, address = first[2], first.data_ptr()
    row.fill_(7.0)
    del first
    other = buffer.take(4, 10, torch.float32, CPU)
    other.fill_(0.0)
    assert row.tolist() == [7.0] * 10  # somebody held it, so the second matrix lies elsewhere
    assert other.data_ptr() != address
    address = other.data_ptr()
    del other
    assert buffer.take(3, 10, torch.float32, CPU).data_ptr() == address  # fewer rows fit as well


@pytest.mark.parametrize(("n", "d", "dtype"), [(5, 10, torch.float32), (4, 11, torch.float32), (4, 10, torch.float64)])
def test_another_size_or_type_gets_memory_that_fits(n: int, d: int, dtype: torch.dtype) -> None:
    buffer = RowBuffer()
    buffer.take(4, 10, torch.float32, CPU)
    rows = buffer.take(n, d, dtype, CPU)
    assert (rows.shape, rows.dtype) == ((n, d), dtype)


def test_an_array_of_numpy_counts_as_a_holder() -> None:
    buffer = RowBuffer()
    held = buffer.take(2, 3, torch.float32, CPU)[0].numpy()
    held[:] = 1.0
    buffer.take(2, 3, torch.float32, CPU).fill_(0.0)
    assert held.tolist() == [1.0, 1.0, 1.0]


def test_replies_that_somebody_keeps_outlive_the_next_round(population: Population, model: nn.Module, ask: Ask) -> None:
    grid, other = (LocalGrid(Clients(population, model)) for _ in range(2))
    kept = list(grid.send_and_receive(ask([0, 1], round=1)))[1]
    list(grid.send_and_receive(ask([2, 3], round=2)))
    expected = list(other.send_and_receive(ask([0, 1], round=1)))[1]
    pairs = zip(arrays_of(kept).items(), arrays_of(expected).items(), strict=True)
    assert all(name == same and (a.numpy() == b.numpy()).all() for (name, a), (same, b) in pairs)


@pytest.mark.parametrize("kind", ["array_records", "metric_records", "config_records"])
def test_a_reply_whose_records_somebody_looked_at_goes_without_the_garbage_collector(
    kind: str, population: Population, model: nn.Module, ask: Ask
) -> None:
    gc.disable()
    try:
        (reply,) = LocalGrid(Clients(population, model)).send_and_receive(ask([0], round=1))
        row, view = weakref.ref(arrays_of(reply)), getattr(reply.content, kind)
        if kind == "config_records":
            view["more"] = ConfigRecord({"a": 1})  # it is still a view: what is put in is in the reply
            assert reply.content["more"] == {"a": 1}
        with pytest.raises(TypeError, match="Expected"):
            view["wrong"] = 3
        del reply, view
        assert row() is None
    finally:
        gc.enable()


def test_a_reply_travels_as_plain_records(population: Population, model: nn.Module, ask: Ask) -> None:
    (reply,) = LocalGrid(Clients(population, model)).send_and_receive(ask([0], round=1))
    arrived = pickle.loads(pickle.dumps(reply.content))
    assert type(arrived) is RecordDict
    assert {name: array.numpy().tobytes() for name, array in arrived["arrays"].items()} == {
        name: array.numpy().tobytes() for name, array in arrays_of(reply).items()
    }
    assert get_object_type_from_object_content(reply.content.deflate()) == "RecordDict"


def test_consecutive_rows_are_stacked_without_a_copy() -> None:
    matrix = torch.arange(12.0).view(4, 3)
    assert stack_rows([matrix[1], matrix[2]]).data_ptr() == matrix[1].data_ptr()
    for rows in ([matrix[0], matrix[2]], [matrix[1], matrix[0]], [matrix[0], matrix[1].clone()]):
        stacked = stack_rows(rows)
        assert stacked.data_ptr() != rows[0].data_ptr()
        assert torch.equal(stacked, torch.stack(rows))


def test_what_a_client_changed_is_its_row_itself() -> None:
    """The row is handed on without a copy only where it belongs: to the parameters the client received."""
    base, row, nothing = torch.tensor([1.0, 2.0]), torch.tensor([0.5, -4.0]), torch.empty(0)
    sent = SentState(base, Update.checked(row), nothing, nothing)
    assert sent.params.tolist() == [1.5, -2.0]
    assert sent.update_from(base).row is row
    assert sent.update_from(torch.tensor([0.0, 1.0])).row.tolist() == [1.5, -3.0]
    assert ModelState(sent.params, nothing, nothing).update_from(base).row.tolist() == [0.5, -4.0]


@pytest.mark.parametrize(("value", "finite"), [(1.0, True), (torch.nan, False), (torch.inf, False), (1e20, False)])
def test_a_row_may_reach_a_rule_if_its_squared_norm_is_finite(value: float, finite: bool) -> None:
    assert Update.checked(torch.tensor([0.0, value, 1.0])).finite is finite


def test_arrays_are_made_when_somebody_looks() -> None:
    layout = Layout.of_model(nn.Linear(2, 1))
    state = ModelState(torch.tensor([1.0, 2.0, 3.0]), torch.empty(0), torch.empty(0, dtype=torch.int64))
    record = layout.record(state)
    assert layout.read(record) is state
    assert record["weight"].numpy().tolist() == [[1.0, 2.0]]
    assert [*record] == ["weight", "bias"]
    assert len(record) == 2
    plain = record.copy()
    assert plain == record
    record["bias"] = Array(record["bias"].numpy() + 1)
    assert layout.read(record).params.tolist() == [1.0, 2.0, 4.0]  # the change counts
    assert state.params.tolist() == [1.0, 2.0, 3.0]  # and touches nothing else
    assert plain["bias"].numpy().tolist() == [3.0]
    del record["bias"]
    with pytest.raises(ValueError, match=r"missing arrays \['bias'\]"):
        layout.read(record)
