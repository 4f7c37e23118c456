"""SCAFFOLD, the server's half: the mean of the clients' control variates, beside the model.

Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedagg import Cohort, Strategy
from fedagg.linalg import weighted_sum


class SCAFFOLD(Strategy):
    """Send a control variate c beside the model, and move it by what clients say that theirs have changed:

        c <- c + (1 / N) sum_i (c_i+ - c_i),    c = 0 at first,

    over the clients of the round, divided by the population N: where everybody always takes part, c is the mean of all c_i.
    The model moves by the uniform mean of the updates, or what the parts make of them; the server's learning rate is that of
    ``server_optimizer``. The clients' half is ``fedagg.clients.Scaffold``.

    Args:
        engine: what ``Strategy`` takes. A weighting or a rule acts on the updates alone.

    Shapes: updates, extras["control"] [n, d] -> delta [d].
    Bound: that of the rule; clients train with ``fedagg.clients.Scaffold``, so with plain SGD.
    Cost: one more pass over n d numbers; memory d; d numbers more to and from every client.
    Claims: the change of a control variate is a claim that no rule looks at; one attacker moves c as far as he likes.

    Example:
        >>> rows = torch.tensor([[0.1], [0.3]])
        >>> cohort = Cohort(round=1, client_ids=[2, 5], updates=rows, params=torch.zeros(1), num_examples=torch.ones(2),
        ...                 population=8, extras={"control": torch.tensor([[4.0], [-2.0]])})
        >>> strategy = SCAFFOLD()
        >>> strategy.aggregate(cohort), strategy.control
        (tensor([0.2000]), tensor([0.2500]))
    """

    collects: ClassVar[tuple[str, ...]] = ("control",)
    client_half: ClassVar[str] = "Scaffold"

    def __init__(self, **engine: Any) -> None:
        super().__init__(**engine)
        self.control: Tensor | None = None

    def broadcast(self) -> Mapping[str, Tensor]:
        """Return c [d] as "control"."""
        if self._state is None:
            raise RuntimeError("broadcast was called before configure_train")
        params = self._state.params
        return {"control": torch.zeros_like(params) if self.control is None else self.control.to(params)}

    def __repr__(self) -> str:
        return f"SCAFFOLD({super().__repr__().removeprefix('Strategy(')}"

    def aggregate(self, cohort: Cohort) -> Tensor:
        """Return the step [d]; c moves."""
        delta = super().aggregate(cohort)
        change = mean_over_population(cohort.extras["control"], cohort, self)
        self.control = change if self.control is None else self.control.to(change) + change
        return delta

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the parts and c."""
        return {**super().state_dict(), "control": self.control}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``."""
        super().load_state_dict(state)
        self.control = state["control"]


def mean_over_population(rows: Tensor, cohort: Cohort, who: Strategy) -> Tensor:
    """Return the sum of ``rows`` [n, d] divided by N, [d].

    Raises:
        ValueError: N is not known.
    """
    if cohort.population is None:
        raise ValueError(f"{type(who).__name__} divides by the number of all clients; the cohort's population is None")
    return weighted_sum(rows, torch.full((len(rows),), 1 / cohort.population, dtype=torch.float64))
