"""Flower's own simulation on a work: FedAvg over ``run_simulation`` with two Ray actors of one thread.

Changed to make it fair: every actor reads the data once and keeps tensors and model, clients train as the floor does,
no client evaluates, the log is silent. One line a round goes to standard output: seconds since the process began.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from functools import cache, lru_cache
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.works import LR, WORKS, Work

BEGAN = float(os.environ.get("BENCHMARK_BEGAN", time.time()))
client, server = ClientApp(), ServerApp()
NAME, ROUNDS = sys.argv[1:3] if len(sys.argv) == 3 else ("", "0")  # in an actor there are others, and no server


@lru_cache(maxsize=1)
def _kept(name: str) -> tuple[Work, Any, nn.Module]:
    torch.set_num_threads(1)
    return WORKS[name], WORKS[name].arrays(), WORKS[name].model()


@cache
def _data(name: str, i: int) -> tuple[torch.Tensor, torch.Tensor]:
    work, arrays, _ = _kept(name)
    return work.client(arrays, i)


@client.train()
def train(message: Message, context: Context) -> Message:
    """Train one epoch in place."""
    name = str(message.content["config"]["work"])
    work, _, model = _kept(name)
    x, y = _data(name, int(context.node_config["partition-id"]))
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    params = list(model.parameters())
    for batch in torch.randperm(len(y)).split(work.batch):
        grads = torch.autograd.grad(cross_entropy(model(x[batch]), y[batch]), params)
        with torch.no_grad():
            torch._foreach_add_(params, grads, alpha=-LR)
    content = {"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord({"num-examples": len(y)})}
    return Message(RecordDict(content), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds and tell the time after each."""
    work = WORKS[NAME]
    strategy = FedAvg(
        fraction_train=work.cohort / work.population,
        fraction_evaluate=0.0,
        min_train_nodes=work.cohort,
        min_available_nodes=work.population,
    )

    def tell(number: int, arrays: ArrayRecord) -> MetricRecord:
        print("round", number, time.time() - BEGAN, flush=True)
        return MetricRecord({"done": number})

    strategy.start(
        grid,
        ArrayRecord(work.model().state_dict()),
        num_rounds=int(ROUNDS),
        train_config=ConfigRecord({"work": NAME}),
        evaluate_fn=tell,
    )


def simulate() -> None:
    """Run the simulation."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    run_simulation(
        server,
        client,
        num_supernodes=WORKS[NAME].population,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"num_cpus": 2}},
    )
    print("end", time.time() - BEGAN, flush=True)


if __name__ == "__main__":
    from benchmarks.peers import flower_simulation  # what is imported by name reaches the actors by name

    flower_simulation.simulate()
