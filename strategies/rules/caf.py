"""CAF: covariance-bound agnostic filter, weigh clients down in the direction in which they vary most.

Allouah, Guerraoui and Stephan, "Towards Trustworthy Federated Learning with Untrusted Participants", ICML 2025.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fedagg import Rule
from fedagg.contracts import check_rows
from strategies.rules._distances import checked_distances

UNMOVED = 1e-6  # a part of a weight that is not worth waiting for


@dataclass(frozen=True)
class CAF(Rule):
    """Filter softly, and return the weighted mean that varied least. Starting from c_i = 1, while sum c > n - 2f:

        m = sum_i c_i u_i / sum c,  (l, v) = top eigenpair of sum_i c_i (u_i - m)(u_i - m)^T / sum c,
        t_i = ((u_i - m) . v)^2 for all rows,  c_i <- c_i (1 - t_i / max t).

    The result is the m of the pass with the least l. The filter stops early where max t = 0.

    Args:
        f: Byzantine clients tolerated: how far the weights may fall. 0 gives the plain mean.
        max_iters: passes after which the filter stops, and says so in ``last_info["fallback"]``; so it does earlier, once the
            passes that remain would no longer take a millionth from any weight.

    Shapes: updates [n, d] -> delta [d]. Weights are the clients' own claims, so they are not used.
    Bound: n >= 2f + 1.
    Cost: time O(n^2 d + passes n^3), memory the distances [n, n] and one block of columns. The eigenpair comes from the n x n
        Gram matrix. Rows of weight 0 still take part in max t, which can make for hundreds of passes.
    Differs from the source: nothing known. Rows so long that their squares overflow start with c_i = 0.
    Diagnostics: ``last_info`` holds ``eigenvalue``, the least l, ``iterations``, the passes, and ``client_weights`` [n].

    Example:
        >>> updates = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.5, 1.5], [2.0, 2.0], [10.0, -10.0]])
        >>> CAF(f=1)(updates)
        tensor([1.6636, 1.6474])
    """

    invariances = frozenset({"permutation", "translation", "scale", "orthogonal"})

    f: int
    max_iters: int = 10_000

    def client_weights(self, updates: Tensor) -> Tensor:
        """Return [n]: c_i / sum c of the pass with the least eigenvalue."""
        n, _ = check_rows(self, updates)
        if not 0 <= 2 * self.f < n:
            raise ValueError(f"CAF needs f >= 0 and n >= 2f + 1 (Allouah et al. 2025); got n={n}, f={self.f}")
        every, usable = checked_distances(self, updates)
        rows = usable.nonzero().flatten()
        distances = every[rows[:, None], rows].cpu()
        unit = float(distances.max()) or 1.0  # so that squares of squared distances stay in range
        distances /= unit
        c = torch.ones(len(rows), dtype=torch.float64)
        best, shares, passes = math.inf, c / c.sum(), 0
        self.last_info.pop("fallback", None)
        while float(c.sum()) > n - 2 * self.f:
            passes += 1
            p = c / c.sum()
            eigenvalue, spread = _top_direction(distances, p)
            if eigenvalue < best:
                best, shares = eigenvalue, p
            if float(spread.max()) == 0:
                break
            lost = spread / spread.max()
            if float(lost[c > 0].max()) * (self.max_iters - passes) < UNMOVED:
                self.last_info["fallback"] = f"stopped after {passes} passes, the weights hardly move"
                break
            c = c * (1 - lost)
        self.last_info.update(eigenvalue=best * unit if passes else None, iterations=passes)
        weights = torch.zeros(n, dtype=updates.dtype, device=updates.device)
        weights[rows] = shares.to(weights.device, weights.dtype)
        return weights


def _top_direction(distances: Tensor, p: Tensor) -> tuple[float, Tensor]:
    """Return the top eigenvalue of the covariance under probabilities ``p`` [n], and each row's squared projection on it [n].

    With G the inner products of rows minus the mean and S = diag(sqrt p), the covariance and S G S share their eigenvalues; if
    S G S w = l w, row i has the projection (G S w)_i / sqrt l.
    """
    to_mean = distances @ p
    grams = (to_mean[:, None] + to_mean[None, :] - p @ to_mean - distances) / 2
    root = p.sqrt()
    values, vectors = torch.linalg.eigh(root[:, None] * grams * root[None, :])
    eigenvalue = float(values[-1])
    if eigenvalue <= 0:
        return 0.0, torch.zeros_like(p)
    return eigenvalue, (grams @ (root * vectors[:, -1])).square() / eigenvalue
