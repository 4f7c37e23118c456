"""A client counts in inverse proportion to how often it takes part, which an oracle knows.

A baseline of Wang and Ji, "A Lightweight Method for Tackling Unknown Participation Statistics in Federated Learning",
ICLR 2024 ("known participation").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedagg import Cohort, Weighting


@dataclass(frozen=True)
class KnownParticipation(Weighting):
    """Weigh a client that takes part with probability p_i so that on average all N clients count alike:

        w_i = 1 / (N p_i).

    What ``FedAU`` estimates is given here: the yardstick, not a method for the world.

    Args:
        probabilities: client id -> p_i, or [N] indexed by client id; None takes ``cohort.reachability``, which a simulation
            knows from its own pattern of participation.

    Shapes: cohort -> w [n], float64, at least 1 / N each.
    Bound: the population N is known, and p_i in (0, 1] for everybody who takes part.
    Cost: O(n).

    Example:
        >>> cohort = Cohort(round=1, client_ids=[3, 7], updates=torch.zeros(2, 5), params=torch.zeros(5),
        ...                 num_examples=torch.tensor([10, 30]), population=8)
        >>> KnownParticipation({3: 0.5, 7: 0.1})(cohort)
        tensor([0.2500, 1.2500], dtype=torch.float64)
    """

    probabilities: Mapping[int, float] | Sequence[float] | Tensor | None = None

    def __str__(self) -> str:
        return type(self).__name__  # without a probability for each client

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override] # a class states its own, an object what it was not given
        """What the cohort must carry."""
        return frozenset({"reachability"} if self.probabilities is None else ())

    def __call__(self, cohort: Cohort) -> Tensor:
        """Return 1 / (N p_i) for every row of ``cohort.updates``."""
        if cohort.population is None:
            raise ValueError("KnownParticipation needs to know how many clients there are in all; cohort.population is None")
        p = self._of(cohort)
        for client, rate in zip(cohort.client_ids, p, strict=True):
            if not 0 < rate <= 1:
                raise ValueError(f"KnownParticipation needs probabilities in (0, 1]; client {client} has {rate}")
        return 1.0 / (cohort.population * torch.tensor(p, dtype=torch.float64, device=cohort.params.device))

    def _of(self, cohort: Cohort) -> list[float]:
        """Return the p_i of the clients in ``cohort``."""
        known = self.probabilities
        if known is None:
            if cohort.reachability is None:
                raise ValueError(
                    "KnownParticipation needs probabilities: nobody knows how often clients take part here "
                    "(cohort.reachability is None)"
                )
            return [float(rate) for rate in cohort.reachability]
        has = known.__contains__ if isinstance(known, Mapping) else range(len(known)).__contains__
        for client in cohort.client_ids:
            if not has(client):
                raise ValueError(f"KnownParticipation has probabilities of {len(known)} clients, none for client {client}")
        return [float(known[client]) for client in cohort.client_ids]
