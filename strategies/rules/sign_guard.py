"""SignGuard: leave out rows of unusual length, and rows whose signs are mixed unlike those of the most.

Xu et al., "Byzantine-robust Federated Learning through Collaborative Malicious Gradient Filtering", ICDCS 2022.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedagg import Rule
from fedagg.contracts import check_rows, private_generator
from fedagg.linalg import COLUMNS
from strategies.rules._fallback import report_fallback
from strategies.rules._norms import clip_factors, finite_norms


@dataclass(frozen=True)
class SignGuard(Rule):
    """With S the median norm of the rows, average, after clipping them to S, the rows that pass two filters:

        low S < ||u_i|| < high S, and
        in the biggest cluster that MeanShift finds among the shares of positive, zero and negative entries of each row,
        counted in a window of coordinates and divided by the largest such share of any row.

    Args:
        low: rows not longer than this many S are left out.
        high: rows not shorter than this many S are left out. Clipping makes it matter less.
        fraction: length of the window, of d coordinates. 1 looks at all of them, and nothing is drawn.
        generator: source of the window's place. None: the engine lends one from the seed tree, and a direct call uses seed 0
            each time.

    Shapes: updates [n, d] -> delta [d]. Weights are the clients' own claims, so they are not used.
    Bound: n >= 2, and a majority of honest clients. The result is never longer than S.
    Cost: time O(n d + n^2), memory one block of columns.
    Ties: of equally big clusters the one that MeanShift names first wins.
    Differs from the source: for even n the median is the midpoint. Where the two filters have no row in common, the first one
        decides alone; where no row has a usual length, the result is zero.
    Diagnostics: ``last_info`` holds ``features`` [n, 3], ``selected``, ``clipped`` [n] and ``client_weights`` [n];
        ``fallback`` where the filters left nobody.

    Example:
        >>> updates = torch.tensor([[1.0, 2.0, -1.0], [2.0, 1.0, -1.0], [1.0, 1.0, -2.0], [-1.0, -1.0, -2.0]])
        >>> SignGuard(fraction=1)(updates)
        tensor([ 1.3333,  1.3333, -1.3333])
    """

    random = True
    invariances = frozenset({"permutation", "scale"})

    low: float = 0.1
    high: float = 3.0
    fraction: float = 0.1
    generator: torch.Generator | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.low < self.high or not 0 < self.fraction <= 1:
            given = f"low={self.low}, high={self.high}, fraction={self.fraction}"
            raise ValueError(f"SignGuard needs 0 <= low < high and 0 < fraction <= 1; got {given}")

    def client_weights(self, updates: Tensor) -> Tensor:
        """Return [n]: the clip factor divided by how many rows are kept; 0 for the others."""
        n, _ = check_rows(self, updates)
        if n < 2:
            raise ValueError(f"SignGuard needs n >= 2 (Xu et al. 2022); got n={n}")
        norms = finite_norms(self, updates)
        median = norms.quantile(0.5)
        usual = (self.low * median < norms) & (norms < self.high * median)
        features = self._features(updates)
        kept = usual & _biggest_cluster(features)
        reason = None if kept.any() else "no row passes both filters: those of usual length are kept"
        if not kept.any():
            kept = usual
        report_fallback(self, reason if kept.any() else "no row has a usual length: the result is zero")
        factors = clip_factors(norms, median)
        self.last_info.update(features=features, selected=kept.nonzero().flatten(), clipped=factors < 1)
        return (kept * factors / kept.sum().clamp(min=1)).to(updates.dtype)

    def _features(self, updates: Tensor) -> Tensor:
        """Return [n, 3]: the shares of positive, zero and negative entries in a window, each divided by its largest."""
        d = updates.shape[1]
        width = max(1, int(self.fraction * d))
        start = 0
        if self.fraction < 1 and d:
            source = private_generator(self.generator)
            start = int(torch.randint(d - width + 1, (), generator=source, device=source.device))
        counts = torch.zeros(len(updates), 3, dtype=torch.float64, device=updates.device)
        for first in range(start, start + width, COLUMNS):
            signs = updates[:, first : min(first + COLUMNS, start + width)].sign()
            balance, signed = signs.sum(dim=1, dtype=torch.float64), signs.abs().sum(dim=1, dtype=torch.float64)
            counts += torch.stack([(signed + balance) / 2, signs.shape[1] - signed, (signed - balance) / 2], dim=1)
        return counts / counts.amax(dim=0).clamp(min=1.0)


def _biggest_cluster(features: Tensor) -> Tensor:
    """Return [n]: which rows of ``features`` [n, 3] are in the biggest cluster."""
    from sklearn.cluster import MeanShift, estimate_bandwidth  # takes a second

    points = features.cpu().numpy()
    bandwidth = estimate_bandwidth(points, quantile=0.5, random_state=0)
    if bandwidth <= 0:
        return torch.ones(len(features), dtype=torch.bool, device=features.device)
    labels = torch.from_numpy(MeanShift(bandwidth=bandwidth, cluster_all=False).fit(points).labels_)
    sizes = labels[labels >= 0].bincount()
    return (labels == int(sizes.argmax())).to(features.device)
