"""FedExP: a server step that is longer the more the clients' updates disagree.

Jhunjhunwala, Wang, Joshi, "FedExP: Speeding Up Federated Averaging via Extrapolation", ICLR 2023, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fedagg import Cohort, ConfigError, Strategy
from fedagg.linalg import row_norms


class FedExP(Strategy):
    """Multiply the aggregate D of the updates u_i by

        eta = max(1, sum_i p_i ||u_i||^2 / (2 (||D / W||^2 + eps))),

    where p_i is what the weighting gives over W, the sum of all it gives, and 1/n without one. Where clients agree, eta is 1;
    where their updates cancel in the mean, the step is longer. The iterates then swing around the optimum, so what is measured
    is the mean of the last two.

    Args:
        eta_max: eta is not more than this; None does not bound it. Required unless the aggregate is a plain weighted sum.
        eps: > 0, keeps eta finite where the updates cancel. Large against ||D||^2 it switches the method off.
        engine: what ``Strategy`` takes: rule, weighting, cohort and so on.

    Shapes: updates [n, d] -> delta [d].
    Bound: that of the rule.
    Cost: O(n d) for the lengths of the updates, beside the rule; memory 2 d, the last iterate.
    Differs from the source: there is a cap; eps stays what it is, where the source lets it decay with the square of the
    clients' learning rate.
    Claims: two attackers whose updates cancel each other drive eta as high as they like, and a robust rule, which leaves them
    out of D, does not leave them out of eta. Beside such a rule a cap is therefore demanded.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [-0.8, 0.1]])
        >>> cohort = Cohort(round=1, client_ids=[3, 7], updates=rows, params=torch.zeros(2), num_examples=torch.ones(2))
        >>> strategy = FedExP(eps=1e-3)
        >>> strategy.aggregate(cohort)
        tensor([3.0556, 1.5278])
        >>> round(strategy.round_metrics["eta_g"], 4)
        30.5556
    """

    def __init__(self, eta_max: float | None = None, eps: float = 1e-3, **engine: Any) -> None:
        super().__init__(**engine)
        if eta_max is not None and not eta_max >= 1:
            raise ConfigError(f"FedExP needs eta_max >= 1, or None for no cap; got eta_max={eta_max}")
        if not eps > 0:
            raise ConfigError(f"FedExP needs eps > 0; got eps={eps}")
        if eta_max is None and (self.pre_aggregators or not self.rule.associative):
            parts = ", ".join(map(str, (*self.pre_aggregators, self.rule)))
            raise ConfigError(
                f"FedExP with {parts} needs a cap on its step, strategy.eta_max: clients that are left out still lengthen it"
            )
        self.eta_max, self.eps = eta_max, eps
        self._previous: Tensor | None = None

    def __repr__(self) -> str:
        return f"FedExP(eta_max={self.eta_max}, eps={self.eps}, {super().__repr__().removeprefix('Strategy(')}"

    def aggregate(self, cohort: Cohort) -> Tensor:
        """Return the aggregate [d], made longer; ``round_metrics`` holds eta as ``eta_g``."""
        delta = super().aggregate(cohort)
        squares = row_norms(cohort.updates).square()
        given = torch.full_like(squares, 1 / cohort.n) if self._weights is None else self._weights.to(squares)
        total = given.sum()
        spread = given @ squares / total
        eta = max(1.0, float(spread / (2 * ((delta.double() / total).square().sum() + self.eps))))
        eta = eta if self.eta_max is None else min(eta, self.eta_max)
        self.round_metrics["eta_g"] = eta
        self._previous = cohort.params.clone()
        return (eta * delta.double()).to(delta.dtype)

    def evaluated(self, params: Tensor) -> Tensor:
        """Return the mean [d] of the last two iterates; of the first there is only one."""
        if self._previous is None:
            return params
        return torch.lerp(params, self._previous.to(params.device), 0.5)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the parts and the last iterate."""
        last = {} if self._previous is None else {"previous": self._previous.clone()}
        return {**super().state_dict(), **last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``."""
        super().load_state_dict(state)
        previous = state.get("previous")
        self._previous = None if previous is None else previous.clone()
