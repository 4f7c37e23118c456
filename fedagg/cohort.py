"""What the server sees in one round: one row per client, and what is known about each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor


class Cohort:
    """The replies of one round, as tensors. New facts arrive as new fields with defaults, so old plug-ins keep working.

    Args:
        round: number of the round, from 1.
        client_ids: ascending, one per row.
        updates: [n, d], what each client sent minus the parameters it received. Finite. None where ``received`` is given:
            the difference is then taken when somebody first looks, which a plain mean never does.
        params: [d], the parameters the clients received.
        num_examples: [n], how many examples each client *claims* to have trained on.
        metrics: name -> [n], what the clients reported beside it; NaN where a client did not.
        label_counts: [n, C], examples per class of each client, where the clients tell; else None.
        population: N, how many clients there are in all; None where unknown.
        received: [n, d], the parameters the clients sent, where they are at hand. A rule that is a plain weighted sum is
            computed from these, in float64, so that nothing is lost to the rounding of ``updates``.
    """

    def __init__(
        self,
        round: int,
        client_ids: Sequence[int],
        updates: Tensor | None,
        params: Tensor,
        num_examples: Tensor,
        metrics: Mapping[str, Tensor] | None = None,
        label_counts: Tensor | None = None,
        population: int | None = None,
        received: Tensor | None = None,
    ) -> None:
        rows = received if updates is None else updates
        if rows is None:
            raise ValueError("a cohort needs updates, or what was received")
        self.n, d = rows.shape
        if len(client_ids) != self.n or any(a >= b for a, b in pairwise(client_ids)):
            raise ValueError(f"client_ids must be {self.n} ascending ids, one per row; got {list(client_ids)}")
        if params.shape != (d,):
            raise ValueError(f"params must have shape [d={d}]; got {list(params.shape)}")
        if torch.as_tensor(num_examples).shape != (self.n,):
            raise ValueError(f"num_examples must have shape [n={self.n}]; got {list(torch.as_tensor(num_examples).shape)}")
        self.round, self.client_ids, self.params, self.num_examples = round, client_ids, params, num_examples
        self.metrics, self.label_counts, self.population, self.received = metrics or {}, label_counts, population, received
        if updates is not None:
            self.updates = updates

    @cached_property
    def updates(self) -> Tensor:
        """[n, d], what each client sent minus the parameters it received."""
        assert self.received is not None
        return self.received - self.params
