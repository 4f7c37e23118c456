"""How the clients vote on the sign of every coordinate."""

from __future__ import annotations

import torch
from torch import Tensor

from fedagg.contracts import check_rows
from fedagg.linalg import COLUMNS
from strategies.rules._norms import finite_norms


def sign_sums(rule: object, updates: Tensor) -> Tensor:
    """Return ``sum_i sign(u_i)`` [d], exact, in float32.

    Raises ``ValueError`` where there is no row, or a row that is not fit to be used.
    """
    n, d = check_rows(rule, updates)
    if n == 0:
        raise ValueError(f"{type(rule).__name__} needs n >= 1; got n=0")
    finite_norms(rule, updates)
    sums = torch.empty(d, dtype=torch.float32, device=updates.device)
    for start in range(0, d, COLUMNS):
        block = slice(start, start + COLUMNS)
        sums[block] = updates[:, block].sign().sum(dim=0, dtype=torch.float32)
    return sums
