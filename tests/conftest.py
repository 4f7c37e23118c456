"""What many tests share: a small world, digits over six clients and a linear model; and the command line."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from torch import nn

from fedagg import Clients, LocalGrid, LocalSGD, Population
from fedagg.cli import main
from fedagg.data import IID, Dataset, digits
from fedagg.grid.base import ensure_identity
from fedagg.models import build, logistic_regression
from fedagg.params import Layout
from tests.commands import Command, Done

torch.set_num_threads(1)
ensure_identity()


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return digits()


@pytest.fixture(scope="session")
def population(dataset: Dataset) -> Population:
    return Population.split(dataset, IID(), num_clients=6, seed=0)


@pytest.fixture(scope="session")
def model(dataset: Dataset) -> nn.Module:
    return build(lambda: logistic_regression(dataset.input_shape, dataset.num_classes), seed=0)


@pytest.fixture
def clients(population: Population, model: nn.Module) -> Clients:
    return Clients(population, model, LocalSGD(lr=0.1), seed=0)


@pytest.fixture
def grid(clients: Clients) -> LocalGrid:
    return LocalGrid(clients)


Ask = Callable[..., list[Message]]


@pytest.fixture
def ask(model: nn.Module) -> Ask:
    """Make the messages of a round by hand: ask(clients, round=1, kind="train")."""

    def make(clients: list[int], round: int = 1, kind: str = "train", arrays: ArrayRecord | None = None) -> list[Message]:
        layout = Layout.of_model(model)
        sent = layout.record(layout.gather(model)) if arrays is None else arrays
        content = RecordDict({"arrays": sent, "config": ConfigRecord({"server-round": round})})
        return [Message(content, dst_node_id=client, message_type=kind) for client in clients]

    return make


@pytest.fixture(name="restored_logging")
def _restored_logging() -> Iterator[None]:
    """Hydra configures logging for the whole process; take back what it did."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(name="command")
def _command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], restored_logging: None
) -> Command:
    """Run the command line in this process, in an empty folder; no error may show a traceback."""
    monkeypatch.chdir(tmp_path)
    for name in ("HYDRA_FULL_ERROR", "FEDAGG_DEBUG"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str | Path) -> Done:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return Done(code, captured.out, captured.err)

    return run
