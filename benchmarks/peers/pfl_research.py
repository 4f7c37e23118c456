"""pfl-research 0.6.0 on a work: federated averaging by its simulated backend, in one process on one thread.

Runs in an environment of its own (see benchmarks/README.md). Changed to make it fair: users' tensors are made once and kept,
there is no evaluation, no metric beside the loss that training computes anyway, and every user is its own data set object.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.works import LR, WORKS


class Net(nn.Module):
    """The work's model with the two methods pfl asks for."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.net(x)  # type: ignore[no-any-return]

    def loss(self, x: torch.Tensor, y: torch.Tensor, eval: bool = False) -> torch.Tensor:
        """Return the mean cross-entropy."""
        return cross_entropy(self(x), y)

    def metrics(self, x: torch.Tensor, y: torch.Tensor, eval: bool = False) -> dict[str, Any]:
        """Return nothing."""
        return {}


def main() -> None:
    """Run a repeat for every line on standard input, and print milliseconds per round."""
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam import NNTrainHyperParams
    from pfl.model.pytorch import PyTorchModel

    torch.set_num_threads(1)
    work = WORKS[sys.argv[1]]
    arrays = work.arrays()
    users = {i: work.client(arrays, i) for i in range(work.population)}
    sampler = get_user_sampler("minimize_reuse", list(users))
    data = FederatedDataset(lambda user: Dataset(raw_data=list(users[user]), user_id=str(user)), sampler)
    net = Net(work.model())
    model = PyTorchModel(net, torch.optim.SGD, torch.optim.SGD(net.parameters(), lr=1.0))
    backend = SimulatedBackend(training_data=data, val_data=None)
    local = NNTrainHyperParams(local_num_epochs=1, local_learning_rate=LR, local_batch_size=work.batch)
    for _ in sys.stdin:
        rounds = NNAlgorithmParams(
            central_num_iterations=work.rounds,
            evaluation_frequency=10**9,
            train_cohort_size=work.cohort,
            val_cohort_size=0,
        )
        started = time.perf_counter()
        FederatedAveraging().run(algorithm_params=rounds, backend=backend, model=model, model_train_params=local, callbacks=[])
        print("ms", (time.perf_counter() - started) / work.rounds * 1e3, flush=True)


if __name__ == "__main__":
    main()
