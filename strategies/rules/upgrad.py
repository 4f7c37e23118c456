"""UPGrad: bend every row until it conflicts with no other, then average.

Quinton, Rey, "Jacobian Descent for Multi-Objective Optimization", arXiv 2406.16232.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedagg import Rule
from fedagg.contracts import check_rows
from fedagg.linalg import gram
from strategies.rules._norms import finite_norms


@dataclass(frozen=True)
class UPGrad(Rule):
    """Project every row onto the directions that have no negative inner product with any row, and add up the projections,
    each times its preference. With K = U U^T / trace + reg_eps I,

        w = sum_i argmin v^T K v  subject to  v >= pref_i e_i,        delta = w U.

    A step along the result harms no client, as far as rows are what clients want. That holds for Byzantine rows too: **it is
    not robust**. One row that points against all others can stop them or turn them around.

    Args:
        pref: preference of each row, n numbers >= 0; None gives each 1/n.
        norm_eps: a trace up to this counts as 0, which leaves the mean. 0 keeps the rule the same at every scale.
        reg_eps: makes the minimum unique. More trades a little conflict for smaller weights.

    Shapes: updates [n, d] -> delta [d]. Weights are the clients' own claims, so they are not used.
    Bound: n >= 1, and as many preferences as rows.
    Cost: time O(n^2 d) and n least squares problems of size n; memory one block of columns in float64.
    Differs from the source: its library has norm_eps 1e-4, at which short updates silently become the mean.
    Diagnostics: ``last_info`` holds ``client_weights`` [n], which need not sum to 1.

    Example:
        >>> import torch
        >>> UPGrad()(torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]))
        tensor([0.2929, 1.9004, 1.9004])
    """

    invariances = frozenset({"permutation", "scale", "orthogonal"})

    pref: Sequence[float] | None = None
    norm_eps: float = 0.0
    reg_eps: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.norm_eps < math.inf and 0 <= self.reg_eps < math.inf):
            given = f"norm_eps={self.norm_eps}, reg_eps={self.reg_eps}"
            raise ValueError(f"UPGrad needs a finite norm_eps >= 0 and reg_eps >= 0; got {given}")
        if self.pref is not None:
            object.__setattr__(self, "pref", tuple(float(share) for share in self.pref))
            if not all(0 <= share < math.inf for share in self.pref):
                raise ValueError(f"UPGrad needs finite preferences >= 0; got pref={self.pref}")

    def client_weights(self, updates: Tensor) -> Tensor:
        """Return w [n]."""
        from scipy.optimize import nnls  # takes a while

        n, _ = check_rows(self, updates)
        pref = (1 / n,) * n if self.pref is None and n else self.pref
        if n == 0 or pref is None or len(pref) != n:
            raise ValueError(f"UPGrad needs n >= 1 rows and a preference for each; got n={n}, pref={self.pref}")
        finite_norms(self, updates)
        products = gram(updates).cpu().numpy()
        trace = products.trace()
        scaled = products / trace if trace > self.norm_eps else np.zeros_like(products)
        scaled += self.reg_eps * np.eye(n)
        values, vectors = np.linalg.eigh(scaled)
        root = np.sqrt(values.clip(min=0))[:, None] * vectors.T  # K = root^T root
        total = np.zeros(n)
        for i, share in enumerate(pref):  # v = share e_i + y with y >= 0
            v = nnls(root, -share * root[:, i])[0]
            free = v.nonzero()[0]
            v[i] += share
            v[free] -= np.linalg.lstsq(scaled[np.ix_(free, free)], scaled[free] @ v)[0]  # nnls can be 1e-6 off
            total += v.clip(min=0)
        return torch.from_numpy(total).to(updates.device, updates.dtype)
