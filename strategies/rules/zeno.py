"""Zeno: average the rows that lower the loss on the server's own examples most, and are not long.

Xie, Koyejo, Gupta, "Zeno: Distributed Stochastic Gradient Descent with Suspicion-based Fault-tolerance", ICML 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedagg import Rule
from fedagg.contracts import check_rows
from strategies.rules._krum_scores import equal_weights
from strategies.rules._norms import finite_norms


@dataclass(frozen=True)
class Zeno(Rule):
    """Average the n - f rows of highest score. With L the loss, on examples of the server, at the current parameters plus a
    step, row i scores

        s_i = L(0) - L(gamma u_i) - rho ||u_i||^2.

    Args:
        f: rows to leave out. It may be more than half of them: the server's examples decide, not a majority.
        rho: price of length. More leaves out long rows even if they lower the loss.
        gamma: how much of a row is tried. Updates contain the learning rate already, so the whole row is.
        loss: L, from a step [d] to a number. None: it is given with every call, as the engine does. One given with a call
            wins.

    Shapes: updates [n, d] -> delta [d]. Weights are the clients' own claims, so they are not used.
    Bound: n >= f + 1, and a loss.
    Cost: n + 1 losses, and time O(n d).
    Ties: of equal scores the lower row comes first. A row whose loss is not finite comes last, and is never averaged.
    Differs from the source: it tries steps against gradients; rows here are steps already, hence gamma = 1.
    Diagnostics: ``last_info`` holds ``scores`` [n], ``selected`` [n - f], best first, and ``client_weights`` [n].

    Example:
        >>> updates = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-5.0, 0.0]])
        >>> Zeno(f=1)(updates, loss=lambda step: float((step - 1).square().sum()))
        tensor([0.5000, 0.5000])
    """

    invariances = frozenset({"permutation"})
    needs = frozenset({"loss"})

    f: int
    rho: float = 5e-4
    gamma: float = 1.0
    loss: Callable[[Tensor], float] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.rho < math.inf and 0 < self.gamma < math.inf):
            raise ValueError(f"Zeno needs a finite rho >= 0 and gamma > 0; got rho={self.rho}, gamma={self.gamma}")

    def client_weights(self, updates: Tensor, *, loss: Callable[[Tensor], float] | None = None) -> Tensor:
        """Return [n]: 1/(n - f) for the rows of highest score, 0 for the others."""
        n, d = check_rows(self, updates)
        loss = self.loss if loss is None else loss
        if loss is None:
            raise ValueError("Zeno needs loss, a function of a step on examples that the server trusts; it was not given")
        if self.f < 0 or n < self.f + 1:
            raise ValueError(f"Zeno needs f >= 0 and n >= f + 1 (Xie et al. 2019); got n={n}, f={self.f}")
        norms = finite_norms(self, updates).cpu()
        before = float(loss(updates.new_zeros(d)))
        after = torch.tensor([float(loss(self.gamma * row)) for row in updates], dtype=torch.float64)
        scores = before - after - self.rho * norms.square()
        ranked = torch.where(scores.isfinite(), scores, -math.inf).sort(descending=True, stable=True)
        selected = ranked.indices[: n - self.f]
        if not ranked.values[: n - self.f].isfinite().all():
            found = f"f={self.f}, loss(0)={before}, scores={scores.tolist()}"
            raise ValueError(f"Zeno needs n - f rows with a finite loss; got {found}")
        self.last_info.update(scores=scores, selected=selected)
        return equal_weights(updates, selected)

    def __call__(
        self,
        updates: Tensor,
        weights: Tensor | None = None,
        *,
        loss: Callable[[Tensor], float] | None = None,
    ) -> Tensor:
        """Return the mean [d] of the rows of highest score."""
        return self.combine(updates, self.client_weights(updates, loss=loss))
