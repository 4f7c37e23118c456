"""FedDyn, the server's half: the mean of the participants' models, moved on by what all have changed so far.

Acar et al., "Federated Learning Based on Dynamic Regularization", ICLR 2021, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from fedagg import Cohort, Strategy
from strategies.protocols.scaffold import mean_over_population


class FedDyn(Strategy):
    """With u_i the updates of a round, and s = 0 at first, make the step

        s <- s + (1 / N) sum_i u_i,    delta = (1 / n) sum_i u_i + s,

    where n clients took part out of N. The paper's server state is h = -alpha s, its step the mean model minus h / alpha: so
    alpha is a setting of the clients alone. The clients' half is ``fedagg.clients.FedDyn``.

    Args:
        engine: what ``Strategy`` takes. A weighting or a rule makes the first term; s stays the sum.

    Shapes: updates [n, d] -> delta [d].
    Bound: that of the rule; clients train with ``fedagg.clients.FedDyn``.
    Cost: one more pass over n d numbers; memory d.
    Claims: no rule looks at s; one attacker moves it, and with it every later model, as far as he likes.

    Example:
        >>> import torch
        >>> rows = torch.tensor([[0.1], [0.3]])
        >>> cohort = Cohort(round=1, client_ids=[2, 5], updates=rows, params=torch.zeros(1), num_examples=torch.ones(2),
        ...                 population=8)
        >>> strategy = FedDyn()
        >>> strategy.aggregate(cohort), strategy.aggregate(cohort)
        (tensor([0.2500]), tensor([0.3000]))
    """

    client_half: ClassVar[str] = "FedDyn"

    def __init__(self, **engine: Any) -> None:
        super().__init__(**engine)
        self.total: Tensor | None = None

    def __repr__(self) -> str:
        return f"FedDyn({super().__repr__().removeprefix('Strategy(')}"

    def aggregate(self, cohort: Cohort) -> Tensor:
        """Return the step [d]; s moves."""
        delta = super().aggregate(cohort)
        change = mean_over_population(cohort.updates, cohort, self)
        self.total = change if self.total is None else self.total.to(change) + change
        return delta + self.total.to(delta)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the parts and s."""
        return {**super().state_dict(), "total": self.total}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``."""
        super().load_state_dict(state)
        self.total = state["total"]
