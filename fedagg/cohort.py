"""What the server sees in one round: one row per client, and what is known about each row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True)
class Trusted:
    """What the server learns in one round from examples of its own.

    Args:
        root_update: returns [d], what a client with these examples would have sent in this round.
        loss: maps a step [d] to the mean loss of ``params`` plus that step on these examples.
    """

    root_update: Callable[[], Tensor]
    loss: Callable[[Tensor], float]


@dataclass
class Cohort:
    """The replies of one round, as tensors. New facts arrive as new fields with defaults, so old plug-ins keep working.

    Args:
        round: number of the round, from 1.
        client_ids: ascending, one per row.
        updates: [n, d], what each client sent minus the parameters it received. Finite.
        params: [d], the parameters the clients received.
        num_examples: [n], how many examples each client *claims* to have trained on.
        metrics: name -> [n], what the clients reported beside it; NaN where a client did not.
        label_counts: [n, C], examples per class of each client, where the clients tell; else None.
        population: N, how many clients there are in all; None where unknown.
        trusted: what the server's own examples say about this round; None where it has none.
        extras: name -> [n, d], vectors that the clients sent beside their updates.
        reachability: [n], the probability with which each client takes part in a round; None but for an oracle.
    """

    round: int
    client_ids: Sequence[int]
    updates: Tensor
    params: Tensor
    num_examples: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    label_counts: Tensor | None = None
    population: int | None = None
    trusted: Trusted | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    reachability: Tensor | None = None

    def __post_init__(self) -> None:
        n, d = self.updates.shape
        if len(self.client_ids) != n or any(a >= b for a, b in pairwise(self.client_ids)):
            raise ValueError(f"client_ids must be {n} ascending ids, one per row; got {list(self.client_ids)}")
        if self.params.shape != (d,):
            raise ValueError(f"params must have shape [d={d}]; got {list(self.params.shape)}")
        if torch.as_tensor(self.num_examples).shape != (n,):
            raise ValueError(f"num_examples must have shape [n={n}]; got {list(torch.as_tensor(self.num_examples).shape)}")

    def reported(self, name: str, who: object) -> Tensor:
        """Return a metric [n] that every client must have reported.

        Args:
            name: of the metric.
            who: needs it, for the message.

        Raises:
            ValueError: a client has not, or reports no finite number.
        """
        values = self.metrics.get(name)
        missing = range(self.n) if values is None else (~values.isfinite()).nonzero().flatten().tolist()
        if values is None or len(missing):
            client = self.client_ids[missing[0]]
            raise ValueError(
                f"{who} needs every client to report {name}; client {client} does not. Clients of this project do where the "
                f"strategy or its weighting says that it needs {name}"
            )
        return values

    @property
    def n(self) -> int:
        """How many clients there are."""
        return len(self.updates)
