"""FedVARP and MIFA as functions of the memory [N, d], the last update of every client, zero before its first."""

from __future__ import annotations

import torch
from torch import Tensor

from fedagg.linalg import weighted_sum


def fedvarp_step(memory: Tensor, participants: Tensor, updates: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(mean(y) + mean over participants of (u_i - y_i), memory with y_i := u_i)``; the step is zero without anybody.

    Args:
        memory: [N, d], the last update y_i of every client.
        participants: [n] int64, rows of ``memory``, each once.
        updates: [n, d], the u_i.

    Returns:
        delta [d] and the new memory [N, d].

    Example:
        >>> memory = torch.tensor([[0.5, 0.5], [1.0, 1.0], [0.0, 0.0]])
        >>> delta, memory = fedvarp_step(memory, torch.tensor([0, 2]), torch.tensor([[1.0, 0.0], [0.0, 4.0]]))
        >>> delta, memory.mean(dim=0)
        (tensor([0.7500, 2.2500]), tensor([0.6667, 1.6667]))
    """
    memory = memory.clone()
    return fedvarp_into(memory, participants, updates), memory


def mifa_step(memory: Tensor, participants: Tensor, updates: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(mean(y), memory)`` after y_i := u_i for the participants, who may be nobody.

    Args:
        memory: [N, d], the last update y_i of every client.
        participants: [n] int64, rows of ``memory``, each once.
        updates: [n, d], the u_i.

    Returns:
        delta [d] and the new memory [N, d].

    Example:
        >>> delta, memory = mifa_step(torch.zeros(3, 1), torch.tensor([0, 1]), torch.tensor([[-1.0], [-3.0]]))
        >>> mifa_step(memory, torch.tensor([1, 2]), torch.tensor([[-2.0], [6.0]]))
        (tensor([1.]), tensor([[-1.],
                [-2.],
                [ 6.]]))
    """
    memory = memory.clone()
    return mifa_into(memory, participants, updates), memory


def fedvarp_into(memory: Tensor, participants: Tensor, updates: Tensor) -> Tensor:
    """Return the delta [d] of ``fedvarp_step``, and change ``memory`` in place."""
    if not len(participants):
        return torch.zeros_like(memory[0])
    delta = weighted_sum(memory) + weighted_sum(updates - memory[participants])
    memory[participants] = updates
    return delta


def mifa_into(memory: Tensor, participants: Tensor, updates: Tensor) -> Tensor:
    """Return the delta [d] of ``mifa_step``, and change ``memory`` in place."""
    memory[participants] = updates
    return weighted_sum(memory)
