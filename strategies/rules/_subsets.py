"""All subsets of n - f rows: what rules that search for the best subset share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain, combinations, islice

import numpy as np
import torch
from torch import Tensor


def check_subsets(rule: object, n: int, f: int, max_subsets: int, source: str) -> None:
    """Raise ``ValueError`` unless n >= 2f + 1 and there are at most ``max_subsets`` subsets of n - f rows."""
    name = type(rule).__name__
    if not 0 <= 2 * f < n:
        raise ValueError(f"{name} needs f >= 0 and n >= 2f + 1 ({source}); got n={n}, f={f}")
    if (count := math.comb(n, f)) > max_subsets:
        raise ValueError(
            f"{name} needs C(n, f) <= max_subsets={max_subsets} subsets; got C({n}, {f}) = {count}. "
            "Lower f or the cohort, or raise max_subsets"
        )


def subsets(n: int, size: int, chunk: int) -> Iterator[Tensor]:
    """Yield the subsets of ``range(n)`` in lexicographic order, as many as ``chunk`` at a time: [at most chunk, size]."""
    every = combinations(range(n), size)
    while block := list(islice(every, chunk)):
        yield torch.from_numpy(np.fromiter(chain.from_iterable(block), np.int64, len(block) * size)).view(-1, size)
