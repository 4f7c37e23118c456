"""Milliseconds of FedLAW's server, against as many plain training steps of the same model.

    python -m benchmarks.fedlaw [--threads 1|2]

20 clients, the CNN of 80,202 parameters, 200 images of 28 x 28 as the proxy, 20 epochs: 40 steps on batches of 128 and 72. The
floor makes 40 steps of SGD on the same batches, in place, and keeps nothing. FedLAW's whole round is its learning, the loss of
the proxy before and after, and the cosines between clients.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median

import torch
from torch.nn import functional

from benchmarks.machine import describe
from benchmarks.rules import milliseconds
from fedagg import Cohort
from fedagg.models import build, cnn
from fedagg.params import Layout
from strategies import FedLAW
from strategies.protocols.fedlaw import coherence

N, PROXY, BATCH, EPOCHS, GOAL = 20, 200, 128, 20, 3.0
FLOOR, WHOLE = "40 steps of SGD", "FedLAW, a round"


def works() -> dict[str, Callable[[], object]]:
    """Return what to time."""
    draw = torch.Generator().manual_seed(0)
    model = build(cnn, (1, 28, 28), 10, seed=0)
    x, y = torch.randn(PROXY, 1, 28, 28, generator=draw), torch.arange(PROXY) % 10
    theta = Layout.of_model(model).gather(model).params
    updates = 0.01 * torch.randn(N, len(theta), generator=draw)
    cohort = Cohort(1, range(N), updates, theta, torch.ones(N))
    strategy, bare = FedLAW(model, (x, y), batch_size=BATCH, epochs=EPOCHS), build(cnn, (1, 28, 28), 10, seed=0)
    params = list(bare.parameters())

    def steps() -> None:
        for _ in range(EPOCHS):
            for rows in torch.randperm(PROXY, generator=draw).split(BATCH):
                grads = torch.autograd.grad(functional.cross_entropy(bare(x[rows]), y[rows]), params)
                with torch.no_grad():
                    torch._foreach_add_(params, grads, alpha=-0.01)

    return {
        FLOOR: steps,
        WHOLE: lambda: strategy.aggregate(cohort),
        "cosines between clients": lambda: coherence(updates),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fedlaw")
    parser.add_argument("--threads", type=int, default=1)
    threads = parser.parse_args().threads
    torch.set_num_threads(threads)
    measured = milliseconds(works())
    middle = {name: median(times) for name, times in measured.items()}
    print(describe(f"python -m benchmarks.fedlaw --threads {threads}"))
    print(f"| work | ms, median (min to max) | times {FLOOR} | goal | |")
    print("|---|---|---|---|---|")
    for name, times in measured.items():
        ratio = middle[name] / middle[FLOOR]
        goal, outcome = (f"{GOAL:g}", "reached" if ratio <= GOAL else "missed") if name == WHOLE else ("", "")
        print(f"| {name} | {middle[name]:.1f} ({min(times):.1f} to {max(times):.1f}) | {ratio:.2f} | {goal} | {outcome} |")


if __name__ == "__main__":
    main()
