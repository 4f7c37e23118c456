"""Clients that send what one tells them to, and a way to describe Flower that outlives a mended Flower."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Strategy as FlowerStrategy

from fedagg import LocalGrid, Strategy, run
from fedagg.loop import Result

EXAMINED = "1.41.0"


@contextmanager
def flower(behaviour: str) -> Iterator[None]:
    """Assert what Flower did when it was examined; another version that does something else is reported, not failed."""
    try:
        yield
    except (Exception, pytest.fail.Exception) as change:
        if version("flwr") == EXAMINED:
            raise
        pytest.skip(f"Flower {version('flwr')} may have mended this: {behaviour} ({type(change).__name__}: {change})")


Answer = Sequence[float] | dict[str, Sequence[float]]


def answering(rows: Sequence[Answer], counts: Sequence[float] | None = None) -> LocalGrid:
    """Return clients that send these parameters and claim these numbers of examples, whatever they receive."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client = int(context.node_config["partition-id"])
        content = RecordDict({"arrays": arrays_of(rows[client])})
        content["metrics"] = MetricRecord({"num-examples": 1 if counts is None else counts[client]})
        return Message(content, reply_to=message)

    return LocalGrid(app, num_clients=len(rows))


def arrays_of(answer: Answer) -> ArrayRecord:
    named = answer if isinstance(answer, dict) else {"theta": answer}
    return ArrayRecord({name: Array(np.asarray(values, dtype=np.float32)) for name, values in named.items()})


def all_of(n: int) -> dict[str, Any]:
    return {"fraction_train": 1e-9, "min_train_nodes": n, "min_available_nodes": n, "fraction_evaluate": 0.0}


def one_round(
    strategy: type[FlowerStrategy] | Strategy, rows: Sequence[Answer], counts: Sequence[float] | None = None, **settings: Any
) -> Result:
    """Run one round over all of these clients, from a model of zeros."""
    made = strategy if isinstance(strategy, Strategy) else strategy(**all_of(len(rows)), **settings)
    assert not isinstance(rows[0], dict)
    return run(answering(rows, counts), made, arrays_of(np.zeros(len(rows[0]))), rounds=1)


def theta(result: Result) -> Any:
    """The new parameters: a number where there is one, else a list."""
    values = result.arrays["theta"].numpy().tolist()
    return values[0] if len(values) == 1 else values
