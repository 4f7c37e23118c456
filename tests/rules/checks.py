"""What several tests of rules share: rows, comparisons, and the checks that hold for every rule that weighs clients."""

import pytest
import torch

from . import properties
from .test_properties import DEVICES


def double(rows):
    return torch.tensor(rows, dtype=torch.float64)


def same(got, wanted, tolerance=1e-10):
    torch.testing.assert_close(got, double(wanted), rtol=tolerance, atol=tolerance)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def holds_anyhow(rule, updates, tolerance=1e-5):
    """Inputs, claimed weights, global generators, dtypes and devices; ``rule`` may be any function of (rows, weights)."""
    properties.inputs_untouched(rule, updates)
    properties.weights_ignored(rule, updates)
    with properties.global_generators_untouched():
        wanted = rule(updates)
    for device in DEVICES:
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            got = rule(updates.to(device, dtype))
            assert (got.dtype, got.device.type, got.shape) == (dtype, device, updates.shape[1:])
            assert got.isfinite().all()
        got = rule(updates.to(device, torch.float32)).cpu().double()
        torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)


def refuses_what_is_no_update(rule):
    """Rows of NaN, of infinity, and of numbers whose square is not finite are named."""
    for value in (float("nan"), float("inf"), 1e200):
        updates = torch.randn(7, 3, generator=seeded(0), dtype=torch.float64)
        updates[[1, 4], 2] = value
        with pytest.raises(ValueError, match=r"needs .* rows \[1, 4\]"):
            rule(updates)
