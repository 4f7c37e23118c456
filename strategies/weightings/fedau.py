"""A client that comes rarely counts for the rounds it missed: its weight is the mean time between its visits.

Wang and Ji, "A Lightweight Method for Tackling Unknown Participation Statistics in Federated Learning", ICLR 2024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedagg import Cohort, Weighting

Table = npt.NDArray[np.int64]


@dataclass
class FedAU(Weighting):
    """Weigh a client that takes part with unknown probability p_i by an estimate omega_i of 1 / p_i:

        w_i = omega_i / N,  omega_i = mean length of the intervals between the rounds in which i took part.

    An interval ends with the round in which the client takes part, or once it is K rounds long. The first one begins with
    round 1. omega_i is 1 while none has ended, and the interval that ends in a round has no say in it. The N clients count
    alike, whatever data they hold, and the weights do not sum to 1.

    Whoever stays away raises its weight, a Byzantine client as well: K / N is the most it can come to.

    Args:
        cutoff: K, the longest interval, in rounds; None has no cutoff. With one the estimate tends to (1 - (1 - p)^K) / p in
            place of 1 / p, which is less for rare clients.

    Shapes: cohort -> w [n], float64, from 1 / N to K / N.
    Bound: cutoff >= 1; the population N is known; every round comes after the one before. Rounds left out are rounds in which
        nobody took part.
    Cost: time O(n log C), and a copy of the table, O(C), where new clients come; memory 24 bytes for each of the C clients
        seen so far.
    State: the round, and for each client seen the round in which its last interval ended and how many have. These intervals
        cover every round up to that one, so omega_i is the one divided by the other.
    Differs from the source: the paper's code keeps a list of intervals per client, and no client is unknown.

    Example:
        >>> weighting = FedAU()
        >>> def round(number, clients):
        ...     n = len(clients)
        ...     return Cohort(number, clients, torch.zeros(n, 1), torch.zeros(1), torch.ones(n), population=2)
        >>> [weighting(round(number, clients)).tolist() for number, clients in [(1, [7]), (4, [7, 9]), (5, [7, 9])]]
        [[0.5], [0.5, 0.5], [1.0, 2.0]]
    """

    cutoff: int | None = 50
    _round: int = field(init=False, repr=False, compare=False)
    _seen: Table = field(init=False, repr=False, compare=False)  # [3, C]: id, round of the last end, number of ends

    def __post_init__(self) -> None:
        if self.cutoff is not None and not (isinstance(self.cutoff, int) and self.cutoff >= 1):
            raise ValueError(f"FedAU needs an integer cutoff >= 1, or None for no cutoff; got cutoff={self.cutoff}")
        self.reset()

    def __call__(self, cohort: Cohort) -> Tensor:
        """Return omega_i / N for every row of ``cohort.updates``, and note who took part."""
        if cohort.population is None:
            raise ValueError("FedAU needs to know how many clients there are in all; cohort.population is None")
        if cohort.round <= self._round:
            raise ValueError(f"FedAU needs rounds in their order; got round {cohort.round} after round {self._round}")
        places = self._places(_keys(cohort.client_ids))
        end, ends = self._seen[1, places], self._seen[2, places]
        if self.cutoff is not None:
            cut = (cohort.round - 1 - end) // self.cutoff  # intervals that ended of themselves since
            end, ends = end + cut * self.cutoff, ends + cut
        omega = np.where(ends > 0, end / np.maximum(ends, 1), 1.0)
        self._seen[1, places], self._seen[2, places] = cohort.round, ends + 1
        self._round = cohort.round
        return torch.from_numpy(omega / cohort.population).to(cohort.params.device)

    def _places(self, keys: Table) -> npt.NDArray[np.intp] | slice:
        """Return the columns [n] of these clients, after adding those that are new."""
        if np.array_equal(keys, self._seen[0]):
            return slice(None)  # everybody is there
        places = np.searchsorted(self._seen[0], keys)
        known = places < self._seen.shape[1]
        known[known] = self._seen[0, places[known]] == keys[known]
        if known.all():
            return places
        new = keys[~known]
        places += np.searchsorted(np.sort(new), keys)  # as many columns come before a client as known and as new ids do
        kept = np.ones(self._seen.shape[1] + len(new), bool)
        kept[places[~known]] = False
        seen = np.zeros((3, len(kept)), np.int64)
        for row, before in zip(seen, self._seen, strict=True):  # at once is six times as slow
            row[kept] = before
        seen[0, places[~known]] = new
        self._seen = seen
        return places

    def state_dict(self) -> dict[str, Any]:
        """Return the round and the table of clients, copied."""
        return {"round": self._round, "seen": torch.from_numpy(self._seen.copy())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a copy of ``state``."""
        self._round, self._seen = int(state["round"]), state["seen"].numpy().copy()

    def reset(self) -> None:
        """Forget all clients, and stand at round 0 again."""
        self._round, self._seen = 0, np.zeros((3, 0), np.int64)


def _keys(client_ids: Sequence[int]) -> Table:
    """Return [n] int64; Flower's node ids have 64 bits without a sign, and keep their bits."""
    try:
        return np.fromiter(client_ids, np.int64, len(client_ids))
    except OverflowError:
        return np.fromiter(client_ids, np.uint64, len(client_ids)).view(np.int64)
