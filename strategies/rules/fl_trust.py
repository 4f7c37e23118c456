"""FLTrust: trust clients as far as they point where the server's own small data set points.

Cao, Fang, Liu, Gong, "FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping", NDSS 2021.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from fedagg import Rule
from fedagg.contracts import check_rows
from fedagg.linalg import COLUMNS, row_norms
from strategies.rules._fallback import report_fallback
from strategies.rules._norms import finite_norms


@dataclass(frozen=True)
class FLTrust(Rule):
    """With g the update that the server itself trained, on examples it trusts, return

        sum_i TS_i (||g|| / ||u_i||) u_i / sum_i TS_i,        TS_i = max(0, cos(u_i, g)).

    Every row is thus given the length of g, and rows that point away from g count nothing.

    Args:
        root_update: g [d], or a callable without arguments that returns it. None: it is given with every call, as the
            engine does. One given with a call wins.

    Shapes: updates [n, d], root_update [d] -> delta [d]. Weights are the clients' own claims, so they are not used.
    Bound: n >= 1 and a root update. However many rows are Byzantine, the result is no longer than g and at no
        obtuse angle to it.
    Cost: time O(n d), memory one block of columns in float64.
    Differs from the source: where no row is trusted, which leaves 0/0 there, the result is g. A zero row has trust 0, and one
        that the dtype cannot stretch to the length of g.
    Diagnostics: ``last_info`` holds ``trust`` [n] and ``client_weights`` [n], all 0 where ``fallback`` says so.

    Example:
        >>> updates = torch.tensor([[1.0, 0.0], [0.0, 9.0], [-1.0, -1.0]])
        >>> FLTrust()(updates, root_update=torch.tensor([1.0, 1.0]))
        tensor([0.7071, 0.7071])
    """

    invariances = frozenset({"permutation"})
    needs = frozenset({"root_update"})
    exempt = MappingProxyType({"equal_rows": "rows get the length of the server's own update"})

    root_update: Tensor | Callable[[], Tensor] | None = field(default=None, repr=False, compare=False)

    def client_weights(self, updates: Tensor, *, root_update: Tensor | Callable[[], Tensor] | None = None) -> Tensor:
        """Return [n]: the trust in each row, times what gives it the length of g; all 0 where no row is trusted."""
        return self._weights(updates, self._root(updates, root_update))

    def __call__(
        self,
        updates: Tensor,
        weights: Tensor | None = None,
        *,
        root_update: Tensor | Callable[[], Tensor] | None = None,
    ) -> Tensor:
        """Return the mean [d] of the rows at the length of g, weighted by trust."""
        root = self._root(updates, root_update)
        client_weights = self._weights(updates, root)
        result = self.combine(updates, client_weights)
        return result if client_weights.any() else root.clone()

    def _root(self, updates: Tensor, given: Tensor | Callable[[], Tensor] | None) -> Tensor:
        """Return g [d], checked; dtype and device of ``updates``."""
        _, d = check_rows(self, updates)
        given = self.root_update if given is None else given
        if given is None:
            raise ValueError("FLTrust needs root_update, what the server learned from examples it trusts; it was not given")
        root = given if isinstance(given, Tensor) else given()
        if root.shape != updates.shape[1:] or not bool(root.isfinite().all()):
            shape = list(root.shape)
            raise ValueError(f"FLTrust needs a finite root_update of shape [d={d}]; got {shape}")
        return root.detach().to(updates.device, updates.dtype)

    def _weights(self, updates: Tensor, root: Tensor) -> Tensor:
        n, d = updates.shape
        if n == 0:
            raise ValueError("FLTrust needs n >= 1; got n=0")
        norms = finite_norms(self, updates)
        products = torch.zeros_like(norms)
        for start in range(0, d, COLUMNS):
            block = slice(start, start + COLUMNS)
            products += updates[:, block].double() @ root[block].double()
        length = row_norms(root[None])[0]
        longest = torch.finfo(updates.dtype).max  # by which a row of this dtype can be stretched
        usable = (norms > 0) & (length > 0) & (length <= norms * longest)
        trust = torch.where(usable, products / (norms * length), 0.0).clamp(0.0, 1.0)
        scaled = torch.where(trust > 0, trust * length / norms / trust.sum(), 0.0).to(updates.dtype)
        self.last_info["trust"] = trust
        report_fallback(self, None if scaled.any() else "no row is trusted: the result is the root update")
        return scaled
