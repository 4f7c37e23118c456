"""The seed tree: every random draw has an address, and the address alone decides the draw.

An address is ``(seed, purpose, *path)``, for example ``(0, "batches", round, client)``. Two draws with different addresses
are independent; the same address gives the same draw on any machine, in any process and in any order. That is what makes a
run independent of the number of workers and of crashes.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch


def derive(seed: int, purpose: str, *path: int) -> int:
    """Return the 63-bit seed at the address ``(seed, purpose, *path)``.

    Raises:
        ValueError: a purpose with a slash could be mistaken for a path.
    """
    if "/" in purpose:
        raise ValueError(f"a purpose has no slash; got {purpose!r}")
    address = "/".join([str(int(seed)), purpose, *(str(int(step)) for step in path)])
    return int.from_bytes(hashlib.blake2b(address.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, purpose: str, *path: int) -> torch.Generator:
    """Return a CPU torch generator for one address of the seed tree."""
    return torch.Generator().manual_seed(derive(seed, purpose, *path))


def numpy_generator(seed: int, purpose: str, *path: int) -> np.random.Generator:
    """Return a NumPy generator for one address of the seed tree."""
    return np.random.default_rng(derive(seed, purpose, *path))


def seed_torch(value: int) -> None:
    """Seed torch's global generators: the CPU's, and those of GPUs in use.

    ``torch.manual_seed`` does the same at a millisecond a call, and remembers every call until a GPU is used.
    """
    torch.default_generator.manual_seed(value)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(value)


def kept_torch() -> AbstractContextManager[None]:
    """Restore torch's global generators at the end of a ``with`` block: the CPU's, and those of GPUs in use."""
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.random.fork_rng(devices=range(torch.cuda.device_count()) if in_use else ())


@contextmanager
def seeded_globals(seed: int, purpose: str, *path: int) -> Iterator[None]:
    """Seed the global generators of ``random``, NumPy and torch for a while, and restore them afterwards.

    Code that is not ours (Flower's strategies, somebody's client) draws from the global generators; nothing of ours does.
    """
    value = derive(seed, purpose, *path)
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with kept_torch():
            random.seed(value)
            np.random.seed(value % 2**32)  # noqa: NPY002
            seed_torch(value)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


@contextmanager
def lend_generator(plugin: Any, source: torch.Generator) -> Iterator[None]:
    """Let a plug-in whose ``generator`` is None draw from ``source`` for a while.

    A generator that the user gave keeps its place. ``object.__setattr__`` because stateless plug-ins are frozen.
    """
    if getattr(plugin, "generator", source) is not None:
        yield
        return
    object.__setattr__(plugin, "generator", source)
    try:
        yield
    finally:
        object.__setattr__(plugin, "generator", None)
