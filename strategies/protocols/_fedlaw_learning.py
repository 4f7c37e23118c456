"""How much each model counts, and by how much their mean is shrunk: n + 1 numbers, learned on the server's own examples.

The merged model is gamma * sum_i lam_i model_i. With G [d] the gradient of the loss there, all that is to be known of the n
models are the products <G, model_i>: no graph over them is kept.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fedagg.console import suggest
from fedagg.errors import ConfigError
from fedagg.linalg import gram, weighted_sum

Loss = Callable[[Tensor, Any], Tensor]
PARAMETRIZATIONS, OPTIMIZERS = ("exp", "quad"), ("adam", "sgd")
AVERAGED_FROM, AVERAGED_RATE, COSINE = 6, 0.05, 100  # of the averaged variant: epoch index, learning rate, period in epochs


def initial_coefficients(size_weights: Tensor, parametrization: str = "exp") -> tuple[Tensor, Tensor]:
    """Return the logits [n] and g [] that learning starts from, in the dtype of ``size_weights``.

    Args:
        size_weights: [n], finite and >= 0, one of them > 0: how much each model counts without learning.
        parametrization: "exp" starts at these weights and gamma = 1, "quad" at 1/n, whatever the weights, and gamma = 1.
    """
    one_of("parametrization", parametrization, PARAMETRIZATIONS)
    if size_weights.ndim != 1 or not bool((size_weights.isfinite() & (size_weights >= 0)).all()) or not size_weights.any():
        raise ValueError(f"FedLAW starts from n finite weights >= 0, one of them > 0; got {size_weights.tolist()}")
    if parametrization == "exp":
        return size_weights.log(), size_weights.new_zeros(())
    return torch.full_like(size_weights, len(size_weights) ** -0.5), size_weights.new_ones(())


def coefficients(logits: Tensor, g: Tensor, parametrization: str = "exp") -> tuple[Tensor, Tensor]:
    """Return lam [n], >= 0 and of sum 1, and gamma [] of ``logits`` [n] and ``g`` [].

    Args:
        logits: [n].
        g: [].
        parametrization: "exp": softmax(logits) and exp(g). "quad": squares over their sum, and g squared.
    """
    one_of("parametrization", parametrization, PARAMETRIZATIONS)
    if parametrization == "exp":
        return logits.softmax(dim=0), g.exp()
    squares = logits.square()
    return squares / squares.sum(), g.square()


def merged_delta(params: Tensor, updates: Tensor, lam: Tensor, gamma: Tensor | float) -> Tensor:
    """Return [d], the step from ``params`` [d] to gamma * sum_i lam_i (params + updates_i).

    Args:
        params: [d], what the clients received.
        updates: [n, d], what each added to it.
        lam: [n], of sum 1.
        gamma: 1 leaves the size of the mean model as it is.
    """
    gamma = float(gamma)
    return gamma * weighted_sum(updates, lam) + (gamma - 1.0) * params


def coherence(updates: Tensor) -> Tensor:
    """Return the cosines [n, n] between the rows of ``updates`` [n, d]; 1 on the diagonal, 0 beside a row of zeros."""
    products = gram(updates)
    norms = products.diagonal().clamp(min=0).sqrt()
    lengths = norms[:, None] * norms[None, :]
    cosines = torch.where(lengths > 0, products / lengths, 0.0).clamp(-1.0, 1.0)
    return cosines.fill_diagonal_(1.0).to(updates.dtype)


def learn_coefficients(
    models: Tensor,
    size_weights: Tensor,
    loss: Loss,
    batches: Iterable[Any],
    *,
    parametrization: str = "exp",
    epochs: int = 20,
    lr: float = 0.01,
    optimizer: str = "adam",
    betas: Sequence[float] = (0.5, 0.999),
    momentum: float = 0.9,
    step_size: int = 20,
    step_gamma: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """Return lam [n] and gamma [] that lower the loss of gamma * sum_i lam_i models_i, in the dtype of ``models``.

    Args:
        models: [n, d], whole models.
        size_weights: [n], see ``initial_coefficients``.
        loss: maps a model [d] and a batch to its loss [], differentiable in the model.
        batches: gone through once per epoch, so it must be re-iterable; one step each.
        parametrization: see ``coefficients``.
        epochs: passes over ``batches``; 0 returns the start.
        lr: learning rate.
        optimizer: "adam" or "sgd".
        betas: of Adam.
        momentum: of SGD.
        step_size: after every so many epochs the rate is multiplied by ``step_gamma``.
        step_gamma: see ``step_size``.

    Warns:
        RuntimeWarning: the loss left the range of numbers; what is returned is from before that.
    """
    learning = Learning(parametrization, epochs, lr, optimizer, (betas[0], betas[1]), momentum, step_size, step_gamma)
    learned = learning.learn(models[0], models - models[0], size_weights, loss, batches)
    if not learned.complete:
        warnings.warn(f"{learned.stopped}; lower lr (now {lr})", RuntimeWarning, stacklevel=2)
    return learned.lam, learned.gamma


class Learned(NamedTuple):
    """What was learned: ``lam`` [n], ``gamma`` [], after so many steps; whether these are all that were to be made."""

    lam: Tensor
    gamma: Tensor
    steps: int
    complete: bool

    @property
    def stopped(self) -> str:
        """Why it is not complete, in words."""
        return f"learning stopped after {self.steps} steps, beyond which loss or coefficients are not finite"


@dataclass(frozen=True)
class Learning:
    """How coefficients are learned.

    Args:
        parametrization: see ``learn_coefficients``, as for what is not explained here.
        epochs: passes over the examples.
        lr: learning rate.
        optimizer: "adam" or "sgd".
        betas: of Adam.
        momentum: of SGD.
        step_size: in epochs.
        step_gamma: what the rate is multiplied by.
        swa: learn lam alone for half of the epochs, then gamma alone for the other half. lam is the mean of the logits after
            the epochs from index 6 on, which are made at rate 0.05; those before follow a cosine. With fewer than 14 epochs
            there are none to average, and lam stays where it starts.
    """

    parametrization: str = "exp"
    epochs: int = 20
    lr: float = 0.01
    optimizer: str = "adam"
    betas: tuple[float, float] = (0.5, 0.999)
    momentum: float = 0.9
    step_size: int = 20
    step_gamma: float = 0.5
    swa: bool = False

    def __post_init__(self) -> None:
        one_of("parametrization", self.parametrization, PARAMETRIZATIONS)
        one_of("optimizer", self.optimizer, OPTIMIZERS)
        if not isinstance(self.epochs, int) or self.epochs < 0:
            raise ConfigError(f"FedLAW needs an integer epochs >= 0; got {self.epochs}")
        if not isinstance(self.lr, int | float) or not 0 < self.lr < math.inf:
            raise ConfigError(f"FedLAW needs a finite lr > 0; got {self.lr}")

    def learn(self, params: Tensor, updates: Tensor, size_weights: Tensor, loss: Loss, batches: Iterable[Any]) -> Learned:
        """Learn the coefficients of the models ``params`` [d] + ``updates`` [n, d]; the rest as in ``learn_coefficients``."""
        weights = size_weights.to(updates.device, torch.float64)
        point = _Point(params, updates, loss, self.parametrization, *initial_coefficients(weights, self.parametrization))
        if not self.swa:
            complete = self._descend(point, slice(None), self._rates(self.epochs), batches)
            return Learned(*point.coefficients(), point.steps, complete)
        half, logits, g = self.epochs // 2, slice(None, -1), slice(-1, None)
        start, ends = point.numbers.clone(), list[Tensor]()
        rates = [self.lr * (1 + math.cos(math.pi * epoch / COSINE)) / 2 for epoch in range(min(half, AVERAGED_FROM))]
        rates += [AVERAGED_RATE] * (half - len(rates))
        complete = self._descend(point, logits, rates, batches, ends)
        if complete:
            averaged = ends[AVERAGED_FROM:]
            point.numbers.copy_(torch.stack(averaged).mean(dim=0) if averaged else start)
            complete = self._descend(point, g, self._rates(half), batches)
        return Learned(*point.coefficients(), point.steps, complete)

    def _rates(self, epochs: int) -> list[float]:
        return [self.lr * self.step_gamma ** (epoch // self.step_size) for epoch in range(epochs)]

    def _descend(
        self,
        point: _Point,
        moved: slice,
        rates: Sequence[float],
        batches: Iterable[Any],
        ends: list[Tensor] | None = None,
    ) -> bool:
        """Move some of the numbers of ``point``, one epoch per rate; note all of them at the end of each in ``ends``.

        Returns False where that led out of the range of numbers; the point is then the last one before.
        """
        step = _Adam(*self.betas) if self.optimizer == "adam" else _Momentum(self.momentum)
        for rate in rates:
            for batch in batches:
                slope = point.slope(batch)
                if slope is None or not point.move(moved, rate * step(slope[moved])):
                    point.go_back()
                    return False
            if ends is not None:
                ends.append(point.numbers.clone())
        return True


class _Adam:
    """The steps of Adam at rate 1 (Kingma, Ba, ICLR 2015). torch's own imports its compiler: a second of every process."""

    def __init__(self, first: float, second: float) -> None:
        self.betas, self.count = (first, second), 0

    def __call__(self, slope: Tensor) -> Tensor:
        first, second = self.betas
        if not self.count:
            self.mean, self.square = torch.zeros_like(slope), torch.zeros_like(slope)
        self.count += 1
        self.mean = first * self.mean + (1 - first) * slope
        self.square = second * self.square + (1 - second) * slope.square()
        return self.mean / (1 - first**self.count) / ((self.square / (1 - second**self.count)).sqrt() + 1e-8)


class _Momentum:
    """The steps of SGD with momentum at rate 1."""

    def __init__(self, momentum: float) -> None:
        self.momentum, self.velocity = momentum, torch.zeros(())

    def __call__(self, slope: Tensor) -> Tensor:
        self.velocity = self.momentum * self.velocity + slope
        return self.velocity


class _Point:
    """The n logits and g while they are learned, in float64, and where they last had a finite loss."""

    def __init__(self, params: Tensor, updates: Tensor, loss: Loss, parametrization: str, logits: Tensor, g: Tensor) -> None:
        self.params, self.updates, self.loss, self.parametrization = params, updates, loss, parametrization
        self.numbers, self.steps = torch.cat([logits, g[None]]), 0
        self._before = self.numbers.clone(), 0

    def coefficients(self) -> tuple[Tensor, Tensor]:
        """Return lam [n] and gamma [] in the dtype of the models."""
        lam, gamma = coefficients(self.numbers[:-1], self.numbers[-1], self.parametrization)
        return lam.to(self.updates.dtype), gamma.to(self.updates.dtype)

    def slope(self, batch: Any) -> Tensor | None:
        """Return the gradient [n + 1] of the loss on ``batch``; None if loss or gradient is not finite."""
        logits, g = self.numbers[:-1], self.numbers[-1]
        lam, gamma = coefficients(logits, g, self.parametrization)
        mean = self.params + weighted_sum(self.updates, lam)
        with torch.enable_grad():
            merged = (mean * gamma.to(mean.dtype)).requires_grad_()
            value = self.loss(merged, batch)
            (gradient,) = torch.autograd.grad(value, merged)
        along, along_mean = (self.updates @ gradient).double(), (mean @ gradient).double()
        if self.parametrization == "exp":
            per_logit, per_g = lam, gamma
        else:
            per_logit, per_g = 2 * logits / logits.square().sum(), 2 * g
        slope = torch.cat([gamma * per_logit * (along - lam @ along), (per_g * along_mean)[None]])
        if not bool(value.isfinite() & slope.isfinite().all()):
            return None
        self._before = self.numbers.clone(), self.steps
        return slope

    def move(self, moved: slice, step: Tensor) -> bool:
        """Take ``step`` off some of the numbers; False if lam and gamma are then not finite, or gamma is not more than 0."""
        self.numbers[moved] -= step
        self.steps += 1
        lam, gamma = self.coefficients()
        return bool(lam.isfinite().all() & gamma.isfinite() & (gamma > 0))

    def go_back(self) -> None:
        """Return to the last point with a finite loss and gradient, or to the start."""
        before, self.steps = self._before
        self.numbers.copy_(before)


def one_of(name: str, value: str, known: Sequence[str]) -> None:
    """Raise ``ConfigError`` unless ``value`` is one of the ``known``."""
    if value not in known:
        raise ConfigError(f"FedLAW needs {name} to be one of {', '.join(known)}; got {value}{suggest(str(value), known)}")
