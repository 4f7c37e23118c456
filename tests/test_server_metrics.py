"""What the server notes about a round: whom the rule trusts, and what travels."""

import numpy as np
import pytest
from flwr.app import Array, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from fedagg import Clients, LocalGrid, Population, Strategy, run
from fedagg.trust import trust


@pytest.mark.parametrize(
    ("weights", "byzantine", "expected"),
    [
        # of the three excluded (1, 2, 3) two lie; of the three that lie (2, 3, 4) two are excluded; 4 has 1 of 5 parts
        (
            {0: 4.0, 1: 0.0, 2: 0.0, 3: 0.0, 4: 1.0},
            {2, 3, 4, 99},
            {"byzantine_weight": 0.2, "exclusion_precision": 2 / 3, "exclusion_recall": 2 / 3},
        ),
        ({0: 1.0, 1: 1.0}, {1}, {"byzantine_weight": 0.5, "exclusion_recall": 0.0}),  # nobody excluded: no precision
        ({0: 1.0, 1: 0.0}, {7}, {"byzantine_weight": 0.0, "exclusion_precision": 0.0}),  # no liar in the cohort: no recall
        ({}, {1}, {}),
    ],
)
def test_whom_a_rule_trusts(weights: dict[int, float], byzantine: set[int], expected: dict[str, float]) -> None:
    assert trust(weights, byzantine) == pytest.approx(expected)


def test_the_bytes_of_the_models_that_travel_are_counted(population: Population, model: nn.Module) -> None:
    """One way for ours and for foreign clients: 4 bytes a float, and 8 for the int64 that one kind of client adds."""
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    ours = run(LocalGrid(Clients(population, model)), Strategy(cohort=4), model, rounds=1)
    assert (ours.last("bytes_down", "server"), ours.last("bytes_up", "server")) == (4 * size, 4 * size)
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == 0:
            raise RuntimeError("no reply, no bytes")
        content = RecordDict({"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 1})})
        content["arrays"]["more"] = Array(np.zeros(3, np.int64))
        return Message(content, reply_to=message)

    grid = LocalGrid(app, num_clients=3, on_client_error="drop")
    theirs = run(grid, Strategy(), model, rounds=1, evaluate=lambda arrays: {})
    assert (theirs.last("bytes_down", "server"), theirs.last("bytes_up", "server")) == (3 * size, 2 * (size + 24))
