"""What a report measures: which metric, and which round's value a run is judged by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedagg.errors import ConfigError

_LOWER_IS_BETTER = ("loss", "error", "success")  # the success is an attacker's
_PERCENT = ("accuracy", "success_rate", "precision", "recall")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """One column of numbers: a metric of a split, and how to read it."""

    split: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Metric:
        """``accuracy`` is that of the server's test set; any other split is written out, as in ``clients/accuracy_mean``."""
        split, _, name = text.rpartition("/")
        return cls(split or "test", name)

    def __str__(self) -> str:
        return self.name if self.split == "test" else f"{self.split}/{self.name}"

    @property
    def lower_is_better(self) -> bool:
        """Whether a small value is a good one (losses, errors, how often an attacker succeeds)."""
        return any(word in self.name for word in _LOWER_IS_BETTER)

    @property
    def best(self) -> str:
        """Where the best value is: ``highest`` or ``lowest``."""
        return "lowest" if self.lower_is_better else "highest"

    @property
    def percent(self) -> bool:
        """Whether the value is a share, shown in percent; files with data keep the share."""
        return any(word in self.name for word in _PERCENT)

    @property
    def words(self) -> str:
        """The metric in words, with its unit: ``test accuracy (%)``."""
        return f"{self.split} {self.name.replace('_', ' ')}" + (" (%)" if self.percent else "")

    def show(self, value: float) -> str:
        """The value as tables print it."""
        if self.percent:
            return f"{100 * value:.1f}"
        return f"{value:.3f}" if not abs(value) >= 1000 else f"{value:.2e}"


@dataclass(frozen=True)
class Protocol:
    """Which round's value a run is judged by: ``final``, ``last:K`` or ``best``.

    Example:
        >>> str(Protocol.parse("last:5"))
        'last:5'
    """

    kind: str
    k: int = 1

    @classmethod
    def parse(cls, text: str) -> Protocol:
        """Read ``final``, ``last:K`` or ``best``."""
        kind, _, k = text.partition(":")
        if text in ("final", "best"):
            return cls(kind)
        if kind == "last" and k.isdecimal() and int(k) > 0:
            return cls(kind, int(k))
        raise ConfigError(f"a protocol is final, last:K with K >= 1 (as in last:5), or best; got {text!r}")

    def __str__(self) -> str:
        return f"last:{self.k}" if self.kind == "last" else self.kind

    def words(self, metric: Metric) -> str:
        """The protocol as captions name it."""
        if self.kind == "final":
            return "Protocol final: the value at the last evaluated round"
        if self.kind == "last":
            return f"Protocol last:{self.k}: the mean over the last {self.k} evaluated rounds"
        best = "lowest" if metric.lower_is_better else "highest"
        return (
            f"Protocol best: the {best} value over all rounds, which is an oracle: it chooses the round on the {metric.split}"
            " set itself"
        )

    def apply(self, rounds: NDArray[np.int64], values: Floats, metric: Metric) -> float:
        """One number for a run. The initial model (round 0) counts only where nothing else was evaluated."""
        trained = values[rounds > 0]
        values = trained if len(trained) else values
        if self.kind == "best":
            known = values[~np.isnan(values)]
            return float((known.min() if metric.lower_is_better else known.max()) if len(known) else np.nan)
        if len(values) < self.k:
            raise ValueError(f"{len(values)} evaluated rounds, {self} needs {self.k}")
        return float(values[-self.k :].mean())
