"""What the server does with the aggregate: ``optimizer(params [d], delta [d]) -> params [d]``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedagg.errors import ConfigError


class ServerOptimizer(ABC):
    """Move the global model. State, where there is any, lives in ``state_dict``, ``load_state_dict`` and ``reset``."""

    @abstractmethod
    def __call__(self, params: Tensor, delta: Tensor) -> Tensor:
        """Return the new parameters [d], dtype of ``params``; the inputs stay as they are."""


@dataclass(frozen=True)
class Step(ServerOptimizer):
    """Add the aggregate: ``params + lr * delta``, rounded once.

    With lr = 1 this is the server of FedAvg (McMahan et al., AISTATS 2017).

    Args:
        lr: server learning rate, > 0.
    """

    lr: float = 1.0

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ConfigError(f"the server's learning rate must be > 0; got {self.lr}")

    def __call__(self, params: Tensor, delta: Tensor) -> Tensor:
        return (params.double() + self.lr * delta.double()).to(params.dtype)


class TorchOptimizer(ServerOptimizer):
    """Any ``torch.optim`` optimizer, fed the negated aggregate as its gradient (Reddi et al., ICLR 2021, Algorithm 2).

    Args:
        make: builds the optimizer from a list of parameters, for example ``partial(torch.optim.Adam, lr=0.01)``.

    Example:
        >>> from functools import partial
        >>> optimizer = TorchOptimizer(partial(torch.optim.SGD, lr=1.0))
        >>> optimizer(torch.zeros(2), torch.tensor([1.0, -2.0]))
        tensor([ 1., -2.])
    """

    def __init__(self, make: Callable[..., torch.optim.Optimizer]) -> None:
        self.make = make
        self._variable: torch.nn.Parameter | None = None
        self._saved: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"TorchOptimizer(make={self.make!r})"

    def __call__(self, params: Tensor, delta: Tensor) -> Tensor:
        if self._variable is None:
            self._variable = torch.nn.Parameter(params.clone())
            self._optimizer = self.make([self._variable])
            if self._saved is not None:
                self._optimizer.load_state_dict(self._saved)
        self._variable.data = params.clone()
        self._variable.grad = -delta.to(params.dtype)
        self._optimizer.step()
        return self._variable.detach().clone()

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's moments and step counts; before the first call what was loaded, or nothing."""
        return (self._saved or {}) if self._variable is None else self._optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state`` at the next call."""
        self.reset()
        self._saved = state or None

    def reset(self) -> None:
        """Forget everything."""
        self._variable = self._saved = None
