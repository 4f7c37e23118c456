"""A weighting built around another one: what that one needs and remembers is the whole's."""

from __future__ import annotations

from typing import Any, ClassVar

from fedagg import Weighting
from strategies.weightings.by_examples import ByExamples

STATE = ("state_dict", "load_state_dict", "reset")


class Around(Weighting):
    """Changes the weights p_i of ``base``; None is ``ByExamples()``. It has state where ``base`` has."""

    own_needs: ClassVar[frozenset[str]] = frozenset()

    base: Weighting | None

    def __post_init__(self) -> None:
        if self.base is not None and not isinstance(self.base, Weighting):
            raise ValueError(f"{type(self).__name__} needs a weighting as base, or None; got base={self.base!r}")

    @property
    def inner(self) -> Weighting:
        """What gives p_i."""
        return self.base or ByExamples()

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override] # a class states its own, an object also those of its parts
        """What the cohort must carry, for ``base`` too."""
        return self.own_needs | self.inner.needs

    def __getattr__(self, name: str) -> Any:
        if name in STATE and self.base is not None:
            return getattr(self.base, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
