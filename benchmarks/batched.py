"""Many clients at once against one at a time, on the CPU and on a GPU where there is one.

    python -m benchmarks.batched

Both executors train the same 100 clients from the same model in one process on one thread; models and client sizes are those
of ``benchmarks.steady``. Only training is timed: no messages, no rule. The two take turns.
"""

from __future__ import annotations

import time
from statistics import median

import numpy as np
import torch

from benchmarks.machine import describe
from fedagg import Clients, LocalSGD, Population
from fedagg.data import Dataset
from fedagg.models import build, cnn, mlp

REPEATS = 5
COHORT = 100
WORKS = {"MLP-32": (mlp, 32), "CNN-32": (cnn, 32), "CNN-600": (cnn, 600)}  # name: (model, examples per client)


def measure(name: str, device: str, precision: str) -> list[list[float]]:
    """Return milliseconds per cohort one at a time and batched, one pair per repeat."""
    factory, examples = WORKS[name]
    draw = np.random.default_rng(0)
    x = draw.integers(0, 256, (examples * COHORT, 1, 28, 28), dtype=np.uint8)
    y = draw.integers(0, 10, examples * COHORT)
    data = Dataset("noise", x, y, x[:10], y[:10], 10, "made here", shift=0.0, scale=255.0)
    population = Population(data, np.split(np.arange(len(y)), COHORT))
    model = build(factory, (1, 28, 28), 10, seed=0)
    sides = [
        Clients(population, model, LocalSGD(lr=0.05), device=device, executor=executor, precision=precision)
        for executor in ("one_at_a_time", "batched")
    ]
    state = sides[0].layout.gather(model.to(device))
    times: list[list[float]] = [[], []]
    for repeat in range(REPEATS + 1):  # the first is the warm-up
        for side, clients in zip(times, sides, strict=True):
            started = time.perf_counter()
            clients.fit(state, range(COHORT), repeat)
            if device != "cpu":
                torch.cuda.synchronize()
            if repeat:
                side.append((time.perf_counter() - started) * 1e3)
    return times


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print(describe("python -m benchmarks.batched"))
    print("| device | precision | work | one at a time, ms | batched, ms | speed-up, median (min to max) |")
    print("|---|---|---|---|---|---|")
    places = [("cpu", "float32")]
    if torch.cuda.is_available():
        places += [("cuda", "float32"), ("cuda", "bfloat16")]
    for device, precision in places:
        for name in WORKS:
            alone, together = measure(name, device, precision)
            ratios = [a / b for a, b in zip(alone, together, strict=True)]
            spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            where = f"{torch.cuda.get_device_name()}" if device == "cuda" else device
            print(f"| {where} | {precision} | {name} x {COHORT} | {median(alone):.1f} | {median(together):.1f} | {spread} |")


if __name__ == "__main__":
    main()
