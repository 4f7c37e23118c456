"""The shipped Flower app under Flower's simulation engine; ``python -m tests.flower.engine DIRECTORY`` puts the results there.

``run_simulation`` takes no run config, so two small apps put ``overrides`` into the context, as ``flwr run --run-config``
would, and hand over to ``fedagg.flower``. Starting the engine is slow: all experiments share one start.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

import fedagg.flower
from fedagg import Callback, FedaggError
from fedagg.loop import Round

NODES = 4
SHARED = "rounds=2 partition=iid model=logistic_regression seed=3 evaluation.clients=true"
ATTACK = "attack=sign_flip attack.fraction=0.25 attack.method.scale=10"
EXPERIMENTS = {
    "fedavg": "strategy=fedavg",
    "flower_fedavg": "strategy=flwr_fedavg strategy.fraction_evaluate=1.0",
    "attacked_mean": f"strategy=mean {ATTACK}",
    "attacked_median": f"strategy=median {ATTACK}",
    "sampled": "strategy=mean cohort=2",
    "label_flip": "attack=label_flip attack.fraction=0.25",
}


@dataclass
class Keep(Callback):
    """Write what every round produced; the config of an experiment names it."""

    path: str

    def round_finished(self, done: Round) -> None:
        seen = torch.load(self.path, weights_only=True) if Path(self.path).exists() else []
        arrays = {name: torch.from_numpy(array.numpy()) for name, array in done.arrays.items()}
        torch.save([*seen, {"arrays": arrays, "rows": done.rows}], self.path)


def keeping(overrides: str, file: Path) -> str:
    """Return overrides that also write the rounds to ``file``."""
    return f"{overrides} '+callbacks.keep={{_target_: tests.flower.engine.Keep, path: {file}}}'"


def with_overrides(context: Context, overrides: str) -> Context:
    """Return the same context with a run config; Flower refuses a context whose run config was changed."""
    return Context(context.run_id, context.node_id, context.node_config, context.state, {"overrides": overrides})


def apps(directory: Path, experiments: Mapping[str, str]) -> tuple[ServerApp, ClientApp]:
    server, client = ServerApp(), ClientApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        for name, overrides in experiments.items():
            asked = keeping(f"{SHARED} {overrides}", directory / f"{name}.pt")
            try:
                fedagg.flower.server(grid, with_overrides(context, asked))
            except FedaggError as error:
                (directory / f"{name}.txt").write_text(str(error))

    @client.train()
    def train(message: Message, context: Context) -> Message:
        return fedagg.flower.client(message, with_overrides(context, SHARED))

    @client.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return fedagg.flower.client(message, with_overrides(context, SHARED))

    return server, client


if __name__ == "__main__":
    resources = {"init_args": {"num_cpus": 1}, "client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(*apps(Path(sys.argv[1]), EXPERIMENTS), num_supernodes=NODES, backend_config=resources)
