"""FedVARP: who is absent is represented by its last update, and who is present corrects its own.

Jhunjhunwala, Sharma, Nagarkatti, Joshi, "FedVARP: Tackling the Variance Due to Partial Client Participation in Federated
Learning", UAI 2022.
"""

from __future__ import annotations

from torch import Tensor

from fedagg import Cohort
from strategies.protocols.memory._remembers import Remembers
from strategies.protocols.memory._steps import fedvarp_into


class FedVARP(Remembers):
    """With y_i the last update of client i, zero before its first, and u_i that of the n participants P, the step is

        (1/N) sum_j y_j + (1/n) sum_(i in P) (u_i - y_i),  then y_i := u_i for i in P.

    If participants are a uniform sample, this is the mean over all N clients on average, and the closer to it the less updates
    change from one round to the next. In a round in which nobody takes part the model stays.

    Args:
        memory_gb: refuse a memory of more gigabytes (10^9 bytes) than this in the first round.
        engine: what ``Strategy`` takes: server_optimizer, cohort and so on; no rule and no weighting. Pre-aggregators change
            updates before they are remembered.

    Shapes: updates [n, d] -> delta [d].
    Bound: the population N is known. Not robust: a mean.
    Cost: time O(N d), memory N d numbers, and as much in every checkpoint for the clients seen.
    State: the last update of every client seen.

    Example:
        >>> import torch
        >>> strategy = FedVARP()
        >>> for number, clients, rows in [(1, [0, 1], [[-1.0], [-3.0]]), (2, [1, 2], [[-2.0], [6.0]])]:
        ...     cohort = Cohort(number, clients, torch.tensor(rows), torch.zeros(1), torch.ones(2), population=3)
        ...     strategy.aggregate(cohort)
        tensor([-2.])
        tensor([2.1667])
    """

    def aggregate(self, cohort: Cohort) -> Tensor:
        """Return the step [d], and remember the updates."""
        return fedvarp_into(*self._remembered(cohort))
