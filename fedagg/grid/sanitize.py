"""For strategies that believe what they receive: a Grid around a Grid that lets only well-formed replies through."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import torch
from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid

from fedagg.clients.app import NOT_FINITE, arrays_of, ranked_sizes, rankings_of
from fedagg.grid.base import WorldGrid
from fedagg.params import Layout

logger = logging.getLogger(__name__)
Check = Callable[[ArrayRecord], object]


class Sanitize(WorldGrid):
    """Drop the training replies that a strategy of ours would reject, and repeated ones, before any other strategy sees them.

    One such reply ends the run of most Flower strategies, or turns their model into NaN. A reply passes if it has the arrays
    that were sent, by name and shape, if they hold numbers, if every float is finite and if its update has a finite squared
    norm; where rankings were sent, if each is a permutation. Error replies pass, since strategies count them; what a client
    claims in its metrics is not looked at.
    ``sanitized`` in the metrics counts what was dropped.

    Args:
        grid: the world whose replies are checked; the outermost one, next to the strategy.
    """

    def __init__(self, grid: Grid) -> None:
        super().__init__(grid)
        self._sent: dict[int, Check] = {}
        self._dropped = 0

    def begin_round(self, round: int) -> None:
        super().begin_round(round)
        self._sent, self._dropped = {}, 0

    def round_info(self) -> dict[str, float]:
        return {**super().round_info(), "sanitized": float(self._dropped)}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self.grid.push_messages(self._remember(messages))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._sound(self.grid.pull_messages(message_ids))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self._sound(self.grid.send_and_receive(self._remember(messages), timeout=timeout))

    def _remember(self, messages: Iterable[Message]) -> list[Message]:
        """Note which model each client is sent; strategies put one record into all messages, which is read once."""
        messages = self._enter_round(messages)
        read: dict[int, Check] = {}
        for message in messages:
            if message.metadata.message_type == "train":
                arrays = arrays_of(message)
                if id(arrays) not in read:
                    read[id(arrays)] = self._check(arrays)
                self._sent[message.metadata.dst_node_id] = read[id(arrays)]
        return messages

    def _sound(self, replies: Iterable[Message]) -> list[Message]:
        sound: list[Message] = []
        answered: set[str] = set()
        for reply in replies:
            if reply.metadata.message_type == "train" and reply.has_content():
                flaw = self._flaw(reply) or ("it came twice" if reply.metadata.reply_to_message_id in answered else None)
                if flaw:
                    self._dropped += 1
                    logger.info("round %d: dropped a reply of client %d: %s", self.round, reply.metadata.src_node_id, flaw)
                    continue
                answered.add(reply.metadata.reply_to_message_id)
            sound.append(reply)
        return sound

    def _check(self, sent: ArrayRecord) -> Check:
        """Return what raises ``ValueError`` saying what is wrong with the arrays of a reply to these."""
        if sizes := ranked_sizes(sent):
            return lambda arrays: rankings_of(arrays, sizes)
        layout = self.layout or Layout.of_arrays(sent)
        params = layout.read(sent).params

        def check(arrays: ArrayRecord) -> None:
            state = layout.read(arrays, params.device)
            if not (state.update_from(params).finite and torch.isfinite(state.float_buffers).all()):
                raise ValueError(NOT_FINITE)

        return check

    def _flaw(self, reply: Message) -> str | None:
        """Return what is wrong with a reply, None if nothing is."""
        if reply.metadata.src_node_id not in self._sent:
            return "nobody asked for it in this round"
        try:
            self._sent[reply.metadata.src_node_id](arrays_of(reply))
        except ValueError as error:
            return str(error)
        return None
