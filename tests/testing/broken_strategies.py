"""Strategies that break one promise each."""

import os
from typing import Any

from fedagg import Strategy


class NeverFinite(Strategy):
    def aggregate(self, cohort):
        return super().aggregate(cohort) / 0.0


class ReadsTheClock(Strategy):
    def aggregate(self, cohort):
        return super().aggregate(cohort) * (1 + os.urandom(1)[0] / 1000)


class CountsInSecret(Strategy):
    calls = 0

    def aggregate(self, cohort):
        self.calls += 1
        return super().aggregate(cohort) / self.calls


class StartsAgain(Strategy):
    """Without replies the model is all zeros."""

    def aggregate_train(self, server_round, replies):
        arrays, metrics = super().aggregate_train(server_round, replies)
        if arrays is None:
            arrays = self._layout.record(self._layout.empty())
        return arrays, metrics


class MournsTheRejected(Strategy):
    def aggregate(self, cohort):
        delta = super().aggregate(cohort)
        return delta / 0.0 if self.last_info["rejected"] else delta


SOUND: list[Any] = [Strategy(), Strategy(cohort=3)]
BROKEN = [
    (NeverFinite, {"finishes"}),
    (ReadsTheClock, {"same_bits_twice", "resumes"}),
    (CountsInSecret, {"resumes"}),
    (StartsAgain, {"no_replies"}),
    (MournsTheRejected, {"not_finite"}),
]
