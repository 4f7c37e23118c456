"""What a pre-aggregator promises."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fedagg.testing.core import Check, demand, demand_close, devices
from fedagg.testing.inputs import cases_of
from fedagg.testing.rules import DTYPES, ROUNDINGS, bounds, fresh, non_finite


def mixed_shape(pre: Any) -> None:
    """[n, d] gives [n', d] with 1 <= n' <= n, finite, with the rows' dtype and on their device."""
    for case in cases_of(pre):
        with case:
            n, d = case.updates.shape
            for device in devices():
                for dtype in DTYPES if case.updates.abs().max() > 0.1 else DTYPES[:2]:
                    got = case.to(device, dtype).call(fresh(pre))
                    demand(isinstance(got, Tensor), f"the call returned {type(got).__name__}, not a tensor")
                    found = f"{got.dtype} {list(got.shape)} on {got.device.type}"
                    right = got.ndim == 2 and 1 <= len(got) <= n and got.shape[1] == d
                    demand(right and (got.dtype, got.device.type) == (dtype, device), f"{dtype} [{n}, {d}] became {found}")
                    demand(bool(got.isfinite().all()), f"the result is not finite with {dtype}: {got.tolist()}")


def mixed_precision(pre: Any) -> None:
    """In every dtype the result is that of the same values in float64, up to 32 machine epsilons of the largest entry."""
    for case in cases_of(pre):
        with case:
            for dtype in DTYPES[1:] if case.updates.abs().max() > 0.1 else DTYPES[1:2]:
                rounded = case.to("cpu", dtype)
                exact = rounded.to("cpu", torch.float64).call(fresh(pre))
                allowed = ROUNDINGS * torch.finfo(dtype).eps * float(case.updates.abs().max())
                demand_close(rounded.call(fresh(pre)), exact, allowed, f"{dtype} against float64 with the same values")


def equal_rows_stay(pre: Any) -> None:
    """Clients that all send the same row leave nothing but that row, up to rounding."""
    for case in cases_of(pre):
        row = case.updates[0]
        with replace(case, updates=row.repeat(len(case.updates), 1)) as equal:
            got = equal.call(fresh(pre))
            demand_close(got, row.expand_as(got), 1e-12 * float(row.abs().max()), "equal rows")


PRE_AGGREGATOR = (
    Check(mixed_shape),
    Check(mixed_precision),
    Check(bounds),
    Check(non_finite),
    Check(equal_rows_stay),
)
