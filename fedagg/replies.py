"""Replies of a round: which of them the server can use, and as what."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable

import torch
from flwr.app import Message, MetricRecord
from torch import Tensor

from fedagg.clients.app import NOT_FINITE, arrays_of, extras_of, rankings_of, records_of
from fedagg.contracts import Payload
from fedagg.params import Layout, ModelState, State

logger = logging.getLogger(__name__)


class Reply:
    """One reply that fits the model: who, which state, what it added to ``theta`` [d], what it sends and reports beside it.

    Args:
        layout: of the model.
        theta: [d], what was sent out.
        message: the reply.
        expected: names of the vectors [d] it must bring beside its model.
        reports: names of the numbers it must report, and "label_counts".
        payload: what it must bring. Rankings [d] become ``extras["rankings"]``; of its model nothing is then known.

    Raises:
        ValueError: saying why the reply cannot be used.
    """

    def __init__(
        self,
        layout: Layout,
        theta: Tensor,
        message: Message,
        expected: Collection[str],
        reports: Collection[str],
        payload: Payload = "updates",
    ) -> None:
        if message.has_error():
            raise ValueError(f"it failed: {message.error.reason}")
        self.client = message.metadata.src_node_id
        beside = {}
        if payload == "rankings":
            self.state: State = ModelState(theta, theta.new_empty(0), theta.new_empty(0, dtype=torch.int64))
            self.row = theta.new_zeros(1).expand(len(theta))
            beside["rankings"] = rankings_of(arrays_of(message), layout.sizes()).to(theta.device)
        else:
            self.state = layout.read(arrays_of(message), theta.device)
            self.row, finite = self.state.update_from(theta)
            floats = self.state.float_buffers
            if not finite or (len(floats) and not torch.isfinite(floats).all()):
                raise ValueError(NOT_FINITE)
        self.extras = {**beside, **(_extras(theta, message, expected) if expected else {})}
        self.metrics = numbers(message)
        self.label_counts = _label_counts(message)
        for name in sorted(reports):
            told = self.label_counts is not None if name == "label_counts" else math.isfinite(self.metrics.get(name, math.nan))
            if not told:
                raise ValueError(f"it does not report {name}, or no finite number")
        count = self.metrics.setdefault("num-examples", 1.0)
        if not (math.isfinite(count) and count >= 0):
            raise ValueError(f"it claims {count} examples")


def usable(
    layout: Layout,
    theta: Tensor,
    replies: Iterable[Message],
    expected: Collection[str],
    reports: Collection[str],
    rejected: dict[int, str],
    payload: Payload = "updates",
) -> list[Reply]:
    """Return the replies that fit, by ascending client id, one per client; note why each of the others does not."""
    fitting: dict[int, Reply] = {}
    for message in replies:
        client = message.metadata.src_node_id
        try:
            fitting.setdefault(client, Reply(layout, theta, message, expected, reports, payload))
        except ValueError as error:
            rejected[client] = str(error)
    if rejected:
        logger.info("dropped replies: %s", "; ".join(f"client {client}: {why}" for client, why in sorted(rejected.items())))
    return [fitting[client] for client in sorted(fitting)]


def numbers(message: Message) -> dict[str, float]:
    """Return the single numbers a client reports."""
    found: dict[str, float] = {}
    for record in records_of(message, MetricRecord):
        for name, value in record.items():
            if isinstance(value, int | float):
                found[name] = float(value)
    return found


def finite_mean(values: Iterable[float]) -> float:
    """Return the plain mean of the finite values, NaN if there is none. Not weighted: counts are the clients' own claims."""
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else math.nan


def _extras(theta: Tensor, message: Message, expected: Collection[str]) -> dict[str, Tensor]:
    sent = extras_of(message)
    for name in expected:
        vector = sent.get(name)
        if vector is None or vector.shape != theta.shape or not torch.isfinite(vector).all():
            raise ValueError(f"it brings no finite vector {name!r} of {len(theta)} numbers beside its model")
    return {name: sent[name].to(theta) for name in expected}


def _label_counts(message: Message) -> list[float] | None:
    """Return how many examples of each class a client says it has, if it says so."""
    for record in records_of(message, MetricRecord):
        counts = record.get("label_counts")
        if isinstance(counts, list) and counts and all(math.isfinite(count) and count >= 0 for count in counts):
            return [float(count) for count in counts]
    return None
