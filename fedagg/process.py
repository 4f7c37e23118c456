"""What a process that trains is set to before anything is built in it."""

from __future__ import annotations

import ctypes
import sys

import torch

# of glibc's malloc.h: from how many bytes on a block is mapped from the system, and unmapped when freed; and how many may
# lie free at the end of the heap
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
_LARGEST_KEPT = 1 << 30


def prepare_process(threads: int) -> None:
    """Compute with so many threads, and keep freed memory for the next tensor.

    By default glibc gives every block over 32 MiB back to the system, which hands it out again page by page, filled with
    zeros: more than a third of the time in which a convolutional network is evaluated. What is kept is what the process once
    held. No result depends on it, and where malloc is another one nothing changes.
    """
    torch.set_num_threads(threads)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
        mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST_KEPT - 1)
