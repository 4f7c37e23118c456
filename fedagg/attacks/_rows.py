"""What the attacks share: statistics of the honest rows, and rows for the Byzantine clients."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fedagg.linalg import COLUMNS


def row_mean(honest: Tensor) -> Tensor:
    """Return the mean [d] of every coordinate of ``honest`` [h >= 1, d], in float64."""
    mean = torch.empty(honest.shape[1], dtype=torch.float64, device=honest.device)
    for start in range(0, len(mean), COLUMNS):
        block = slice(start, start + COLUMNS)
        mean[block] = honest[:, block].mean(dim=0, dtype=torch.float64)
    return mean


def mean_and_std(honest: Tensor, ddof: int) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation of every coordinate, in float64.

    The deviations are taken from the mean before they are squared, so a large common part does not cancel. One block of
    columns at a time is held in float64.

    Args:
        honest: [h >= 1, d].
        ddof: the squares are divided by h - ddof, which must be at least 1.

    Returns:
        [d] and [d].
    """
    h, d = honest.shape
    mean, std = torch.empty(2, d, dtype=torch.float64, device=honest.device)
    for start in range(0, d, COLUMNS):
        block = slice(start, start + COLUMNS)
        rows = honest[:, block].double()
        mean[block] = rows.mean(dim=0)
        std[block] = ((rows - mean[block]).square().sum(dim=0) / (h - ddof)).sqrt()
    return mean, std


def around(honest: Tensor, center: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Return how long the rows are, seen from ``center``, and how far they go along ``direction``, in float64.

    Args:
        honest: [h, d].
        center: [d], subtracted from every row.
        direction: [d], of any length.

    Returns:
        ``||x_i - center||^2`` and ``<x_i - center, direction>``, both [h].
    """
    squares, products = torch.zeros(2, len(honest), dtype=torch.float64, device=honest.device)
    for start in range(0, honest.shape[1], COLUMNS):
        block = slice(start, start + COLUMNS)
        rows = honest[:, block].double() - center[block]
        squares += rows.square().sum(dim=1)
        products += rows @ direction[block]
    return squares, products


def whole_share(share: float, of: int) -> int:
    """Return ``floor(share * of)``; a product that misses an integer by rounding only (0.29 * 100) is that integer."""
    return math.floor(share * of + 1e-9)


def same_rows(row: Tensor, f: int, like: Tensor) -> Tensor:
    """Return ``f`` copies [f, d] of ``row`` [d], with the dtype and the device of ``like``."""
    return row.to(like.device, like.dtype).repeat(f, 1)


def own_rows(attack: object, own: Tensor | None, f: int, like: Tensor) -> Tensor:
    """Return a copy of ``own`` [f, d] with the dtype and the device of ``like`` [h, d]; ``ValueError`` where it is missing.

    With f = 0 there is nobody whose rows could be missing.
    """
    shape = (f, like.shape[1])
    if own is None and f == 0:
        return like.new_empty(shape)
    if own is None or own.shape != shape:
        found = "none" if own is None else f"shape {list(own.shape)}"
        raise ValueError(
            f"{type(attack).__name__} needs own= of shape {list(shape)}, the Byzantine clients' updates; got {found}"
        )
    return own.to(like.device, like.dtype, copy=True)
