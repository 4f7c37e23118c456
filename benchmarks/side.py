"""One side of a comparison in a process of its own: a repeat for every line on standard input, milliseconds per round out.

    python -m benchmarks.side SIDE WORK

loop        the bare torch loop of benchmarks/floor.py
fedagg      LocalGrid, our mean
ray1, ray2  RayGrid with so many workers
flower      LocalGrid with our clients under Flower's unmodified FedAvg
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.works import LR, WORKS, Work


def loop(work: Work) -> Callable[[], None]:
    """Return a repeat of the floor."""
    from benchmarks.floor import BareLoop

    arrays = work.arrays()
    floor = BareLoop(work.model(), {i: work.client(arrays, i) for i in range(work.cohort)}, LR, work.batch)

    def repeat() -> None:
        for _ in range(work.rounds):
            floor.round(list(range(work.cohort)))

    return repeat


def ours(work: Work, workers: int = 0, flower: bool = False, rounds: int | None = None) -> Callable[[], None]:
    """Return a repeat of ours, on Ray with ``workers`` > 0, or with Flower's FedAvg; of ``rounds``, None for the work's."""
    from flwr.serverapp.strategy import FedAvg

    from fedagg import Clients, LocalGrid, LocalSGD, Population, Strategy, run
    from fedagg.data import Dataset
    from fedagg.grid import SimulationGrid
    from fedagg.strategy import AnyStrategy

    x, y = work.arrays()
    data = Dataset("noise", x, y, x[:10], y[:10], 10, "made here", shift=0.0, scale=255.0)
    population = Population(data, np.split(np.arange(len(y)), work.population))
    model = work.model()
    clients = Clients(population, model, LocalSGD(lr=LR, batch_size=work.batch))
    grid: SimulationGrid = LocalGrid(clients)
    if workers:
        from fedagg.grid.ray import RayGrid

        grid = RayGrid(clients, workers=workers)
        grid.open()
    strategy: AnyStrategy = Strategy(cohort=work.cohort)
    if flower:
        strategy = FedAvg(
            fraction_train=work.cohort / work.population,
            fraction_evaluate=0.0,
            min_train_nodes=work.cohort,
            min_available_nodes=work.population,
        )

    def repeat() -> None:
        number = rounds or work.rounds
        run(grid, strategy, model, number, evaluate=lambda arrays: {}, evaluate_every=number)

    return repeat


SIDES: dict[str, Callable[[Work], Callable[[], None]]] = {
    "loop": loop,
    "fedagg": ours,
    "ray1": lambda work: ours(work, workers=1),
    "ray2": lambda work: ours(work, workers=2),
    "flower": lambda work: ours(work, flower=True),
}


def main() -> None:
    """Serve repeats until standard input ends."""
    torch.set_num_threads(1)
    work = WORKS[sys.argv[2]]
    repeat = SIDES[sys.argv[1]](work)
    for _ in sys.stdin:
        started = time.perf_counter()
        repeat()
        print("ms", (time.perf_counter() - started) / work.rounds * 1e3, flush=True)


if __name__ == "__main__":
    main()
