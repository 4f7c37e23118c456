"""Local training once more, slowly: a copy of the model, ``torch.optim``, and dropout masks bit by bit in Python integers."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedagg import LocalSGD, rng


def splitmix64(seed: int) -> Iterator[int]:
    """The generator as its authors publish it, with unsigned integers."""
    while True:
        seed = (seed + 0x9E3779B97F4A7C15) % 2**64
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
        yield z ^ (z >> 31)


def nth(seed: int, n: int) -> int:
    """The n-th number after ``seed``, counted from 0."""
    numbers = splitmix64((seed + n * 0x9E3779B97F4A7C15) % 2**64)
    return next(numbers)


def mask(seed: int, forward_pass: int, call: int, shape: tuple[int, ...], p: float) -> Tensor:
    """What the ``call``-th dropout of a client's forward pass, both counted from 0, multiplies by."""
    key = nth(nth(seed, forward_pass), call + 1)
    numbers = [nth(key, i - 1) for i in range(math.prod(shape))]
    kept = [((z + 2**63) % 2**64) / 2**64 >= p for z in numbers]  # the highest bit is the sign of an int64
    return torch.tensor(np.array(kept, dtype=np.float32).reshape(shape) / (1 - p))


class SlowDropout(nn.Module):
    """Dropout by ``mask``; ``place`` says which call of its pass it is, ``channels`` whether whole channels go."""

    def __init__(self, p: float, place: int, channels: bool = False) -> None:
        super().__init__()
        self.p, self.place, self.channels = p, place, channels
        self.seed = self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:2], *[1] * (x.dim() - 2)) if self.channels else tuple(x.shape)
        self.passes += 1
        return x * mask(self.seed, self.passes - 1, self.place, shape, self.p)


def train(model: nn.Module, local: LocalSGD, x: Tensor, y: Tensor, seed: int, round: int, client: int) -> tuple[Tensor, float]:
    """Return a client's update [d] and its mean loss over the steps of the last epoch."""
    model = copy.deepcopy(model).train()
    for layer in model.modules():
        if isinstance(layer, SlowDropout):
            layer.seed = rng.derive(seed, "dropout", round, client)
    params = [parameter for parameter in model.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in params]
    optimizer = torch.optim.SGD(params, local.lr, momentum=local.momentum, weight_decay=local.weight_decay)
    order = rng.generator(seed, "batches", round, client)
    for _ in range(local.epochs):
        losses = []
        rows = torch.randperm(len(y), generator=order).tolist()
        for start in range(0, len(rows), local.batch_size):
            batch = rows[start : start + local.batch_size]
            loss = cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    update = torch.cat([(after.detach() - start).flatten() for after, start in zip(params, before, strict=True)])
    return update, sum(losses) / len(losses)
