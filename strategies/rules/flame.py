"""FLAME: keep the majority that points one way, clip it to the median norm, and hide the rest in noise.

Nguyen et al., "FLAME: Taming Backdoors in Federated Learning", USENIX Security 2022.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from fedagg import Rule
from fedagg.contracts import check_rows, private_generator
from fedagg.linalg import gram
from strategies.rules._fallback import report_fallback
from strategies.rules._norms import clip_factors, cosines, finite_norms, resolution


@dataclass(frozen=True)
class FLAME(Rule):
    """Cluster the rows by their cosine distances 1 - cos(u_i, u_j), with HDBSCAN and clusters of more than n/2 rows. With K
    the rows of that cluster, and S the median norm of all rows, return

        (1/|K|) sum_{i in K} u_i min(1, S / ||u_i||) + N(0, (lam S)^2) in every coordinate.

    Args:
        lam: size of the noise. More drowns what is left of a backdoor, and the model with it; 0 adds none. For differential
            privacy of (eps, delta) it is sqrt(2 ln(1.25 / delta)) / eps.
        generator: source of the noise. None: the engine lends one from the seed tree, and a direct call uses seed 0 each time.

    Shapes: updates [n, d] -> delta [d]. Weights are the clients' own claims, so they are not used.
    Bound: n >= 3, and a majority of honest clients that point one way. Then no row counts with more than the median norm.
    Cost: time O(n^2 d), memory one block of columns in float64. Noise is drawn in float64 on the CPU.
    Differs from the source: for even n the median is the midpoint. A zero row has cosine 0 with all. Distances that rounding
        cannot tell from 0 are equal and not 0, where HDBSCAN would keep everybody; where it finds no cluster, all are kept.
    Diagnostics: ``last_info`` holds ``selected``, ``clipped`` [n] (which of all rows are longer than S) and
        ``client_weights`` [n], which leave out the noise; ``fallback`` where no cluster was found.

    Example:
        >>> updates = torch.tensor([[1.0, 0.0], [1.0, 0.1], [4.0, 0.0], [1.0, -0.1], [-9.0, 9.0]])
        >>> FLAME(lam=0)(updates)
        tensor([1.0012, 0.0000])
    """

    random = True
    invariances = frozenset({"permutation", "scale", "orthogonal"})  # the last with lam = 0
    exempt = MappingProxyType(
        {
            "draws": "with lam = 0 it adds no noise",
            "equal_rows": "it adds noise",
            "client_weights": "the call adds noise to the weighted rows",
            "orthogonal": "noise does not turn with the rows",
            "common_part": "cosines of rows that point almost the same way differ by less than float32 can tell",
        }
    )

    lam: float = 0.001
    generator: torch.Generator | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.lam < math.inf:
            raise ValueError(f"FLAME needs a finite lam >= 0; got lam={self.lam}")

    def client_weights(self, updates: Tensor) -> Tensor:
        """Return [n]: 1/|K| times the clip factor for the rows kept, 0 for the others. No noise is drawn."""
        return self._weights(updates)[0]

    def __call__(self, updates: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the noisy mean [d] of the clipped majority."""
        client_weights, median = self._weights(updates)
        result = self.combine(updates, client_weights)
        if self.lam > 0:
            source = private_generator(self.generator)
            noise = torch.randn(result.shape, generator=source, dtype=torch.float64, device=source.device)
            result += noise.mul_(self.lam * median).to(result)
        return result

    def _weights(self, updates: Tensor) -> tuple[Tensor, float]:
        """Return the client weights, and the median norm."""
        from sklearn.cluster import HDBSCAN  # takes a second

        n, _ = check_rows(self, updates)
        if n < 3:
            raise ValueError(f"FLAME needs n >= 3 (Nguyen et al. 2022); got n={n}")
        norms = finite_norms(self, updates)
        distances = (1 - cosines(gram(updates))).clamp_(min=resolution(updates)).fill_diagonal_(0.0)
        majority = HDBSCAN(n // 2 + 1, min_samples=1, metric="precomputed", allow_single_cluster=True, copy=True)
        kept = torch.from_numpy(majority.fit(distances.cpu().numpy()).labels_ == 0).to(updates.device)
        report_fallback(self, None if kept.any() else "no majority points one way: all rows are kept")
        if not kept.any():
            kept[:] = True
        median = norms.quantile(0.5)
        factors = clip_factors(norms, median)
        self.last_info.update(selected=kept.nonzero().flatten(), clipped=factors < 1)
        return (kept * factors / kept.sum()).to(updates.dtype), float(median)
