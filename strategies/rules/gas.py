"""Gradient splitting: let a robust rule judge small groups of coordinates, and average the rows it agrees with.

Liu et al., "Byzantine-Robust Learning on Heterogeneous Data via Gradient Splitting", ICML 2023.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from fedagg import Rule, rng
from fedagg.contracts import check_rows, private_generator
from fedagg.linalg import COLUMNS
from strategies.rules._krum_scores import equal_weights
from strategies.rules._norms import finite_norms


@dataclass(frozen=True)
class GAS(Rule):
    """Split the coordinates at random into groups q of equal size, let ``rule`` aggregate each, a_q = rule(u_q), and average
    the n - f whole rows of least

        s_i = sum_q ||u_iq - a_q||.

    Few coordinates at a time is where robust rules are good: their error grows with the dimension.

    Args:
        f: Byzantine clients tolerated by the selection. ``rule`` has an ``f`` of its own.
        rule: any rule without state that needs nothing but the rows.
        p: number of groups. They have ceil(d / p) coordinates, the last one perhaps fewer, so there may be fewer than p;
            p >= d judges every coordinate alone. 1 splits nothing.
        generator: source of the split, and of the draws of a random ``rule`` that has no generator of its own. None: the
            engine lends one from the seed tree, and a direct call uses seed 0 each time.

    Shapes: updates [n, d] -> delta [d]. Weights are the clients' own claims, so they are not used.
    Bound: n >= 2f + 1, and that of ``rule``.
    Cost: time that of ``rule`` for p groups, at once where it is coordinate-wise, and O(n d); memory one block of columns.
    Ties: of equal scores the lower row comes first.
    Differs from the source: its code lowers the f of the inner rule where n is too small; here that raises.
    Diagnostics: ``last_info`` holds ``scores`` [n], ``selected`` [n - f], best first, and ``client_weights`` [n].

    Example:
        >>> from strategies import Median
        >>> updates = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.5, 1.5], [2.0, 2.0], [10.0, -10.0]])
        >>> GAS(f=1, rule=Median())(updates)
        tensor([1.6250, 1.6250])
    """

    random = True
    invariances = frozenset({"permutation"})  # and of translation, scale and (p = 1) orthogonal those that ``rule`` has
    exempt = MappingProxyType(
        {
            "draws": "with p >= d every coordinate is its own group",
            "modest": "what more holds depends on the rule inside",
        }
    )

    f: int
    rule: Rule
    p: int = 1000
    generator: torch.Generator | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.rule, Rule):
            raise ValueError(f"GAS needs a rule to split for; got rule={self.rule!r}")
        if hasattr(self.rule, "state_dict") or self.rule.needs:
            raise ValueError(f"GAS needs a rule without state that needs nothing but the rows; got rule={self.rule!r}")
        if self.p < 1:
            raise ValueError(f"GAS needs p >= 1; got p={self.p}")

    def client_weights(self, updates: Tensor) -> Tensor:
        """Return [n]: 1/(n - f) for the rows closest to what ``rule`` made of their groups, 0 for the others."""
        n, d = check_rows(self, updates)
        if self.f < 0 or n < 2 * self.f + 1:
            raise ValueError(f"GAS needs f >= 0 and n >= 2f + 1 (Liu et al. 2023); got n={n}, f={self.f}")
        finite_norms(self, updates)
        source = private_generator(self.generator)
        order = torch.randperm(d, generator=source, device=source.device).to(updates.device)
        scores = torch.zeros(n, dtype=torch.float64, device=updates.device)
        with rng.lend_generator(self.rule, source):
            for rows, size in self._blocks(updates, order):
                scores += self._distances(rows, size)
        selected = scores.sort(stable=True).indices[: n - self.f]
        self.last_info.update(scores=scores, selected=selected)
        return equal_weights(updates, selected)

    def _blocks(self, updates: Tensor, order: Tensor) -> Iterator[tuple[Tensor, int]]:
        """Yield the columns of ``updates`` in this ``order``, many whole groups at a time, and the size of a group."""
        size = max(1, -(-len(order) // self.p))
        width = size * max(1, COLUMNS // size)
        for start in range(0, len(order), width):
            yield updates.index_select(1, order[start : start + width]), size

    def _distances(self, rows: Tensor, size: int) -> Tensor:
        """Return [n]: the distances of ``rows`` [n, width] to the aggregate of each group, added up over the groups."""
        groups = [slice(start, start + size) for start in range(0, rows.shape[1], size)]
        if self.rule.coordinatewise:
            aggregate = self.rule(rows)
        else:
            aggregate = torch.cat([self.rule(rows[:, group].contiguous()) for group in groups])
        squares = (rows.double() - aggregate).square_()
        return torch.stack([squares[:, group].sum(dim=1) for group in groups]).sqrt_().sum(dim=0)
