"""Where clients' examples come from: the population on a CPU, a copy of the training set beside the model on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from fedagg.data import Dataset, Population

Chosen = Sequence[Tensor | None]
Examples = Callable[[Sequence[int], Chosen], list[tuple[Tensor, Tensor]]]
"""Returns of some clients, in their order, features [m, ...] float32 and classes [m] int64: of all m examples that a client
trains on, or of those that are chosen."""

SHARE = 4  # a copy takes at most the fourth part of a GPU's memory


def examples(population: Population, device: torch.device) -> Examples:
    """Return the quickest source of what the clients of ``population`` train on.

    On a GPU that is a copy of the raw training set there, if it is small enough, the population reads its data as ours do, and
    clients see them as they are: rotations would round otherwise on a GPU, and noise is drawn on the CPU.
    """
    plain = type(population).train is Population.train and type(population.dataset) is Dataset and not population.transformed
    if device.type == "cuda" and plain:
        x = population.dataset.x_train
        small = x.nbytes <= torch.cuda.get_device_properties(device).total_memory // SHARE
        if small and (x.dtype.kind in "fib" or x.dtype == np.uint8):  # torch has no gather for wider unsigned integers
            return ResidentData(population, device)
    ours = type(population).train is Population.train

    def asked(client: int, chosen: Tensor | None) -> tuple[Tensor, Tensor]:
        if chosen is None or ours:
            return population.train(client) if chosen is None else population.train(client, chosen)
        x, y = population.train(client)
        return x[chosen], y[chosen]

    return lambda clients, chosen: [asked(client, some) for client, some in zip(clients, chosen, strict=True)]


class ResidentData:
    """The raw training set on one device; the rows of a whole cohort are gathered and turned into features at once.

    The numbers are those of ``Population.train``, to the bit. A cohort's tensors are views of one.

    Args:
        population: who holds which rows.
        device: where the copy lies.
    """

    def __init__(self, population: Population, device: torch.device) -> None:
        self._population, dataset = population, population.dataset
        self._x, self._y, self._shift, self._scale = (
            torch.tensor(array, device=device) for array in (dataset.x_train, dataset.y_train, dataset.shift, dataset.scale)
        )

    def __call__(self, clients: Sequence[int], chosen: Chosen) -> list[tuple[Tensor, Tensor]]:
        held = [self._population.rows(client) for client in clients]
        rows = [mine if some is None else mine[some.numpy()] for mine, some in zip(held, chosen, strict=True)]
        sizes = [len(mine) for mine in rows]
        gathered = torch.from_numpy(np.concatenate(rows).astype(np.int64)).to(self._x.device)
        x = self._x[gathered].to(torch.float32).sub_(self._shift).div_(self._scale)
        return list(zip(torch.split(x, sizes), torch.split(self._y[gathered], sizes), strict=True))
