"""What the server does with the aggregate: ``optimizer(params [d], delta [d]) -> params [d]``.

``params`` are trainable parameters alone: no buffer, such as a running variance, is ever moved by momentum or rescaled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
        _check(self.lr)

    def __call__(self, params: Tensor, delta: Tensor) -> Tensor:
        return (params.double() + self.lr * delta.double()).to(params.dtype)


class _WithMoments(ServerOptimizer):
    """A server optimizer that remembers vectors [d], in float64."""

    _moments: dict[str, Tensor]

    def state_dict(self) -> dict[str, Tensor]:
        """Return the moments by name, copies; nothing before the first call."""
        return {name: moment.clone() for name, moment in self._moments.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from ``state``."""
        self._moments = {name: moment.clone() for name, moment in state.items()}

    def reset(self) -> None:
        """Forget everything."""
        self._moments = {}

    def _moment(self, name: str, like: Tensor, start: float = 0.0) -> Tensor:
        """Return a moment [d] float64, where the parameters are; filled with ``start`` at first."""
        moment = self._moments.get(name)
        return torch.full_like(like, start, dtype=torch.float64) if moment is None else moment.to(like.device)


@dataclass
class FedAvgM(_WithMoments):
    """Add the aggregates of all rounds, each ``beta`` times as much as the next (Hsu et al., 2019):

        v <- beta v + delta,    params <- params + lr v,    v = 0 at first.

    The step is up to 1 / (1 - beta) times as long as the aggregate. Where delta is averaged into v with the factor 1 - beta
    instead, the same ``lr`` means a step that much shorter.

    Args:
        lr: server learning rate, > 0.
        beta: how much of v stays, in [0, 1). 0 is ``Step``.

    Example:
        >>> optimizer, w = FedAvgM(beta=0.9), torch.zeros(1)
        >>> for delta in (1.0, -0.5, 2.0):
        ...     w = optimizer(w, torch.tensor([delta]))
        ...     print(f"{w.item():.2f}")
        1.00
        1.40
        3.76
    """

    lr: float = 1.0
    beta: float = 0.9
    _moments: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check(self.lr, beta=self.beta)

    def __call__(self, params: Tensor, delta: Tensor) -> Tensor:
        velocity = self._moments["v"] = self.beta * self._moment("v", params) + delta.double()
        return (params.double() + self.lr * velocity).to(params.dtype)


@dataclass
class _Adaptive(_WithMoments):
    """What the three optimizers of Reddi et al., "Adaptive Federated Optimization", ICLR 2021, Algorithm 2, share:

        m <- beta1 m + (1 - beta1) delta,    v <- (see the class),    params <- params + lr m / (sqrt(v) + tau),

    coordinate by coordinate, with m = 0 and v = v0 at first. Nothing is corrected for this start: torch's optimizers of the
    same names do that, and take another first step.

    Args:
        lr: server learning rate, > 0.
        beta1: how much of m stays, in [0, 1).
        tau: > 0, bounds how much a coordinate with small aggregates is stretched.
        v0: where v starts; None is tau^2, the least that the source allows, and 0 is what most libraries do.
    """

    lr: float = 0.1
    beta1: float = 0.9
    tau: float = 1e-3
    v0: float | None = None
    _moments: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check(self.lr, beta1=self.beta1)
        if not self.tau > 0 or (self.v0 is not None and not self.v0 >= 0):
            raise ConfigError(f"{type(self).__name__} needs tau > 0 and v0 >= 0, or v0=None; got tau={self.tau}, v0={self.v0}")

    @abstractmethod
    def _grown(self, v: Tensor, squares: Tensor) -> Tensor:
        """Return v [d] after a round with the squared aggregate ``squares`` [d]."""

    def __call__(self, params: Tensor, delta: Tensor) -> Tensor:
        start = self.tau**2 if self.v0 is None else self.v0
        m = self.beta1 * self._moment("m", params) + (1 - self.beta1) * delta.double()
        v = self._grown(self._moment("v", params, start), delta.double().square())
        self._moments = {"m": m, "v": v}
        return (params.double() + self.lr * m / (v.sqrt() + self.tau)).to(params.dtype)


@dataclass
class FedAdagrad(_Adaptive):
    """Divide by the root of all squared aggregates so far: v <- v + delta^2. Steps get shorter for good.

    Source, arguments: as ``FedAdam``, without a beta2. With beta1 = 0 this is ``torch.optim.Adagrad`` with ``eps = tau`` and
    ``initial_accumulator_value = v0``.
    """

    beta1: float = 0.0

    def _grown(self, v: Tensor, squares: Tensor) -> Tensor:
        return v + squares


@dataclass
class FedAdam(_Adaptive):
    """Divide by the root of a running mean of the squared aggregates: v <- beta2 v + (1 - beta2) delta^2.

    With m <- beta1 m + (1 - beta1) delta the model moves by lr m / (sqrt(v) + tau); m = 0 and v = v0 at first, and nothing is
    corrected for this start (Reddi et al., "Adaptive Federated Optimization", ICLR 2021, Algorithm 2). ``torch.optim.Adam``
    does correct it: its first step is about three times as long with these betas, and its eps another than tau.

    Args:
        lr: server learning rate, > 0.
        beta1: how much of m stays, in [0, 1).
        tau: > 0; the larger, the less coordinates differ in how far they move.
        v0: where v starts, >= 0; None is tau^2, the least that the source allows.
        beta2: how much of v stays, in [0, 1).

    Example:
        >>> optimizer = FedAdam(lr=0.1)
        >>> print(f"{optimizer(torch.zeros(1, dtype=torch.float64), torch.ones(1)).item():.10f}")
        0.0990050489
    """

    beta2: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.lr, beta2=self.beta2)

    def _grown(self, v: Tensor, squares: Tensor) -> Tensor:
        return self.beta2 * v + (1 - self.beta2) * squares


@dataclass
class FedYogi(FedAdam):
    """Like ``FedAdam``, but v goes towards delta^2 by a step that does not depend on v:

        v <- v - (1 - beta2) delta^2 sign(v - delta^2),

    so that it falls more slowly when aggregates get small.
    """

    lr: float = 0.01

    def _grown(self, v: Tensor, squares: Tensor) -> Tensor:
        return v - (1 - self.beta2) * squares * torch.sign(v - squares)


class TorchOptimizer(ServerOptimizer):
    """Any ``torch.optim`` optimizer, fed the negated aggregate as its gradient (Reddi et al., ICLR 2021, Algorithm 1).

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


def _check(lr: float, **betas: float) -> None:
    if not lr > 0:
        raise ConfigError(f"the server's learning rate must be > 0; got {lr}")
    for name, beta in betas.items():
        if not 0 <= beta < 1:
            raise ConfigError(f"server_optimizer.{name} must lie in [0, 1); got {beta}")
