"""FoolsGold: clients that keep pointing the same way as another are one attacker's sybils, and count less.

Fung, Yoon, Beschastnikh, "The Limitations of Federated Learning in Sybil Settings", RAID 2020, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from fedagg import Rule
from fedagg.contracts import check_rows
from fedagg.linalg import gram
from strategies.rules._fallback import report_fallback
from strategies.rules._norms import cosines, finite_norms, resolution


@dataclass
class FoolsGold(Rule):
    """Weight every row by how little its client's history H_i, the sum of its updates so far, resembles another's:

        c_ij = cos(H_i, H_j),  c_ii = 0,  v_i = max_j c_ij
        c_ij <- c_ij v_i / v_j  where v_j > v_i                    (spares honest clients that resemble a sybil)
        a_i = 1 - max_j c_ij;  a <- a / max a;  1 becomes 0.99;  a <- ln(a / (1 - a)) + 0.5, cut to [0, 1]
        sum_i a_i u_i / sum_i a_i

    It takes clients for sybils because they agree, so it needs honest clients that differ: where their data are alike, they
    are the ones who lose their weight. A single attacker, or several who take care to differ, it does not see, and a row of
    any length counts in full.

    Args:
        memory: compare sums over all rounds; False compares the updates of the round alone, and there is no state.
        divide_by: what the sum of weighted rows is divided by: "alpha", the sum of the weights; "n"; or "one", as the source
            does with gradients and a small step.

    Shapes: updates [n, d], client_ids of length n (the row numbers if left out) -> delta [d]. Claimed weights are not used.
    Bound: n >= 1.
    Cost: time O(n^2 d), memory a second matrix [n, d], and d numbers for every client seen so far.
    State: ``history``, client id -> H_i [d] in the dtype of the updates, half precision as float32. A client whose sum
        overflows has weight 0 from then on.
    Differs from the source: it compares only the features that matter to the output layer; here all. A zero row resembles
        nobody. A cosine that rounding cannot tell from 1 is 1. Where all rows are equal, which
        leaves 0/0 there, the result is zero.
    Diagnostics: ``last_info`` holds ``alpha`` [n] and ``client_weights`` [n]; ``fallback`` where everybody is a sybil.

    Example:
        >>> updates = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0], [2.0, 2.0]])
        >>> FoolsGold()(updates, client_ids=[3, 4, 8, 9])
        tensor([0.5000, 0.5000])
    """

    invariances = frozenset({"permutation", "scale", "orthogonal"})
    needs = frozenset({"client_ids"})
    exempt = MappingProxyType(
        {
            "equal_rows": "clients that send the same are sybils to it",
            "common_part": "cosines of rows that point almost the same way differ by less than float32 can tell",
        }
    )

    memory: bool = True
    divide_by: Literal["alpha", "n", "one"] = "alpha"
    _history: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.divide_by not in ("alpha", "n", "one"):
            raise ValueError(f"FoolsGold needs divide_by in ['alpha', 'n', 'one']; got {self.divide_by!r}")

    def client_weights(self, updates: Tensor, *, client_ids: Sequence[int] | None = None) -> Tensor:
        """Return [n]: each row's share; the weights count this round, but the history stays as it is."""
        return self._weights(updates, self._sums(updates, client_ids))

    def __call__(self, updates: Tensor, weights: Tensor | None = None, *, client_ids: Sequence[int] | None = None) -> Tensor:
        """Return the mean [d] weighted by dissimilarity, and add ``updates`` to the history."""
        sums = self._sums(updates, client_ids)
        result = self.combine(updates, self._weights(updates, sums))
        if self.memory:
            ids = range(len(updates)) if client_ids is None else client_ids
            self._history.update((client, total.clone()) for client, total in zip(ids, sums, strict=True))
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return the history, copied."""
        return {"history": {client: total.clone() for client, total in self._history.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a copy of the history in ``state``."""
        self._history = {client: total.clone() for client, total in state["history"].items()}

    def reset(self) -> None:
        """Forget all clients."""
        self._history = {}

    def _sums(self, updates: Tensor, client_ids: Sequence[int] | None) -> Tensor:
        """Return the histories [n, d] with ``updates`` added; ``updates`` itself without memory."""
        n, d = check_rows(self, updates)
        ids = range(n) if client_ids is None else client_ids
        if n == 0 or len(ids) != n or len(set(ids)) != n:
            raise ValueError(f"FoolsGold needs n >= 1 rows and a client id for each; got n={n}, client_ids={list(ids)}")
        finite_norms(self, updates)
        if not self.memory:
            return updates
        sums = updates.to(torch.promote_types(updates.dtype, torch.float32), copy=True)
        for row, client in zip(sums, ids, strict=True):
            past = self._history.get(client)
            if past is not None and past.shape != (d,):
                raise ValueError(f"FoolsGold has histories of {len(past)} coordinates, the updates have {d}; reset() it")
            if past is not None:
                row += past.to(row)
        return sums

    def _weights(self, updates: Tensor, sums: Tensor) -> Tensor:
        products = gram(sums)
        usable = products.diagonal().isfinite()
        similar = cosines(torch.where(usable[:, None] & usable[None, :], products, 0.0)).fill_diagonal_(0.0)
        similar[similar > 1 - resolution(sums)] = 1.0
        most = similar.amax(dim=1)
        pardoned = torch.where(most[None, :] > most[:, None], similar * most[:, None] / most[None, :], similar)
        alpha = torch.where(usable, 1 - pardoned.amax(dim=1), 0.0).clamp(0.0, 1.0)
        sybils_only = not alpha.any()
        report_fallback(self, "all rows point the same way: the result is zero" if sybils_only else None)
        if not sybils_only:
            alpha = alpha / alpha.max()
            alpha = torch.where(alpha < 1, alpha, 0.99)
            alpha = (torch.log(alpha / (1 - alpha)) + 0.5).clamp(0.0, 1.0)
        self.last_info["alpha"] = alpha
        divisors = {"alpha": float(alpha.sum()) or 1.0, "n": len(alpha), "one": 1.0}
        return (alpha / divisors[self.divide_by]).to(updates.dtype)
