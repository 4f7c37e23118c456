"""Byzantine clients: a Grid around a Grid that replaces what some of the clients send."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, get_args

import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from fedagg import rng
from fedagg.clients.app import EXTRAS, arrays_of, ranked_sizes, rankings_of, rankings_record
from fedagg.contracts import Attack, Knowledge, cohort_size
from fedagg.errors import ConfigError
from fedagg.grid.base import WorldGrid
from fedagg.params import Layout, SentState, State, Update

logger = logging.getLogger(__name__)
KNOWLEDGE: tuple[Knowledge, ...] = get_args(Knowledge)  # from least to most


class Adversary(WorldGrid):
    """Replace the training replies of Byzantine clients by what an attack makes of them.

    The strategy behind it is not asked and not changed: it may be any Flower strategy. Byzantine clients train like everybody
    else (on poisoned data, where the attack is one on data); the attack then sees what its ``knowledge`` grants, no more, and
    decides what they send. All other records of their replies stay as they are. Where an attack is impossible in a round
    (ALIE in a cohort of attackers only, say) the clients send honest updates; ``attack_void`` in the metrics counts it.
    Where clients send rankings, an attack on these is called for each layer.

    Args:
        grid: where the clients run.
        attack: what Byzantine clients do.
        fraction: share of Byzantine clients, in [0, 1]; the number is rounded to the nearest integer.
        sampling: "population" corrupts this share of all clients for the whole run, so the number in a cohort varies;
            "cohort" corrupts this share of every cohort, drawn anew each round.
        num_examples: what Byzantine clients claim to have trained on; None leaves the true number.
        start: the first round of the attack, from 1. In rounds without attack Byzantine clients are honest.
        stop: its last round; None is the end of the run.
        every: attack in every so many of these rounds, the first of them included.
        knowledge: show the attack less than it could use; None shows it what its class declares.
        defence: the strategy that is attacked, ours or any of Flower's, for attacks that know it: they may ask what it would
            make of rows, and ask a copy. None leaves them with what they assume.
        seed: decides who is Byzantine, and the attack's own draws.
    """

    def __init__(
        self,
        grid: Grid,
        attack: Attack,
        fraction: float,
        *,
        sampling: Literal["population", "cohort"] = "population",
        num_examples: int | None = None,
        start: int = 1,
        stop: int | None = None,
        every: int = 1,
        knowledge: Knowledge | None = None,
        defence: Strategy | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(grid)
        if not 0 <= fraction <= 1:
            raise ConfigError(f"attack.fraction must lie in [0, 1]; got {fraction}")
        if sampling not in ("population", "cohort"):
            raise ConfigError(f"attack.sampling must be population or cohort; got {sampling}")
        if num_examples is not None and num_examples < 0:
            raise ConfigError(f"attack.num_examples must be >= 0, or null for the truth; got {num_examples}")
        if start < 1 or every < 1 or (stop is not None and stop < start):
            raise ConfigError(
                f"attack.start and attack.every must be >= 1, attack.stop null or >= start; got {start}, {every}, {stop}"
            )
        possible = [attack.knowledge] if attack.knowledge == "own" else KNOWLEDGE[1 : KNOWLEDGE.index(attack.knowledge) + 1]
        if knowledge is not None and knowledge not in possible:
            raise ConfigError(f"attack.knowledge must be null or {' or '.join(possible)} for {attack}; got {knowledge}")
        self.attack, self.fraction, self.sampling, self.seed = attack, fraction, sampling, seed
        self.num_examples, self.start, self.stop, self.every = num_examples, start, stop, every
        self.knowledge, self.defence = knowledge or attack.knowledge, defence
        self._byzantine = self._draw(self.client_ids) if sampling == "population" else frozenset[int]()
        self._present: frozenset[int] = frozenset()
        self._void = False
        self._layout: Layout | None = None
        self._sizes: dict[str, int] = {}  # of the layers, where rankings are sent
        self._recruits: frozenset[int] = frozenset()
        self._params: Tensor | None = None  # or rankings
        self._last_delta: Tensor | None = None

    @property
    def byzantine(self) -> frozenset[int]:
        """Ids of the Byzantine clients: of the population, or of the current cohort."""
        return self._byzantine

    def begin_round(self, round: int) -> None:
        super().begin_round(round)
        self._present, self._void = frozenset(), False

    def round_info(self) -> dict[str, float]:
        info = {"byzantine": float(len(self._present)), "attack_void": float(self._void)}
        scheduled = (self.start, self.stop, self.every) != (1, None, 1)
        return {**super().round_info(), **info, **({"attacking": float(self.attacking)} if scheduled else {})}

    @property
    def attacking(self) -> bool:
        """Whether the schedule lets Byzantine clients attack in the current round."""
        ended = self.stop is not None and self.round > self.stop
        return self.round >= self.start and not ended and (self.round - self.start) % self.every == 0

    def state_dict(self) -> dict[str, Any]:
        attack = self.attack.state_dict() if hasattr(self.attack, "state_dict") else None
        return {**super().state_dict(), "params": self._params, "attack": attack}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._params = state["params"]
        if hasattr(self.attack, "load_state_dict"):
            self.attack.load_state_dict(state["attack"])

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self.grid.push_messages(self._prepare(messages))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to these messages; Byzantine clients collude with those whose replies come with theirs."""
        return self._corrupt(list(self.grid.pull_messages(message_ids)))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self._corrupt(list(self.grid.send_and_receive(self._prepare(messages), timeout=timeout)))

    def _draw(self, ids: Sequence[int], *path: int) -> frozenset[int]:
        """Draw the Byzantine ones among these clients, ascending."""
        count = math.floor(self.fraction * len(ids) + 0.5)
        drawn = rng.numpy_generator(self.seed, "byzantine", *path).choice(len(ids), count, replace=False)
        return frozenset(ids[i] for i in drawn.tolist())

    def _prepare(self, messages: Iterable[Message]) -> list[Message]:
        """Before clients train: settle who is Byzantine, remember the model that is sent, poison data."""
        messages = self._enter_round(messages)
        asked = [message for message in messages if message.metadata.message_type == "train"]
        if not asked:
            return messages
        ids = {message.metadata.dst_node_id for message in asked}
        if self.sampling == "cohort":
            self._byzantine = self._draw(sorted(ids), self.round)
        self._present = self._byzantine & ids
        arrays = arrays_of(asked[0])
        self._layout, self._sizes = self.layout or Layout.of_arrays(arrays), ranked_sizes(arrays)
        if self._sizes:
            self._params = rankings_of(arrays, self._sizes)
        else:
            params = self._layout.read(arrays).params
            self._last_delta = None if self._params is None else params - self._params.to(params.device)
            self._params = params
        if getattr(self.attack, "poison", None) is not None:
            liars = sorted(self._byzantine) if self.attacking else []
            self.poison(
                {
                    client: _Poison(self.attack, self.seed, self.round, client, number)
                    for number, client in enumerate(liars)
                    if client in self._present
                }
            )
        return [*messages, *self._recruited(asked[0], ids)]

    def _recruited(self, asked: Message, ids: set[int]) -> list[Message]:
        """Return messages to Byzantine clients that were not asked, and are to help those that were."""
        wanted = self.attack.recruits - len(self._present) if self._present and self.attacking else 0
        helpers = [client for client in sorted(self._byzantine) if client not in ids][: max(0, wanted)]
        self._recruits = frozenset(helpers)
        return [Message(asked.content, dst_node_id=client, message_type="train") for client in helpers]

    def _corrupt(self, replies: list[Message]) -> list[Message]:
        """Return the replies, the Byzantine ones replaced; a reply that does not fit the model is nobody's to use."""
        layout, params = self._layout, self._params
        if layout is None or params is None:
            return replies
        if self._sizes:
            return self._corrupt_rankings(replies, params)
        states = {}
        for reply in replies:
            if reply.has_content() and reply.metadata.message_type == "train":
                with suppress(ValueError):
                    states[reply.metadata.src_node_id] = layout.read(arrays_of(reply), params.device)
        bad = [client for client in sorted(states) if client in self._byzantine]
        honest = [client for client in sorted(states) if client not in self._byzantine]
        if not bad or not self.attacking:
            return replies
        own = torch.stack([states[client].update_from(params).row for client in bad])
        if not honest or self.knowledge == "corrupted":
            known, seen = bad, own
        elif self.knowledge == "own":  # how many others there are, and nothing about them
            known, seen = [], own.new_full((1, 1), math.nan).expand(len(honest), len(params))
        else:
            known, seen = honest, torch.stack([states[client].update_from(params).row for client in honest])
        sent = {reply.metadata.src_node_id: reply for reply in replies if reply.has_content()}
        try:
            with self._lent([(sent[client], states[client]) for client in [*known, *bad]] if known else []):
                rows = self.attack(
                    seen,
                    len(bad),
                    own=own,
                    last_delta=self._last_delta if self.knowledge == "history" else None,
                    params=params,
                    round=self.round,
                    client_ids=known or None,
                    **cohort_size(self.attack, len(states)),
                )
        except ValueError as error:
            self._give_up(error)
            return replies
        forged = {client: layout.record(_lie(states[client], params, row)) for client, row in zip(bad, rows, strict=True)}
        return [self._forge(reply, forged.get(reply.metadata.src_node_id)) for reply in replies]

    def _corrupt_rankings(self, replies: list[Message], received: Tensor) -> list[Message]:
        """The same where replies are rankings and all were sent ``received`` [d]; helpers are heard, and not passed on."""
        sent, votes = list[Message](), dict[int, Tensor]()
        for reply in replies:
            client, trained = reply.metadata.src_node_id, reply.metadata.message_type == "train"
            if reply.has_content() and trained:
                with suppress(ValueError):
                    votes[client] = rankings_of(arrays_of(reply), self._sizes)
            if not (trained and client in self._recruits):
                sent.append(reply)
        liars = [client for client in sorted(votes) if client in self._byzantine]
        bad = [client for client in liars if client not in self._recruits]
        honest = [client for client in sorted(votes) if client not in self._byzantine]
        if not bad or not self.attacking:
            return sent
        known = honest if honest and self.knowledge not in ("own", "corrupted") else liars
        seen, own = (torch.stack([votes[client] for client in some]).long() for some in (known, bad))
        if self.knowledge == "own":
            seen = torch.full_like(seen[:1], -1).expand(max(1, len(honest)), -1)
        lies = torch.empty_like(own)
        try:
            with self._lent([]):
                for layer in _slices(self._sizes):
                    lies[:, layer] = self.attack(
                        seen[:, layer],
                        len(bad),
                        own=own[:, layer],
                        params=received[layer].long(),
                        round=self.round,
                        client_ids=None if self.knowledge == "own" else known,
                        **cohort_size(self.attack, len(honest) + len(bad)),
                    )
        except ValueError as error:
            self._give_up(error)
            return sent
        forged = {client: rankings_record(lie, self._sizes) for client, lie in zip(bad, lies, strict=True)}
        return [self._forge(reply, forged.get(reply.metadata.src_node_id)) for reply in sent]

    def _give_up(self, error: ValueError) -> None:
        """Note that a cohort of chance holds too many attackers, or too few honest clients, to attack."""
        logger.warning("round %d: no attack, the Byzantine clients send honest updates: %s", self.round, error)
        self._void = True

    @contextmanager
    def _lent(self, sent: Sequence[tuple[Message, State]]) -> Iterator[None]:
        """For one call: the attack draws from the seed tree and, if it knows the rule, may try other rows."""
        knows = KNOWLEDGE.index(self.knowledge) >= KNOWLEDGE.index("aggregator")
        lend = knows and self.defence is not None and getattr(self.attack, "aggregator", self) is None
        with rng.lend_generator(self.attack, rng.generator(self.seed, "attack", self.round)):
            if lend:
                object.__setattr__(self.attack, "aggregator", self._trial(self.defence, sent))
            try:
                yield
            finally:
                if lend:
                    object.__setattr__(self.attack, "aggregator", None)

    def _trial(self, defence: Any, sent: Sequence[tuple[Message, State]]) -> Callable[[Tensor], Tensor]:
        """Return what maps rows [n, d], in the order of these replies, to what the defence would make of them, [d]."""
        layout, params = self._layout, self._params
        assert layout is not None
        assert params is not None
        clients = {reply.metadata.src_node_id for reply, _ in sent}

        def tried(rows: Tensor) -> Tensor:
            if not len(rows) == len(sent) == len(clients):
                raise ValueError(f"a defence is tried on a row for each of the {len(clients)} clients; got {len(rows)} rows")
            replies = []
            for row, (reply, state) in zip(rows.to(params), sent, strict=True):
                lie = SentState(params, Update.checked(row), state.float_buffers, state.int_buffers)
                replies.append(self._forge(reply, layout.record(lie)))
            if hasattr(defence, "defend"):  # ours
                step: Tensor = defence.defend(replies)
                return step
            replies.sort(key=lambda reply: reply.metadata.src_node_id)
            try:
                with rng.seeded_globals(self.seed, "defence", self.round):
                    made, _ = copy.deepcopy(defence).aggregate_train(self.round, replies)
            except Exception as error:
                raise ValueError(f"{type(defence).__name__} fails on rows it is tried on: {error}") from error
            return torch.zeros_like(params) if made is None else layout.read(made, params.device).params - params

        return tried

    def _forge(self, reply: Message, arrays: ArrayRecord | None) -> Message:
        """Return a reply like ``reply`` with another model and, of a Byzantine client, the number of examples it claims.

        Where there is no other model it is ``reply`` itself.
        """
        if arrays is None:
            return reply
        content = RecordDict()
        claim = self.num_examples if reply.metadata.src_node_id in self._byzantine else None
        for name, record in reply.content.items():
            if isinstance(record, ArrayRecord) and name != EXTRAS:
                content[name] = arrays
            elif isinstance(record, MetricRecord) and claim is not None and "num-examples" in record:
                content[name] = MetricRecord({**record, "num-examples": claim})
            else:
                content[name] = record
        forged = copy.copy(reply)
        forged.content = content
        return forged


@dataclass(frozen=True)
class _Poison:
    """What the attack does to one client's data in one round. It can travel to where that client trains."""

    attack: Attack
    seed: int
    round: int
    client: int
    number: int  # among the Byzantine clients

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        share = {"attacker": self.number} if self.attack.distributed else {}
        with rng.lend_generator(self.attack, rng.generator(self.seed, "poison", self.round, self.client)):
            poisoned: tuple[Tensor, Tensor] = self.attack.poison(x, y, **share)  # type: ignore[attr-defined]
        return poisoned


def _slices(sizes: Mapping[str, int]) -> list[slice]:
    ends = list(accumulate(sizes.values()))
    return [slice(end - size, end) for end, size in zip(ends, sizes.values(), strict=True)]


def _lie(honest: State, params: Tensor, row: Tensor) -> State:
    """Return ``honest`` with another update [d]. A row of the round's matrix is written in place: nobody else has seen it."""
    if isinstance(honest, SentState) and honest.base is params:
        row = honest.update.row.copy_(row)
    return SentState(params, Update.checked(row), honest.float_buffers, honest.int_buffers)
