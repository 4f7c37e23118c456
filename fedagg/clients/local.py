"""Local training: what happens to the parameters between receiving and sending a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from fedagg.errors import ConfigError

Memory = dict[str, list[Tensor]]


class LocalTraining(ABC):
    """One definition of local training, for one client at a time and for many at once.

    ``batches`` says which examples each step sees, ``loss`` what is minimised, ``step`` how the parameters move. The same
    ``step`` serves both executors: its tensors are those of one client, or of k clients with a leading dimension k, so it must
    treat clients alike and apart.

    What a client sends is what it changed, unless ``send`` makes something else of it, with the help of what the client
    remembers from the last round in which it took part.

    Attributes:
        epochs: passes over a client's examples, E.
        keeps: names of the vectors [d] that every client remembers; zero before its first round.
    """

    epochs: int
    keeps: ClassVar[tuple[str, ...]] = ()

    def send(self, rows: Tensor, kept: Mapping[str, Tensor]) -> None:  # noqa: B027 - most clients send what they changed
        """Turn what clients changed into what they send, and what they remembered into what they will remember; in place.

        Args:
            rows: [k, d], one row a client.
            kept: name -> [k, d], for each name in ``keeps``.
        """

    @abstractmethod
    def batches(self, m: int, generator: torch.Generator) -> list[Tensor]:
        """Return the steps of a round in order: for each the indices, among the client's ``m`` examples, of its batch."""

    def loss(self, logits: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the mean cross-entropy of a batch.

        Args:
            logits: [b, C].
            y: [b] int64.
            mask: [b], 1 for the examples that count and 0 for padding; None where all count.
        """
        if mask is None:
            return functional.cross_entropy(logits, y)
        return (functional.cross_entropy(logits, y, reduction="none") * mask).sum() / mask.sum()

    @abstractmethod
    def step(self, params: list[Tensor], grads: list[Tensor], memory: Memory) -> None:
        """Move ``params`` in place.

        Args:
            params: what is trained.
            grads: of the loss, alike. They may share memory with each other, so they are only read.
            memory: lists of tensors with the shapes of ``params`` (or of a leading client dimension alone), empty at a
                client's first step and kept until its last one of the round.
        """

    def train(
        self, forward: Callable[[Tensor], Tensor], params: list[Tensor], x: Tensor, y: Tensor, batches: list[Tensor]
    ) -> list[Tensor]:
        """Train one client in place and return the losses of its steps, each a tensor [].

        Args:
            forward: maps a batch [b, ...] to logits [b, C]; depends on ``params``.
            params: what is trained.
            x: [m, ...] float, the client's examples, m >= 1.
            y: [m] int64, their classes.
            batches: what ``batches`` returned; everything is on one device.
        """
        memory: Memory = {}
        losses = []
        for rows in batches:
            loss = self.loss(forward(x[rows]), y[rows])
            grads = list(torch.autograd.grad(loss, params))
            with torch.no_grad():
                self.step(params, grads, memory)
            losses.append(loss.detach())
        return losses

    def summary(self, losses: list[float]) -> dict[str, float]:
        """Return what a client reports of the losses of its steps.

        ``loss`` is the mean over the steps of the last epoch, ``local_steps`` how many steps were made in all.
        """
        last = losses[-max(1, len(losses) // self.epochs) :]
        return {"loss": sum(last) / len(last), "local_steps": float(len(losses))}


@dataclass(frozen=True)
class LocalSGD(LocalTraining):
    """Mini-batch SGD on the cross-entropy, the local solver of FedAvg (McMahan et al., AISTATS 2017, Algorithm 1).

    Every epoch visits the client's examples once, in a new random order, in batches of ``batch_size`` (the last may be
    smaller). A step is ``v <- momentum * v + g + weight_decay * y``, ``y <- y - lr * v``, with v = 0 at the start of a round.

    Args:
        epochs: passes over the client's data, E.
        steps: end after so many steps of these epochs, K; None makes them all. 1 is distributed SGD: one batch, one step.
        batch_size: examples per step, B.
        lr: learning rate.
        momentum: 0 is plain SGD; the buffer does not outlive the round.
        weight_decay: coefficient of the L2 term.
    """

    epochs: int = 1
    batch_size: int = 32
    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    steps: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("epochs", self.epochs), ("batch_size", self.batch_size), ("steps", self.steps)):
            if (value is not None or name != "steps") and (not isinstance(value, int) or value < 1):
                raise ConfigError(f"local.{name} must be an integer >= 1{', or null' * (name == 'steps')}; got {value}")
        for name, rate in (("lr", self.lr), ("momentum", self.momentum), ("weight_decay", self.weight_decay)):
            if not isinstance(rate, int | float):
                raise ConfigError(f"local.{name} must be a number; got {rate}")
        if self.lr < 0 or not 0 <= self.momentum < 1 or self.weight_decay < 0:
            raise ConfigError(
                "local training needs lr >= 0, 0 <= momentum < 1 and weight_decay >= 0; "
                f"got lr={self.lr}, momentum={self.momentum}, weight_decay={self.weight_decay}"
            )

    def batches(self, m: int, generator: torch.Generator) -> list[Tensor]:
        orders = (torch.randperm(m, generator=generator) for _ in range(self.epochs))
        return [batch for order in orders for batch in torch.split(order, self.batch_size)][: self.steps]

    def step(self, params: list[Tensor], grads: list[Tensor], memory: Memory) -> None:
        if self.weight_decay:
            grads = list(torch._foreach_add(grads, params, alpha=self.weight_decay))
        if self.momentum:
            if "velocity" in memory:
                torch._foreach_mul_(memory["velocity"], self.momentum)
                torch._foreach_add_(memory["velocity"], grads)
            else:
                memory["velocity"] = [grad.clone() for grad in grads]
            grads = memory["velocity"]
        torch._foreach_add_(params, grads, alpha=-self.lr)


@dataclass(frozen=True)
class WorkerMomentum(LocalSGD):
    """Send a momentum that outlives the round instead of the update itself.

    With g what local SGD changed in this round and m what the client sent the last time (zero before its first),

        m <- beta * m + g                   form="heavy_ball"
        m <- beta * m + (1 - beta) * g      form="ema"

    is remembered and sent; the server needs no momentum then. With ``steps=1`` and the plain mean this is distributed SGD with
    heavy-ball momentum. Its updates are up to 1 / (1 - beta) times as long: lower ``lr`` accordingly, and mind that a fixed
    clipping radius means something else.

    Source: Karimireddy, He, Jaggi, "Learning from History for Byzantine Robust Optimization", ICML 2021; "ema" is the form of
    the byzfl library.

    Args:
        epochs: see ``LocalSGD``.
        batch_size: see ``LocalSGD``.
        lr: see ``LocalSGD``.
        momentum: of the steps within a round; see ``LocalSGD``.
        weight_decay: see ``LocalSGD``.
        steps: see ``LocalSGD``.
        beta: how much of the past stays, in [0, 1).
        form: "heavy_ball" or "ema".
    """

    keeps: ClassVar[tuple[str, ...]] = ("momentum",)

    beta: float = 0.9
    form: Literal["heavy_ball", "ema"] = "heavy_ball"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.beta, int | float) or not 0 <= self.beta < 1:
            raise ConfigError(f"local.beta must lie in [0, 1); got {self.beta}")
        if self.form not in ("heavy_ball", "ema"):
            raise ConfigError(f"local.form must be heavy_ball or ema; got {self.form}")

    def send(self, rows: Tensor, kept: Mapping[str, Tensor]) -> None:
        rows.mul_(1.0 if self.form == "heavy_ball" else 1 - self.beta).add_(kept["momentum"], alpha=self.beta)
        kept["momentum"].copy_(rows)
