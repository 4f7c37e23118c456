"""The rows of a round: one matrix [n, d], whose memory serves again in the next round."""

from __future__ import annotations

import torch
from torch import Tensor


class RowBuffer:
    """Memory for a matrix of rows. Fresh memory costs a page fault every few kilobytes, so the last matrix is used again.

    It is not while anybody still holds a row of it: then the next round gets memory of its own.
    """

    def __init__(self) -> None:
        self._memory: Tensor | None = None

    def take(self, n: int, d: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return [n, d], uninitialised."""
        memory = self._memory
        fits = memory is not None and memory.shape[0] >= n and memory.shape[1] == d
        if memory is None or not fits or memory.dtype != dtype or memory.device != device or _holders(memory) > 1:
            self._memory = memory = None  # give it back before asking for more
            self._memory = memory = torch.empty(n, d, dtype=dtype, device=device)
        return memory[:n]


def stack_rows(vectors: list[Tensor]) -> Tensor:
    """Return [n, d] of n vectors [d]: a view where they are consecutive rows of one matrix already, else a copy."""
    first = vectors[0]
    d, start, step = first.shape[0], first.data_ptr(), first.shape[0] * first.element_size()
    storage = first.untyped_storage().data_ptr()
    adjacent = all(
        vector.data_ptr() == start + i * step and vector.is_contiguous() and vector.untyped_storage().data_ptr() == storage
        for i, vector in enumerate(vectors)
    )
    return first.as_strided((len(vectors), d), (d, 1)) if adjacent else torch.stack(vectors)


def _holders(tensor: Tensor) -> int:
    """Return how many tensors share the memory of ``tensor``, itself included."""
    storage = tensor.untyped_storage()
    count: int = torch._C._storage_Use_Count(storage._cdata)
    return count - 1  # ``storage`` itself
