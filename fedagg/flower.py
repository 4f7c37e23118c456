"""The same experiment as a Flower app, for ``flwr run .`` and for real deployments: Flower's engine, our strategy and clients.

``[tool.flwr.app]`` in pyproject.toml names the two objects below. The run config has one entry, ``overrides``: what one would
write behind ``fedagg run``. Server and clients build the same experiment from it; ``population`` is the number of nodes. A
deployment whose nodes take a while to connect sets ``population=N`` there, and the server waits for that many.
"""

from __future__ import annotations

import logging
import shlex
import time
from functools import lru_cache

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedagg.clients import client_app
from fedagg.errors import ConfigError, FedaggError
from fedagg.experiment import Experiment, build
from fedagg.grid.base import known
from fedagg.hydra_app import compose
from fedagg.loop import Callback, Round, run
from fedagg.progress import describe

logger = logging.getLogger("flwr")  # the log that ``flwr run --stream`` shows
PATIENCE = 300.0  # seconds to wait for all nodes to connect


class _LogRounds(Callback):
    def __init__(self, f: int) -> None:
        self.f = f

    def round_finished(self, done: Round) -> None:
        logger.info("round %d  %s", done.round, describe(done, self.f))


server = ServerApp()
client = ClientApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment over Flower's Grid."""
    overrides = _overrides(context)
    asked = compose(overrides).population if any(word.startswith("population=") for word in overrides) else 1
    nodes = _wait_for(grid, asked)
    experiment = build(compose([f"population={nodes}", *overrides]), around=known(grid))
    cfg = experiment.cfg
    layout = experiment.clients.layout
    run(
        experiment.grid,
        experiment.strategy,
        experiment.model,
        cfg.rounds,
        seed=cfg.seed,
        evaluate=lambda arrays: experiment.clients.test(layout.read(arrays)),
        evaluate_every=cfg.evaluation.every,
        callbacks=[_LogRounds(experiment.f), *experiment.callbacks],
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
    nodes = context.node_config.get("num-partitions")
    experiment = _experiment(f"population={nodes}", *_overrides(context))
    population = experiment.cfg.population
    if nodes != population:
        raise ConfigError(f"population={population}, but there are {nodes} nodes; set population={nodes} in overrides")
    return client_app(experiment.clients)


@lru_cache(maxsize=1)
def _experiment(*overrides: str) -> Experiment:
    return build(compose(overrides))


def _overrides(context: Context) -> list[str]:
    return shlex.split(str(context.run_config.get("overrides", "")))


def _wait_for(grid: Grid, nodes: int) -> int:
    """Wait until this many nodes are connected and return how many are."""
    deadline = time.monotonic() + PATIENCE
    while (connected := len(list(grid.get_node_ids()))) < nodes:
        if time.monotonic() > deadline:
            raise FedaggError(f"waited {PATIENCE:.0f} s for {nodes} nodes; {connected} are connected")
        time.sleep(0.5)
    return connected
