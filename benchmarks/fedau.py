"""Milliseconds that FedAU takes to bring its counters of 100,000 clients up to date, and the bytes they take.

    python -m benchmarks.fedau

A hundred rounds each in which 100 clients come, always the same; in which every client comes with probability 0.1; and in
which all come. Under the second, rounds 11 to 60 are those in which new clients come to a table that is already large. The
whole is repeated, and of each round the fastest time counts.
"""

from __future__ import annotations

import time
from statistics import median

import torch

from benchmarks.machine import describe
from fedagg import Cohort
from fedagg.grid import Bernoulli
from strategies import FedAU

N, ROUNDS, REPEATS = 100_000, 100, 5
MILLISECONDS, BYTES = 5.0, 32.0  # goals: of a round, and of a client's state


def times(present: list[list[int]]) -> tuple[list[float], float]:
    """Return milliseconds of every round, and the bytes of state per client seen after the last."""
    weighting, taken = FedAU(), []
    for number, clients in enumerate(present, 1):
        nothing = torch.zeros(len(clients), 1)
        cohort = Cohort(number, clients, nothing, torch.zeros(1), torch.ones(len(clients)), population=N)
        started = time.perf_counter()
        weighting(cohort)
        taken.append(1e3 * (time.perf_counter() - started))
    seen = weighting.state_dict()["seen"]
    return taken, seen.nbytes / seen.shape[1]


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    rare = Bernoulli(0.1, num_clients=N)
    patterns = {
        "the same 100": [list(range(0, N, N // 100))] * ROUNDS,
        "each with probability 0.1": [rare.available(number).nonzero().flatten().tolist() for number in range(1, ROUNDS + 1)],
        "all": [list(range(N))] * ROUNDS,
    }
    print(describe("python -m benchmarks.fedau"))
    print("| of 100,000 clients come | rounds | ms a round, median (min to max) | goal | | bytes a client seen | goal | |")
    print("|---|---|---|---|---|---|---|---|")
    for name, present in patterns.items():
        runs = [times(present) for _ in range(REPEATS)]
        best = [min(of_round) for of_round in zip(*(taken for taken, _ in runs), strict=True)]
        size = runs[0][1]
        for first, last in ((1, 10), (11, 60), (61, ROUNDS)):
            some = best[first - 1 : last]
            middle = median(some)
            outcomes = ["reached" if value <= goal else "missed" for value, goal in ((middle, MILLISECONDS), (size, BYTES))]
            print(
                f"| {name} | {first} to {last} | {middle:.2f} ({min(some):.2f} to {max(some):.2f}) | {MILLISECONDS:g} | "
                f"{outcomes[0]} | {size:g} | {BYTES:g} | {outcomes[1]} |"
            )


if __name__ == "__main__":
    main()
