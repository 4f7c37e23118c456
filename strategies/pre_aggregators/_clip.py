"""Shorten rows that are too long."""

from __future__ import annotations

import torch
from torch import Tensor

from strategies.rules._norms import clip_factors

FEW_DIGITS = 1e-37  # a factor below is a float32 with fewer digits


def clipped(updates: Tensor, norms: Tensor, longest: float) -> Tensor:
    """Return a copy of ``updates`` [n, d], of norms ``norms`` [n], in which no row is longer than ``longest``.

    Rows that are short enough are copied as they are.
    """
    factors = clip_factors(norms, longest)
    if updates.dtype in (torch.float32, torch.float64):
        result, coarse = updates * factors.to(updates.dtype)[:, None], factors < FEW_DIGITS
    else:
        result, coarse = updates.clone(), factors < 1
    for i in coarse.nonzero().flatten().tolist():
        result[i] = updates[i].double() * factors[i]
    return result
