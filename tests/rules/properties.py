"""What a rule may promise, one function per property. Each takes a rule and a float64 matrix and asserts."""

import random
from contextlib import contextmanager

import numpy as np
import torch

import strategies


def close(got, wanted, tolerance=1e-9):
    torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)


def permutation_invariant(rule, updates):
    order = torch.randperm(len(updates), generator=torch.Generator().manual_seed(len(updates)))
    close(rule(updates[order]), rule(updates))


def translation_equivariant(rule, updates):
    shift = torch.linspace(-3.0, 5.0, updates.shape[1], dtype=updates.dtype)
    close(rule(updates + shift), rule(updates) + shift)


def scale_equivariant(rule, updates):
    for scale in (1e-3, 2.5):
        close(rule(scale * updates), scale * rule(updates))


def orthogonally_equivariant(rule, updates):
    d = updates.shape[1]
    square = torch.randn(d, d, generator=torch.Generator().manual_seed(d), dtype=updates.dtype)
    turn = torch.linalg.qr(square).Q
    close(rule(updates @ turn), rule(updates) @ turn)


INVARIANCES = {
    "permutation": permutation_invariant,
    "translation": translation_equivariant,
    "scale": scale_equivariant,
    "orthogonal": orthogonally_equivariant,
}


def equal_rows_give_that_row(rule, updates):
    row = updates[0]
    close(rule(row.repeat(len(updates), 1)), row, 1e-15)


def inside_the_honest_hull(rule, honest, byzantine):
    result = rule(torch.cat([honest, byzantine]))
    slack = 1e-12 * (1 + honest.abs().amax(0))
    assert (result >= honest.amin(0) - slack).all()
    assert (result <= honest.amax(0) + slack).all()


def attacked(honest, f, size=1e30):
    """The rows with f more, however these are placed far out."""
    d = honest.shape[1]
    signs = torch.ones(f, d, dtype=honest.dtype)
    signs[1::2] = -1
    for rows in (torch.ones(f, d), signs, torch.eye(f, d)):
        far = size * rows.to(honest.dtype)
        yield torch.cat([honest, far])
        yield torch.cat([far, honest])


def bounded_under_attack(rule, honest, f):
    """However the f rows are placed far out, the result is no longer than an honest row can be."""
    longest = honest.shape[1] ** 0.5 * torch.linalg.vector_norm(honest, dim=1).max()
    for updates in attacked(honest, f):
        assert torch.linalg.vector_norm(rule(updates)) <= longest


def inputs_untouched(rule, updates):
    before, weights = updates.clone(), torch.linspace(0.1, 1.0, len(updates), dtype=updates.dtype)
    weights_before = weights.clone()
    result = rule(updates, weights)
    result.fill_(7.0)  # nor is the result a view of them
    assert torch.equal(updates, before)
    assert torch.equal(weights, weights_before)


def dtype_and_device_kept(rule, updates, device):
    wanted = rule(updates)
    for dtype in (torch.float32, torch.float64):
        got = rule(updates.to(device, dtype))
        assert (got.dtype, got.device.type, got.shape) == (dtype, device, updates.shape[1:])
        close(got.cpu().double(), wanted, 1e-5 if dtype == torch.float32 else 1e-9)


def weights_ignored(rule, updates):
    claims = torch.ones(len(updates), dtype=updates.dtype)
    claims[-1] = 1e9
    assert torch.equal(rule(updates, claims), rule(updates))


def client_weights_agree(rule, updates):
    weights = rule.client_weights(updates)
    assert (weights.dtype, weights.shape) == (updates.dtype, updates.shape[:1])
    result = rule(updates)
    close(weights @ updates, result)
    assert torch.equal(rule.last_info["client_weights"], weights)


def columns_may_be_cut(rule, updates):
    for width in (1, 2):
        parts = [rule(updates[:, start : start + width]) for start in range(0, updates.shape[1], width)]
        close(torch.cat(parts), rule(updates), 1e-12)


def non_finite_rows_are_not_used(rule, updates):
    """A rule either refuses such a row, naming it, or does without it."""
    for value in (float("nan"), float("inf"), float("-inf"), 1e200):
        for place in (0, len(updates) - 1):
            broken = updates.clone()
            broken[place, 0] = value
            try:
                result = rule(broken)
            except ValueError as error:
                assert value == 1e200 or f"[{place}]" in str(error)  # noqa: PT017
            else:
                assert result.isfinite().all()
                assert result.abs().max() < 1e100


def repr_pastes_back(rule):
    assert eval(repr(rule), {**vars(strategies)}) == rule


@contextmanager
def global_generators_untouched():
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    assert random.getstate() == before[0]
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), before[1], strict=True))
    assert torch.equal(torch.get_rng_state(), before[2])
