"""Divide and conquer: leave out the rows that stand out most in the direction in which the rows differ most.

Shejwalkar, Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses for Federated Learning",
NDSS 2021.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from fedagg import Rule
from fedagg.contracts import check_rows, private_generator
from fedagg.linalg import centred_gram, squared_distances
from strategies.rules._fallback import report_fallback
from strategies.rules._krum_scores import equal_weights
from strategies.rules._norms import finite_norms

DIGITS = 9  # components of a singular vector are right to about twelve
TINY = 1e-300  # instead of dividing by the zero that equal rows score


@dataclass(frozen=True)
class DnC(Rule):
    """T times: draw b of the d coordinates; with x_i the rows there, mu their mean and v the top right singular vector of
    the rows minus mu, keep the n - floor(c f) rows of least

        s_i = ((x_i - mu) . v)^2.

    Return the mean, over all coordinates, of the rows that were kept every time.

    Args:
        f: Byzantine clients tolerated.
        c: how many rows each draw leaves out, in units of f. More is safer against rows that share an attack between them,
            and loses more honest rows.
        T: draws. More leaves out more rows.
        b: coordinates per draw. Where b >= d all of them are taken, and once: every draw would be the same.
        generator: source of the draws. None: the engine lends one from the seed tree, and a direct call uses seed 0 each time.

    Shapes: updates [n, d] -> delta [d]. Weights are the clients' own claims, so they are not used.
    Bound: n >= 2f + 1 and floor(c f) < n.
    Cost: time O(T n^2 min(b, d)), memory b columns and one block of them in float64.
    Ties: of scores that are equal to nine digits of the largest the lower row is kept.
    Differs from the source: where no row was kept every time, which leaves 0/0 there, the n - floor(c f) rows that were left
        out least often are averaged. c f is rounded at the ninth digit first, so that 0.29 * 100 is 29.
    Diagnostics: ``last_info`` holds ``scores`` [n] (mean over the draws), ``rejections`` [n], ``selected`` and
        ``client_weights`` [n]; ``fallback`` where no row was kept every time.

    Example:
        >>> updates = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.5, 1.5], [2.0, 2.0], [10.0, -10.0]])
        >>> DnC(f=1)(updates)
        tensor([1.6250, 1.6250])
    """

    random = True
    invariances = frozenset({"permutation", "translation", "scale", "orthogonal"})  # the last where b >= d
    exempt = MappingProxyType(
        {
            "draws": "with b >= d it looks at all coordinates",
            "bounded": "with b < d a row far out along coordinates that were not drawn is not seen",
            "orthogonal": "with b < d it draws coordinates, which a rotation mixes",
        }
    )

    f: int
    c: float = 1.0
    T: int = 5
    b: int = 10_000
    generator: torch.Generator | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.c < math.inf or self.T < 1 or self.b < 1:
            raise ValueError(f"DnC needs a finite c >= 0, T >= 1 and b >= 1; got c={self.c}, T={self.T}, b={self.b}")

    def client_weights(self, updates: Tensor) -> Tensor:
        """Return [n]: equal weights for the rows kept by every draw, 0 for the others."""
        n, d = check_rows(self, updates)
        dropped = math.floor(round(self.c * self.f, 9))
        if self.f < 0 or n < 2 * self.f + 1 or dropped >= n:
            needs = "f >= 0, n >= 2f + 1 and floor(c f) < n (Shejwalkar and Houmansadr 2021)"
            raise ValueError(f"DnC needs {needs}; got n={n}, f={self.f}, c={self.c}")
        finite_norms(self, updates)
        source = private_generator(self.generator)
        draws = self.T if self.b < d else 1
        scores = torch.zeros(n, dtype=torch.float64, device=updates.device)
        rejections = torch.zeros(n, dtype=torch.int64, device=updates.device)
        for _ in range(draws):
            columns = updates
            if self.b < d:
                drawn = torch.randperm(d, generator=source, device=source.device)[: self.b]
                columns = updates.index_select(1, drawn.to(updates.device))
            outlying = _squared_top_component(columns)
            ranked = (outlying / outlying.max().clamp(min=TINY)).round(decimals=DIGITS).sort(stable=True).indices
            rejections[ranked[n - dropped :]] += 1
            scores += outlying / draws
        selected = (rejections == 0).nonzero().flatten()
        report_fallback(self, None if len(selected) else "every row was left out once: those left out least often are kept")
        if not len(selected):
            selected = rejections.sort(stable=True).indices[: n - dropped]
        self.last_info.update(scores=scores, rejections=rejections, selected=selected)
        return equal_weights(updates, selected)


def _squared_top_component(rows: Tensor) -> Tensor:
    """Return [n]: the squared component of each centred row along their top right singular vector, in float64."""
    values, vectors = torch.linalg.eigh(centred_gram(squared_distances(rows)))
    components: Tensor = values[-1].clamp(min=0.0).sqrt() * vectors[:, -1]
    return components.square()
