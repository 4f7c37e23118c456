"""What weightings by loss share: the losses that clients claim, and shares that no single client dominates."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fedagg import Cohort


def check_caps(weighting: Any) -> None:
    """Raise ``ValueError`` unless ``loss_cap`` is > 0 and ``weight_cap`` lies in (0, 1], where they are not None."""
    name, loss_cap, weight_cap = type(weighting).__name__, weighting.loss_cap, weighting.weight_cap
    if loss_cap is not None and not loss_cap > 0:
        raise ValueError(f"{name} needs loss_cap > 0, or None for no cap; got loss_cap={loss_cap}")
    if weight_cap is not None and not 0 < weight_cap <= 1:
        raise ValueError(f"{name} needs 0 < weight_cap <= 1, or None for no cap; got weight_cap={weight_cap}")


def claimed_losses(weighting: Any, cohort: Cohort) -> Tensor:
    """Return [n] float64: the loss of the received model that each client reports, at most ``loss_cap``."""
    losses = cohort.reported("loss_before", weighting).to(cohort.params.device, torch.float64)
    for client, loss in zip(cohort.client_ids, losses.tolist(), strict=True):
        if loss < 0:
            raise ValueError(f"{type(weighting).__name__} needs losses >= 0; client {client} reports loss_before={loss}")
    return losses if weighting.loss_cap is None else losses.clamp(max=weighting.loss_cap)


def capped_shares(weighting: Any, logs: Tensor) -> Tensor:
    """Return [n] of sum 1, proportional to the exponentials of ``logs`` [n] except that none exceeds ``weight_cap``.

    What a client is cut of goes to the others, in proportion to theirs. Minus infinity is a share of 0.
    """
    cap: float | None = weighting.weight_cap
    shares = torch.softmax(logs, dim=0)
    if cap is None or bool((shares <= cap).all()):
        return shares
    counted = int((logs > -math.inf).sum())
    if counted * cap < 1 - 1e-12:
        raise ValueError(
            f"{type(weighting).__name__} needs weight_cap >= 1/n, or the weights cannot sum to 1; got "
            f"weight_cap={cap}, n={counted} clients of positive weight"
        )
    ordered, order = logs.sort(descending=True)
    totals = ordered.flip(0).logcumsumexp(dim=0).flip(0)  # [k]: of the clients that are left when k have been cut
    left = 1 - cap * torch.arange(len(logs), dtype=logs.dtype, device=logs.device)
    k = int(((ordered - totals).exp() * left <= cap * (1 + 1e-12)).nonzero()[0])
    shares[order[:k]] = cap
    shares[order[k:]] = (ordered[k:] - totals[k]).exp() * left[k]
    return shares
