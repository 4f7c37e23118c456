"""Sums and distances over the rows of ``updates [n, d]``, without a float64 copy of the matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

COLUMNS = 1 << 13  # a column block of this width keeps the float64 working copy in the cache
BLOCK = 1 << 12  # so many columns are multiplied in the rows' own precision before the sum goes on in float64
CUDA_BLOCK = 1 << 18  # the same on a GPU, which is kept busy by fewer and larger ones
COMFORTABLE = {torch.float32: (1e-6, 1e15), torch.float64: (1e-140, 1e150)}  # norms of rows whose squares keep their digits
PANEL = 32  # so many rows are added up in their own precision before the sum goes on in float64


def weighted_sum(updates: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return ``sum_i w_i u_i``, of at most 32 rows at a time in their own precision, and of those partial sums in float64.

    The error is then that of a sum of 32 terms, however many rows there are, at the price of reading the rows once.

    Args:
        updates: [n, d].
        weights: [n], applied as they are; None means 1/n each.

    Returns:
        [d], dtype and device of ``updates``.
    """
    n, d = updates.shape
    if n == 0:
        raise ValueError("a weighted sum needs n >= 1 rows; got n=0")
    if weights is None:
        return _mean(updates)
    if weights.shape != (n,):
        raise ValueError(f"weights must have shape [{n}], one for each row; got {list(weights.shape)}")
    coefficients = weights.to(updates.device, updates.dtype)
    if n <= PANEL:
        return coefficients @ updates
    total = torch.zeros(d, dtype=torch.float64, device=updates.device)
    for start in range(0, n, PANEL):
        panel = slice(start, start + PANEL)
        total += coefficients[panel] @ updates[panel]
    return total.to(updates.dtype)


def _mean(updates: Tensor) -> Tensor:
    """Return the mean row, added up like a weighted sum, which takes twice as long."""
    if len(updates) <= PANEL:
        return updates.mean(dim=0)
    total = torch.zeros(updates.shape[1], dtype=torch.float64, device=updates.device)
    for start in range(0, len(updates), PANEL):
        total += updates[start : start + PANEL].sum(dim=0, dtype=_at_least_single(updates.dtype))
    return (total / len(updates)).to(updates.dtype)


def wide_sum(updates: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return what ``weighted_sum`` does, for finite rows whose partial sums leave the range of their dtype; it is slower."""
    largest = updates.abs().amax().double()
    total = [weighted_sum(updates[:, block].double() / largest, weights) * largest for block in _blocks(updates)]
    return torch.cat(total).to(updates.dtype)


def weighted_sums(updates: Tensor, coefficients: Tensor) -> Tensor:
    """Return ``coefficients @ updates`` with the precision of ``weighted_sum``.

    Args:
        updates: [n, d].
        coefficients: [m, n].

    Returns:
        [m, d], dtype and device of ``updates``.
    """
    n, d = updates.shape
    mixed = torch.empty(len(coefficients), d, dtype=updates.dtype, device=updates.device)
    factors = coefficients.to(updates.device, _at_least_single(updates.dtype))
    for block in _blocks(updates):
        rows = updates[:, block].to(factors.dtype)
        total = factors[:, :PANEL] @ rows[:PANEL]
        if n > PANEL:
            total = total.double()
        for start in range(PANEL, n, PANEL):
            panel = slice(start, start + PANEL)
            total += factors[:, panel] @ rows[panel]
        mixed[:, block] = total
    return mixed


def squared_distances(updates: Tensor) -> Tensor:
    """Return the squared Euclidean distances between rows, right to about 1e-5 in float32 and 1e-12 in float64.

    They come from the inner products of the rows. Rows that are much closer to each other than to the origin (rows with much
    in common, colluders at 1e12) would cancel; such a group is computed again from its rows minus one of them, and so on:
    rows that point almost the same way cost a second pass, and a row placed to do harm at most one pass over its group.

    Args:
        updates: [n, d], finite.

    Returns:
        [n, n] float64, symmetric, zero diagonal, never negative; the same for equal rows, and infinite where squares overflow.
    """
    n = len(updates)
    distances = torch.zeros(n, n, dtype=torch.float64, device=updates.device)
    if n == 0:
        return distances
    dtype = _product_dtype(updates)
    tolerance = 1e-2 if dtype == torch.float32 else 1e-3
    groups: list[tuple[Tensor, Tensor | None]] = [(torch.arange(n, device=updates.device), None)]
    while groups:
        rows, center = groups.pop()
        products = _products(updates, dtype, rows, center)
        squares = products.diagonal()
        total = squares[:, None] + squares[None, :]
        found = total - (products + products.T)
        distances[rows[:, None], rows] = found
        for group, center_row in _close_groups(rows, (found < tolerance * total).fill_diagonal_(False)):
            groups.append((group, updates[center_row]))
    distances.nan_to_num_(nan=math.inf, posinf=math.inf, neginf=math.inf).clamp_(min=0.0).fill_diagonal_(0.0)
    first = (distances == 0).int().argmax(dim=1)  # equal rows differ by rounding in their distances to others
    return distances[first[:, None], first]


def row_norms(updates: Tensor, center: Tensor | None = None) -> Tensor:
    """Return the Euclidean norms [n] of the rows of ``updates`` [n, d], or of these minus ``center`` [d], in float64."""
    squares = torch.zeros(len(updates), dtype=torch.float64, device=updates.device)
    dtype = _at_least_single(updates.dtype)
    for block in _blocks(updates, 4):
        rows = updates[:, block].to(dtype)
        rows = rows if center is None else rows - center[block].to(dtype)
        squares += torch.linalg.vector_norm(rows, dim=1).double().square()
    norms = squares.sqrt()
    low, high = COMFORTABLE[dtype]
    for i in (~((norms > low) & (norms < high))).nonzero().flatten().tolist():  # squares may have left the range of dtype
        row = updates[i].double() if center is None else updates[i].double() - center.double()
        largest = row.abs().amax() if len(row) else norms[i]
        norms[i] = largest * torch.linalg.vector_norm(row / largest) if 0 < largest < math.inf else largest
    return norms


def gram(updates: Tensor, center: Tensor | None = None) -> Tensor:
    """Return the inner products of the rows as they are, or minus ``center`` [d], right to about 1e-6 of the norms' product.

    Args:
        updates: [n, d].
        center: [d]; None leaves the rows as they are.

    Returns:
        [n, n] float64, symmetric.
    """
    products = _products(updates, _product_dtype(updates), torch.arange(len(updates), device=updates.device), center)
    return (products + products.T) / 2


def centred_gram(distances: Tensor) -> Tensor:
    """Return the inner products [n, n] of rows minus their mean row, from their squared ``distances`` [n, n]."""
    to_mean = distances.mean(dim=1)
    return (to_mean[:, None] + to_mean[None, :] - to_mean.mean() - distances) / 2


def _products(updates: Tensor, dtype: torch.dtype, rows: Tensor, center: Tensor | None) -> Tensor:
    """Return the inner products of some rows minus ``center``: within blocks of columns in ``dtype``, of these in float64."""
    m = len(rows)
    picked = rows if m < len(updates) else None
    products = torch.zeros(m, m, dtype=torch.float64, device=updates.device)
    moved = torch.empty(m, min(updates.shape[1], _width(updates)), dtype=dtype, device=updates.device)
    for block in _blocks(updates):
        part = (updates[:, block] if picked is None else updates[picked, block]).to(dtype)
        if center is not None:
            part = torch.sub(part, center[block].to(dtype), out=moved[:, : part.shape[1]])
        products += part @ part.T
    return products


def _close_groups(rows: Tensor, close: Tensor) -> list[tuple[Tensor, int]]:
    """Return the groups that the pairs ``close`` [m, m] connect among ``rows`` [m], each with its best connected row."""
    if not close.any():
        return []
    m = len(rows)
    label = torch.arange(m, device=rows.device)
    while True:
        lower = torch.where(close, label[None, :], m).amin(dim=1).minimum(label)
        if torch.equal(lower, label):
            break
        label = lower
    partners = close.sum(dim=1)
    groups = []
    for first in sorted(set(label[partners > 0].tolist())):
        members = (label == first).nonzero().flatten()
        groups.append((rows[members], int(rows[members[partners[members].argmax()]])))
    return groups


def _product_dtype(updates: Tensor) -> torch.dtype:
    """Return the precision of products: the rows' own, unless squares could leave its range or torch would round them."""
    dtype = _at_least_single(updates.dtype)
    low, high = COMFORTABLE[dtype]
    norms = row_norms(updates)
    fits = ((norms == 0) | ((norms > low) & (norms < high))).all() and torch.get_float32_matmul_precision() == "highest"
    return dtype if fits else torch.float64


def _at_least_single(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _width(updates: Tensor) -> int:
    return CUDA_BLOCK if updates.is_cuda else BLOCK


def _blocks(updates: Tensor, times: int = 1) -> Iterator[slice]:
    """Yield slices of the columns, so many times as wide as those of products."""
    width = times * _width(updates)
    for start in range(0, updates.shape[1], width):
        yield slice(start, start + width)
