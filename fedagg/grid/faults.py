"""A network that fails: a Grid around a Grid that loses, delays, damages and repeats the replies of clients."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from itertools import accumulate

import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedagg import rng
from fedagg.clients import Clients
from fedagg.clients.app import records_of
from fedagg.errors import ConfigError
from fedagg.grid.base import WorldGrid, layers

Places = list[tuple[ArrayRecord, str]]  # the arrays of a reply that may be damaged: which record, under which name


class Faults(WorldGrid):
    """Lose, delay, damage and repeat training replies, honest and Byzantine ones alike.

    What happens to a reply is drawn at the address (seed, "faults", round, client), so it depends neither on the other clients
    nor on where and in which order they ran, and a resumed run meets the same faults. A reply is dropped; or else too late; or
    else damaged in at most one way; and whatever arrives may arrive twice. The coins are tossed in that order whatever the
    rates: a higher ``drop`` adds drops and moves no other event. Damage hits float arrays, or the rankings of a reply without
    any, and makes new ones, never touching what the inner Grid returned. Replies to other messages pass: evaluation is how a
    run is measured.

    Time is virtual, nothing waits: a client takes ``seconds_per_example * m * exp(spread * z)`` seconds, with z standard
    normal and drawn anew each round, and m the examples it trains on (1 where the clients are not ours, so not known).

    Every event is counted in the metrics: ``dropped``, ``late``, ``corrupted``, ``made_nan``, ``wrong_shape``, ``wrong_keys``,
    ``duplicated``.

    Args:
        grid: where the clients run.
        drop: share of replies that never come, in [0, 1] like all rates.
        deadline: seconds after which a reply is too late; None waits for everybody.
        corrupt: share of replies with ``bits`` random bits of random floats flipped.
        nan: share of replies with one number replaced by NaN, or -1 in a ranking.
        wrong_shape: share of replies with one array of another shape, half of them of one that broadcasts.
        wrong_keys: share of replies with an array missing, renamed or too many.
        duplicate: share of replies that come twice.
        bits: how many bits a corruption flips.
        seconds_per_example: median of the time per example.
        spread: standard deviation of the logarithm of the time; 0 makes all clients equally fast.
        seed: the run's seed.

    Raises:
        ConfigError: naming the setting and its range.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        drop: float = 0.0,
        deadline: float | None = None,
        corrupt: float = 0.0,
        nan: float = 0.0,
        wrong_shape: float = 0.0,
        wrong_keys: float = 0.0,
        duplicate: float = 0.0,
        bits: int = 10,
        seconds_per_example: float = 0.01,
        spread: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__(grid)
        self.rates = {
            "drop": drop,
            "corrupt": corrupt,
            "nan": nan,
            "wrong_shape": wrong_shape,
            "wrong_keys": wrong_keys,
            "duplicate": duplicate,
        }
        for name, rate in self.rates.items():
            _require(name, rate, _is_number(rate) and 0 <= rate <= 1, "in [0, 1]")
        _require("deadline", deadline, deadline is None or (_is_number(deadline) and deadline > 0), "> 0 seconds, or null")
        _require("bits", bits, isinstance(bits, int) and not isinstance(bits, bool) and bits >= 1, "an integer >= 1")
        _require(
            "seconds_per_example", seconds_per_example, _is_number(seconds_per_example) and seconds_per_example > 0, "> 0"
        )
        _require("spread", spread, _is_number(spread) and spread >= 0, ">= 0")
        damaged = sum(self.rates[name] for name in _DAMAGE)
        if damaged > 1 + 1e-9:
            raise ConfigError(
                f"faults: a reply is damaged in one way at most, so {' + '.join(_DAMAGE)} must be at most 1; got {damaged:g}"
            )
        self.deadline, self.bits, self.seconds_per_example, self.spread = deadline, bits, seconds_per_example, spread
        self.seed = seed
        clients = getattr(list(layers(self.grid))[-1], "clients", None)
        self._population = clients.population if isinstance(clients, Clients) else None
        self._events = dict.fromkeys(_EVENTS, 0)

    def __str__(self) -> str:
        rates = [f"{name} {rate:.4g}" for name, rate in self.rates.items() if rate]
        return ", ".join(rates + ([] if self.deadline is None else [f"deadline {self.deadline:g} s"])) or "none"

    def begin_round(self, round: int) -> None:
        super().begin_round(round)
        self._events = dict.fromkeys(_EVENTS, 0)

    def round_info(self) -> dict[str, float]:
        return {**super().round_info(), **{name: float(count) for name, count in self._events.items()}}

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._strike(self.grid.pull_messages(message_ids))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self._strike(self.grid.send_and_receive(self._enter_round(messages), timeout=timeout))

    def _strike(self, replies: Iterable[Message]) -> list[Message]:
        """Return what arrives of these replies."""
        arrived = []
        for reply in replies:
            if reply.metadata.message_type != "train":
                arrived.append(reply)
                continue
            client = reply.metadata.src_node_id
            draw = rng.numpy_generator(self.seed, "faults", self.round, client)
            lost, broken, repeated = draw.random(3).tolist()
            normal = draw.standard_normal()
            if lost < self.rates["drop"]:
                self._events["dropped"] += 1
                continue
            if self.deadline is not None and self._seconds(client, normal) > self.deadline:
                self._events["late"] += 1
                continue
            arrived.append(self._damaged(reply, broken, draw))
            if repeated < self.rates["duplicate"]:
                self._events["duplicated"] += 1
                arrived.append(_copy_of(arrived[-1]))
        return arrived

    def _seconds(self, client: int, normal: float) -> float:
        """Return the virtual time a client takes, by the examples it really has: what it claims may be a lie."""
        examples = 1 if self._population is None else len(self._population.rows(client))
        return examples * self.seconds_per_example * math.exp(self.spread * normal)

    def _damaged(self, reply: Message, coin: float, draw: np.random.Generator) -> Message:
        """Return the reply, or a damaged copy where the coin falls into one of the rates, which stand side by side."""
        edges = accumulate(self.rates[name] for name in _DAMAGE)
        hit = next((name for name, edge in zip(_DAMAGE, edges, strict=True) if coin < edge), None)
        if hit is None or not reply.has_content():
            return reply
        copied = _copy_of(reply)
        places = _numbers_of(copied)
        if not places:
            return reply
        event, damage = _DAMAGE[hit]
        damage(places, self.bits, draw)
        self._events[event] += 1
        return copied


def _flip_bits(places: Places, bits: int, draw: np.random.Generator) -> None:
    """Flip ``bits`` different bits anywhere in the floats of a reply."""
    sizes = [8 * np.dtype(record[name].dtype).itemsize * math.prod(record[name].shape) for record, name in places]
    ends = np.cumsum(sizes)
    chosen = draw.choice(ends[-1], min(bits, ends[-1]), replace=False)
    for place, (record, name) in enumerate(places):
        mine = chosen[np.searchsorted(ends, chosen, side="right") == place] - (ends[place] - sizes[place])
        if len(mine):
            value = _values(record[name])
            np.bitwise_xor.at(value.reshape(-1).view(np.uint8), mine // 8, np.left_shift(1, mine % 8).astype(np.uint8))
            record[name] = Array(value)


def _put_nan(places: Places, bits: int, draw: np.random.Generator) -> None:
    record, name = places[draw.integers(len(places))]
    value = _values(record[name])
    value.reshape(-1)[draw.integers(value.size)] = math.nan if np.issubdtype(value.dtype, np.floating) else -1
    record[name] = Array(value)


def _change_shape(places: Places, bits: int, draw: np.random.Generator) -> None:
    """One entry too many, in one row; or a single entry, which NumPy would broadcast without a word."""
    record, name = places[draw.integers(len(places))]
    value = _values(record[name])
    alone = bool(draw.integers(2)) and value.shape != (1,)
    record[name] = Array(value.reshape(-1)[:1] if alone else np.append(value, 0).astype(value.dtype))


def _change_keys(places: Places, bits: int, draw: np.random.Generator) -> None:
    """An array goes missing, or comes under another name, or comes under both."""
    record, name = places[draw.integers(len(places))]
    how = draw.choice(["missing", "renamed", "extra"])
    if how != "missing":
        record[f"{name}~"] = record[name]
    if how != "extra":
        del record[name]


_DAMAGE: dict[str, tuple[str, Callable[[Places, int, np.random.Generator], None]]] = {
    "corrupt": ("corrupted", _flip_bits),
    "nan": ("made_nan", _put_nan),
    "wrong_shape": ("wrong_shape", _change_shape),
    "wrong_keys": ("wrong_keys", _change_keys),
}
_EVENTS = ("dropped", "late", *(event for event, _ in _DAMAGE.values()), "duplicated")


def _copy_of(reply: Message) -> Message:
    """Return an equal reply with records of its own, since strategies may empty the one and not the other."""
    copied = copy.copy(reply)
    if reply.has_content():
        content = RecordDict()
        for name, record in reply.content.items():
            content[name] = ArrayRecord(dict(record)) if isinstance(record, ArrayRecord) else record.copy()
        copied.content = content
    return copied


def _numbers_of(reply: Message) -> Places:
    """Return the float arrays of a reply, or all of one that holds none, such as rankings."""
    places = [
        (record, name) for record in records_of(reply, ArrayRecord) for name, array in record.items() if 0 not in array.shape
    ]
    return [(record, name) for record, name in places if record[name].dtype.startswith("float")] or places


def _values(array: Array) -> np.ndarray:
    """Return a contiguous copy."""
    return np.array(array.numpy(), order="C")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _require(name: str, value: object, possible: bool, what: str) -> None:
    if not possible:
        raise ConfigError(f"faults.{name} must be {what}; got {value}")
