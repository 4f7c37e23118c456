"""The same experiment as a Flower app, for ``flwr run .`` and for real deployments: Flower's engine, our strategy and clients.

``[tool.flwr.app]`` in pyproject.toml names the two objects below. The run config has one entry, ``overrides``: what one would
write behind ``fedagg run``. Server and clients build the same experiment from it; ``population`` must be the number of nodes.
"""

from __future__ import annotations

import shlex
import time
from functools import lru_cache

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedagg.clients import client_app
from fedagg.errors import ConfigError, FedaggError
from fedagg.experiment import Experiment, build
from fedagg.hydra_app import compose
from fedagg.loop import run
from fedagg.progress import ShowProgress

PATIENCE = 300.0  # seconds to wait for all nodes to connect

server = ServerApp()
client = ClientApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment over Flower's Grid."""
    experiment = build(compose(shlex.split(str(context.run_config.get("overrides", "")))), around=grid)
    cfg = experiment.cfg
    _wait_for(grid, cfg.population)
    layout = experiment.clients.layout
    run(
        experiment.grid,
        experiment.strategy,
        experiment.model,
        cfg.rounds,
        seed=cfg.seed,
        evaluate=lambda arrays: experiment.clients.test(layout.read(arrays)),
        evaluate_every=cfg.evaluation.every,
        callbacks=[ShowProgress("flower", cfg.rounds, experiment.f)],
    )


@client.train()
def train(message: Message, context: Context) -> Message:
    """Train as the client that this node is."""
    return _app(context)(message, context)


@client.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate as the client that this node is."""
    return _app(context)(message, context)


def _app(context: Context) -> ClientApp:
    experiment = _experiment(str(context.run_config.get("overrides", "")))
    nodes, population = context.node_config.get("num-partitions"), experiment.cfg.population
    if nodes != population:
        raise ConfigError(f"population={population}, but there are {nodes} nodes; set population={nodes} in overrides")
    return client_app(experiment.clients)


@lru_cache(maxsize=1)
def _experiment(overrides: str) -> Experiment:
    return build(compose(shlex.split(overrides)))


def _wait_for(grid: Grid, nodes: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while (connected := len(list(grid.get_node_ids()))) < nodes:
        if time.monotonic() > deadline:
            raise FedaggError(f"waited {PATIENCE:.0f} s for {nodes} nodes; {connected} are connected")
        time.sleep(0.5)
