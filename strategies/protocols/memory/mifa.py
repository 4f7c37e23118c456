"""MIFA: the mean of everybody's last update, whoever takes part.

Gu, Huang, Zhang, Huang, "Fast Federated Learning in the Presence of Arbitrary Device Unavailability", NeurIPS 2021
(memory-augmented impatient federated averaging).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from fedagg import Cohort, ConfigError
from fedagg.linalg import weighted_sum
from strategies.protocols.memory._remembers import Remembers
from strategies.protocols.memory._steps import mifa_into


class MIFA(Remembers):
    """With y_i the last update of client i, that of this round for those who take part, the step is

        (1/N) sum_j y_j,

    also in a round in which nobody takes part. All clients count alike, however often they come, but what counts of a rare one
    is old.

    Args:
        initialise: "zeros": y_i is zero before a client's first update. "wait": the model stays until all N clients have taken
            part once; for ever, where some never do or hold no data.
        memory_gb: refuse a memory of more gigabytes (10^9 bytes) than this in the first round.
        engine: what ``Strategy`` takes: server_optimizer, cohort and so on; no rule and no weighting. Pre-aggregators change
            updates before they are remembered.

    Shapes: updates [n, d] -> delta [d].
    Bound: the population N is known. Not robust: a mean, and a Byzantine client counts also in rounds in which it is absent.
    Cost: time O(N d), memory N d numbers, and as much in every checkpoint for the clients seen.
    State: the last update of every client seen.

    Example:
        >>> strategy = MIFA()
        >>> for number, clients, rows in [(1, [0, 1], [[-1.0], [-3.0]]), (2, [1, 2], [[-2.0], [6.0]])]:
        ...     cohort = Cohort(number, clients, torch.tensor(rows), torch.zeros(1), torch.ones(2), population=3)
        ...     strategy.aggregate(cohort)
        tensor([-1.3333])
        tensor([1.])
        >>> strategy.idle(3)
        tensor([1.])
    """

    def __init__(self, initialise: Literal["zeros", "wait"] = "zeros", memory_gb: float = 4.0, **engine: Any) -> None:
        super().__init__(memory_gb, **engine)
        if initialise not in ("zeros", "wait"):
            raise ConfigError(f"MIFA needs initialise in ['zeros', 'wait']; got {initialise!r}")
        self.initialise = initialise

    def _settings(self) -> dict[str, Any]:
        return {"initialise": self.initialise, **super()._settings()}

    def aggregate(self, cohort: Cohort) -> Tensor:
        """Return the step [d], and remember the updates."""
        delta = mifa_into(*self._remembered(cohort))
        return torch.zeros_like(delta) if self._waits() else delta

    def idle(self, round: int) -> Tensor | None:
        """Return the mean [d] of what is remembered; None where that is nothing, or not yet all that is waited for."""
        return None if self._memory is None or self._waits() else weighted_sum(self._memory)

    def _waits(self) -> bool:
        return self.initialise == "wait" and self._memory is not None and len(self._places) < len(self._memory)
