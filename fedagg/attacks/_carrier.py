"""An attack on updates that may carry an attack on data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fedagg.contracts import Attack


class Carrier(Attack):
    """Has the ``poison``, ``trigger``, ``target`` and ``generator`` of its field ``backdoor``, where there is one.

    ``poison`` and ``trigger`` are None where there is none. A generator that is lent to the carrier reaches the backdoor.
    """

    backdoor: Attack | None

    def __post_init__(self) -> None:
        if self.backdoor is None:
            return
        if getattr(self.backdoor, "poison", None) is None:
            raise ValueError(f"{type(self).__name__} needs a backdoor with poison(x, y), or None; got {self.backdoor!r}")
        for fact in ("random", "distributed"):  # of this instance; the class is neither
            object.__setattr__(self, fact, getattr(self.backdoor, fact))

    @property
    def poison(self) -> Callable[..., tuple[Tensor, Tensor]] | None:
        """What is done to the training data of one Byzantine client."""
        return getattr(self.backdoor, "poison", None)

    @property
    def trigger(self) -> Callable[..., Tensor] | None:
        """What stamps test examples."""
        return getattr(self.backdoor, "trigger", None)

    @property
    def target(self) -> Any:
        """The class that stamped examples are to be given."""
        return getattr(self.backdoor, "target", None)

    @property
    def generator(self) -> torch.Generator:
        """Where the backdoor draws from; there is no such attribute where nothing draws."""
        source: torch.Generator = self.backdoor.generator  # type: ignore[union-attr]
        return source

    @generator.setter
    def generator(self, source: torch.Generator | None) -> None:
        object.__setattr__(self.backdoor, "generator", source)
