"""FedLAW: learn how much each client's model counts, and by how much to shrink their mean, on examples of the server's own.

Li, Lin, Shang, Wu, "Revisiting Weighted Aggregation in Federated Learning with Neural Networks", ICML 2023.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fedagg import Cohort, Strategy, rng
from fedagg.errors import ConfigError
from strategies.protocols._fedlaw_learning import (
    Learning,
    coefficients,
    coherence,
    initial_coefficients,
    learn_coefficients,
    merged_delta,
    one_of,
)
from strategies.protocols._fedlaw_proxy import Examples, ProxyModel, checked
from strategies.weightings.by_examples import ByExamples

__all__ = ["FedLAW", "coefficients", "coherence", "initial_coefficients", "learn_coefficients", "merged_delta"]
logger = logging.getLogger(__name__)


class FedLAW(Strategy):
    """The new model is

        gamma * sum_i lam_i (theta + u_i),        lam_i >= 0, sum_i lam_i = 1, gamma > 0,

    with the n + 1 coefficients learned anew in every round: gradient descent on the cross-entropy of the merged model on a few
    examples that the server holds. Whole models are shrunk, not updates; a server optimizer of rate 1 is the paper's.

    Args:
        model: the architecture; its trainable parameters, in its own order, are what clients send.
        proxy: the server's examples: inputs [m, ...] and integer classes [m].
        parametrization: "exp": lam = softmax(l), gamma = exp(g), from the weighting's weights and 1, which is FedAvg. "quad":
            lam_i = l_i^2 / sum l^2, gamma = g^2, from 1/n and 1; no other weighting goes with it.
        epochs: passes over the proxy per round; 0 leaves the coefficients where they start.
        lr: learning rate of the coefficients. At the defaults and 200 examples a logit moves by about 0.4 in a round, and by
            1.0 at most.
        optimizer: "adam" with betas (0.5, 0.999), or "sgd" with momentum 0.9.
        batch_size: examples per step.
        swa: learn lam alone for half of the epochs, averaging over the later ones, then gamma alone for the other half.
        batch_norm: "refresh": the server's running statistics, moved by the proxy batches. "average": the clients', averaged
            with lam. Either way the merged model is tried with the statistics of the batch.
        generator: orders the proxy; None: the run's seed does, round by round.
        engine: what ``Strategy`` takes. ``weighting`` is ``ByExamples()`` unless given; None is 1/n. There is no ``rule``.

    Shapes: updates [n, d], params [d] -> delta [d].
    Bound: n >= 1; weights finite, >= 0 and not all 0. Not robust: lam changes little, so an attacker keeps its share.
    Cost: time O(steps (n d + forward and backward pass)), memory 3 d beside the activations.
    Differs from the source: random layers are seeded; should the loss leave the range of numbers, learning ends before
        that; the proxy is not taken from the test set unless asked for.
    Diagnostics: ``last_info`` holds ``lam`` by client id (by row behind a pre-aggregator), ``gamma``, and the mean loss of the
        proxy at the start and with what was learned, ``proxy_loss_before`` and ``proxy_loss_after``.

    Example:
        >>> proxy = torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 1])
        >>> strategy = FedLAW(torch.nn.Linear(1, 2, bias=False), proxy, lr=0.1)
        >>> cohort = Cohort(round=1, client_ids=[3, 7], updates=torch.tensor([[1.0, -1.0], [-1.0, 1.0]]),
        ...                 params=torch.tensor([1.0, -1.0]), num_examples=torch.tensor([10, 10]))
        >>> step = strategy.aggregate(cohort)
        >>> {client: round(lam, 2) for client, lam in strategy.last_info["lam"].items()}
        {3: 0.78, 7: 0.22}
    """

    needs: ClassVar[frozenset[str]] = frozenset({"model", "proxy"})
    _only_read = (*Strategy._only_read, "model", "proxy")

    def __init__(
        self,
        model: nn.Module | None = None,
        proxy: Examples | None = None,
        parametrization: str = "exp",
        epochs: int = 20,
        lr: float = 0.01,
        optimizer: str = "adam",
        batch_size: int = 128,
        swa: bool = False,
        batch_norm: str = "refresh",
        generator: torch.Generator | None = None,
        **engine: Any,
    ) -> None:
        if engine.get("rule") is not None:
            raise ConfigError(f"FedLAW merges models itself, so rule={engine['rule']} would have no effect; leave it out")
        super().__init__(**{"weighting": ByExamples(), **engine})
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f"FedLAW needs an integer batch_size >= 1; got {batch_size}")
        one_of("batch_norm", batch_norm, ("refresh", "average"))
        self.learning = Learning(parametrization, epochs, lr, optimizer, swa=swa)
        if parametrization == "quad" and self.weighting not in (None, ByExamples()):
            raise ConfigError(
                f"FedLAW with parametrization='quad' starts from 1/n, so weighting={self.weighting} would have no effect; "
                "leave it out, or take parametrization='exp'"
            )
        self.model, self.proxy = model, None if proxy is None else checked(proxy)
        self.batch_size, self.batch_norm, self.generator = batch_size, batch_norm, generator
        self._tried: ProxyModel | None = None
        self._warned = False

    def __repr__(self) -> str:
        learning = self.learning
        return (
            f"FedLAW(parametrization={learning.parametrization!r}, epochs={learning.epochs}, lr={learning.lr}, "
            f"optimizer={learning.optimizer!r}, batch_size={self.batch_size}, swa={learning.swa}, "
            f"batch_norm={self.batch_norm!r}, weighting={self.weighting!r}, pre_aggregators={list(self.pre_aggregators)!r}, "
            f"server_optimizer={self.server_optimizer!r}, cohort={self.cohort}, evaluate_every={self.evaluate_every}, "
            f"seed={self.seed})"
        )

    def configure_train(self, server_round: int, *args: Any, **kwargs: Any) -> Iterable[Any]:
        """As always; raises ``ConfigError`` if there is no model or no proxy, or if the one does not fit the other."""
        messages = super().configure_train(server_round, *args, **kwargs)
        assert self._state is not None
        self._on_proxy(self._state.params)
        return messages

    def aggregate(self, cohort: Cohort) -> Tensor:
        """Return the step [d] to the merged model with learned coefficients."""
        tried, params, rows = self._on_proxy(cohort.params), cohort.params, cohort.updates
        for pre_aggregator in self.pre_aggregators:
            rows = pre_aggregator(rows)
        equal = torch.full((len(rows),), 1.0 / len(rows), dtype=torch.float64, device=rows.device)
        weights = equal if self.weighting is None else self.weighting(cohort)
        lam, gamma = coefficients(*initial_coefficients(weights, self.learning.parametrization), self.learning.parametrization)
        start = merged_delta(params, rows, lam, gamma)
        tried.begin(self._state)
        before = tried.measure(params + start, self.batch_size)
        source = rng.generator(self.seed, "fedlaw", cohort.round) if self.generator is None else self.generator
        with rng.seeded_globals(self.seed, "fedlaw layers", cohort.round):  # for dropout
            learned = self.learning.learn(params, rows, weights, tried.loss, tried.batches(self.batch_size, source))
        delta, steps = merged_delta(params, rows, learned.lam, learned.gamma), learned.steps
        after = tried.measure(params + delta, self.batch_size)
        if math.isfinite(after):
            lam, gamma = learned.lam, learned.gamma
        else:
            delta, after, steps = start, before, 0
        if not (learned.complete and steps == learned.steps):
            level, self._warned = (logging.INFO if self._warned else logging.WARNING), True
            logger.log(
                level,
                "round %d: %s; is lr=%g too high?",
                cohort.round,
                learned._replace(steps=steps).stopped,
                self.learning.lr,
            )
        self._note(cohort, lam, float(gamma), before, after, steps)
        return delta

    def buffers(self, merged: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the buffers of the new model: the server's own, moved by the proxy, or those ``merged`` over the clients."""
        own = self._tried.buffers() if self._tried is not None and self.batch_norm == "refresh" else None
        return merged if own is None else own

    def _on_proxy(self, params: Tensor) -> ProxyModel:
        missing = [name for name, given in (("model", self.model), ("proxy", self.proxy)) if given is None]
        if self.model is None or self.proxy is None:
            raise ConfigError(
                f"FedLAW tries the merged model on examples of the server's own, and has no {' and no '.join(missing)}: give "
                "FedLAW(model=..., proxy=(inputs, classes)); on the command line trusted=200 does it"
            )
        if self._tried is None:
            self._tried = ProxyModel(self.model, self.proxy, params)
        return self._tried

    def _note(self, cohort: Cohort, lam: Tensor, gamma: float, before: float, after: float, steps: int) -> None:
        """Put a round on the record."""
        alone = not self.pre_aggregators  # behind one a row may be a mixture of clients
        shares = lam.double()
        by_row = dict(zip(cohort.client_ids if alone else range(len(lam)), shares.tolist(), strict=True))
        self._weights = lam if len(lam) == cohort.n else None  # the clients' float buffers count as much
        self.last_info |= {"lam": by_row, "gamma": gamma, "proxy_loss_before": before, "proxy_loss_after": after}
        if alone:
            self.last_info["client_weights"] = self.client_metrics["lambda"] = by_row
        self.round_metrics |= {
            "gamma": gamma,
            "lambda_min": float(shares.min()),
            "lambda_max": float(shares.max()),
            "lambda_entropy": float(torch.special.entr(shares).sum()),
            "proxy_loss_before": before,
            "proxy_loss_after": after,
            "learning_steps": float(steps),
        }
        if cohort.n > 1:
            cosines = coherence(cohort.updates).double()
            self.round_metrics["coherence"] = float((cosines.sum() - cohort.n) / (cohort.n * (cohort.n - 1)))
