"""Dropout whose masks depend on the client alone: not on where, when or beside whom it trains.

torch draws masks one after another from a generator of the whole process. Clients that train together would then share one
stream, and padding a batch would shift it. Here every number of a mask has an address (the client's seed, the forward pass,
the call of a dropout layer in it, the element) and is a hash of it, so that both executors see the same masks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

GOLDEN = 0x9E3779B97F4A7C15
_CHANNEL_DIMS: dict[type[nn.Module], int] = {nn.Dropout: 0, nn.Dropout1d: 1, nn.Dropout2d: 2, nn.Dropout3d: 3}


def mix(z: Tensor) -> Tensor:
    """Return 64 well mixed bits for each number of ``z`` int64, which is overwritten.

    The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014). int64 stands for unsigned: products wrap around, and the
    mask after a shift removes the copies of the sign.
    """
    z ^= (z >> 30) & (1 << 34) - 1
    z *= _signed(0xBF58476D1CE4E5B9)
    z ^= (z >> 27) & (1 << 37) - 1
    z *= _signed(0x94D049BB133111EB)
    z ^= (z >> 31) & (1 << 33) - 1
    return z


def pass_keys(seeds: Tensor, step: int) -> Tensor:
    """Return the keys [...] of a forward pass, given its number and the seeds [...] int64 of the clients that make it."""
    return _child(seeds, step)


class Noise:
    """Where the dropout layers of one model draw from.

    Each call of a layer within a forward pass has its own number, so a layer that is used twice draws twice. Making a part of
    the pass again during the backward pass, as activation checkpointing does, would draw anew and is refused.

    Args:
        device: where the model is.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.begin_pass(torch.zeros((), dtype=torch.int64, device=device))

    def begin_pass(self, key: Tensor) -> None:
        """Draw from ``key`` [] int64 from here on."""
        self._key, self._calls = key, 0

    def bits(self, shape: Sequence[int]) -> Tensor:
        """Return [*shape] int64, uniform; element i, counted in C order, does not depend on how many follow."""
        if torch._C._current_graph_task_id() >= 0:
            raise RuntimeError("dropout cannot be repeated in the backward pass; leave activation checkpointing out")
        self._calls += 1
        elements = torch.arange(math.prod(shape), device=self.device).view(*shape)
        return mix(elements * _signed(GOLDEN) + _child(self._key, self._calls))

    def during(self, seed: int, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """Return ``forward`` for one client's training: its n-th call is the client's n-th pass."""
        seeds, step = torch.tensor(seed, device=self.device), 0

        def numbered(x: Tensor) -> Tensor:
            nonlocal step
            self.begin_pass(pass_keys(seeds, step))
            step += 1
            return forward(x)

        return numbered


class SeededDropout(nn.Module):
    """Zero each element, or each whole channel, with probability ``p`` while training, and scale the rest by 1 / (1 - p).

    Args:
        p: in [0, 1].
        channel_dims: how many dimensions a channel has at the end of the shape; 0 drops single elements.
        noise: where the masks come from.
    """

    def __init__(self, p: float, channel_dims: int, noise: Noise) -> None:
        super().__init__()
        self.p, self.channel_dims, self._noise = p, channel_dims, noise

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        dims = x.dim() - self.channel_dims
        if self.channel_dims == 2 and x.dim() == 3:
            dims = 2  # Dropout2d reads [b, C, L] as channels of one dimension
        keep = self._noise.bits([*x.shape[:dims], *[1] * (x.dim() - dims)]) >> 11 >= round(self.p * 2**53) - 2**52
        return x * (keep.to(x.dtype) * (1 / (1 - self.p) if self.p < 1 else 0.0))


def seed_dropout(model: nn.Module) -> Noise | None:
    """Replace torch's dropout layers in ``model`` by ours; return where they draw from, None if there is no such layer."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    noise, replaced = Noise(device), dict[nn.Module, nn.Module]()
    for parent in model.modules():
        for name, child in parent._modules.items():
            if isinstance(child, _DropoutNd) and type(child) in _CHANNEL_DIMS:
                parent._modules[name] = replaced.setdefault(child, SeededDropout(child.p, _CHANNEL_DIMS[type(child)], noise))
    return noise if replaced else None


def _child(keys: Tensor, number: int) -> Tensor:
    return mix(keys + _signed((number + 1) * GOLDEN))


def _signed(value: int) -> int:
    """Return the int64 that has the 64 lowest bits of ``value``."""
    return (value + 2**63) % 2**64 - 2**63
