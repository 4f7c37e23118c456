"""The contract of local training: what happens to the parameters between receiving and sending a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedagg.contracts import Payload
from fedagg.errors import ConfigError
from fedagg.params import Layout, State

if TYPE_CHECKING:
    from fedagg.clients.network import Network

Memory = dict[str, list[Tensor]]
Seen = Mapping[str, list[Tensor]]


@dataclass
class Sent:
    """What k clients are about to send; ``LocalTraining.send`` changes it in place.

    Args:
        model: what they received; only read.
        rows: [k, d], what each changed.
        float_buffers: [k, b], as they were left.
        steps: [k] float64, how many steps each made.
        received: name -> [L], what the server sent beside the model; only read.
        extras: name -> [k, L], to be filled with what goes up beside the model.
    """

    model: State
    rows: Tensor
    float_buffers: Tensor
    steps: Tensor
    received: Mapping[str, Tensor] = field(default_factory=dict)
    extras: dict[str, Tensor] = field(default_factory=dict)


class LocalTraining(ABC):
    """One definition of local training, for one client at a time and for many at once.

    ``batches`` says which examples each step sees, ``objective`` what is minimised, ``step`` how the parameters move. The same
    ``step`` serves both executors: its tensors are those of one client, or of k clients with a leading dimension k, so it must
    treat clients alike and apart.

    What a client sends is what it changed, unless ``send`` makes something else of it, with the help of what the client
    remembers from the last round in which it took part and of what the server sent beside the model.

    Attributes:
        epochs: passes over a client's examples, E.
        keeps: names of the vectors that every client remembers; ``first`` says what they are before its first round.
        receives: names of the vectors that the server must send beside the model (``Strategy.broadcast``). No name is both.
        in_steps: which of these, all [d] long, steps and objective see, laid out like the parameters; "received" is the model
            that the client was sent.
        buffers_in_steps: which of these, all [b] long, they see as they are; "received_buffers" are those of that model,
            "round" is the number of the round, "steps" how many steps the client makes in it, [1] int64 each.
        payload: what is sent and received: models, or rankings of the parameters of each layer, which ``rebuild`` turns into a
            model and ``send`` leaves in ``extras["rankings"]``.
        server_half: name of the strategy without which this makes no sense (it names this as its ``client_half``); "" goes
            with any.
        own_start: clients start from what ``begin`` makes of the model they receive.
        personalises: clients evaluate what ``evaluates`` makes of the model they receive.
        server_model: whether the server's model is one that can be measured by itself.
    """

    epochs: int
    keeps: ClassVar[tuple[str, ...]] = ()
    receives: ClassVar[tuple[str, ...]] = ()
    in_steps: ClassVar[tuple[str, ...]] = ()
    buffers_in_steps: ClassVar[tuple[str, ...]] = ()
    payload: ClassVar[Payload] = "updates"
    server_half: ClassVar[str] = ""
    own_start: ClassVar[bool] = False
    personalises: ClassVar[bool] = False
    server_model: ClassVar[bool] = True

    @property
    def personal(self) -> LocalTraining | None:
        """A second training in every round: it starts from what the client remembers as "personal", and ends as that.

        Its float buffers are those remembered as "personal_buffers". Of what it changed nothing is sent.
        """
        return None

    def trains(self, model: nn.Module, seed: int) -> nn.Module:
        """Return the model whose parameters are trained and sent: ``model``, or what this makes of it.

        Args:
            model: the architecture, or what this made of it before.
            seed: the run's seed.

        Raises:
            ConfigError: the model cannot be trained like this.
        """
        return model

    def rebuild(self, rankings: Tensor) -> State:
        """Return the model that these rankings [d], layer by layer, stand for; where the payload is rankings."""
        raise NotImplementedError(f"{type(self).__name__} receives models")

    def prepared(self, model: nn.Module, layout: Layout) -> Self:
        """Return the same for clients of this model; called once, before anything else.

        Raises:
            ConfigError: the model cannot be trained like this.
        """
        return self

    def first(self, state: State) -> dict[str, Tensor]:
        """Return what a client remembers before the first round in which it takes part, and receives ``state``: zeros [d]."""
        return {name: torch.zeros_like(state.params) for name in self.keeps}

    def begin(self, params: Tensor, float_buffers: Tensor, kept: Mapping[str, Tensor]) -> None:  # noqa: B027 - see own_start
        """Turn the received model, [k, d] and [k, b], into what clients start from, in place; ``kept`` is only read."""

    def evaluates(self, params: Tensor, float_buffers: Tensor, kept: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Turn the received model, [k, d] and [k, b], into what clients evaluate, in place; ``kept`` is only read."""

    def send(self, sent: Sent, kept: Mapping[str, Tensor]) -> None:  # noqa: B027 - most clients send what they changed
        """Turn what clients changed into what they send, and what they remembered into what they will remember; in place.

        Args:
            sent: of k clients.
            kept: name -> [k, L], for each name in ``keeps``.
        """

    @abstractmethod
    def batches(self, m: int, generator: torch.Generator) -> list[Tensor]:
        """Return the steps of a round in order: for each the indices, among the client's ``m`` examples, of its batch."""

    def objective(
        self, network: Network, params: list[Tensor], x: Tensor, y: Tensor, mask: Tensor | None, seen: Seen
    ) -> Tensor:
        """Return what a step minimises, [], of one client and one batch.

        Args:
            network: the model as a function of its parameters.
            params: what is trained.
            x: [b, ...] float.
            y: [b] int64.
            mask: [b], 1 for the examples that count and 0 for padding; None where all count.
            seen: name -> like ``params``, for each name in ``in_steps``, and a list of one vector [b] for each name in
                ``buffers_in_steps``.
        """
        return self.loss(network(params, x), y, mask)

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
            grads: of the objective, alike. They may share memory with each other, so they are only read.
            memory: lists of tensors with the shapes of ``params`` (or of a leading client dimension alone), kept until a
                client's last step of the round. At its first it holds what the objective sees, which is only read.
        """

    def train(
        self, network: Network, params: list[Tensor], x: Tensor, y: Tensor, batches: list[Tensor], seen: Seen
    ) -> list[Tensor]:
        """Train one client in place and return the losses of its steps, each a tensor [].

        Args:
            network: the model as a function of its parameters.
            params: what is trained.
            x: [m, ...] float, the client's examples, m >= 1.
            y: [m] int64, their classes.
            batches: what ``batches`` returned; everything is on one device.
            seen: see ``objective``.
        """
        memory: Memory = dict(seen)
        losses = []
        for rows in batches:
            loss = self.objective(network, params, x[rows], y[rows], None, seen)
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

    def a_norm(self, steps: int) -> float:
        """Return the sum of the coefficients with which ``steps`` steps add up their gradients, in units of the learning rate.

        Raises:
            ConfigError: this training does not add up gradients in a way that is known.
        """
        raise ConfigError(f"{type(self).__name__} does not say how its steps add up gradients, which FedNova needs to know")
