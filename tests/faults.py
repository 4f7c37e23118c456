"""What tests of faults share: replies that cost nothing, a look at what arrives, and the draws made anew."""

import hashlib
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from flwr.app import Message

from fedagg import Faults, LocalGrid
from fedagg.grid import WorldGrid

Ask = Callable[..., list[Message]]
EVERYBODY = [0, 1, 2, 3, 4, 5]
EVENTS = ("dropped", "late", "corrupted", "made_nan", "wrong_shape", "wrong_keys", "duplicated")
DAMAGE = {"corrupt": "corrupted", "nan": "made_nan", "wrong_shape": "wrong_shape", "wrong_keys": "wrong_keys"}


class Canned(WorldGrid):
    """Trains once and then sends the same replies every round, whatever it is asked."""

    def __init__(self, grid: LocalGrid, asked: list[Message]) -> None:
        super().__init__(grid)
        self.replies = list(grid.send_and_receive(asked))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return list(self.replies)


class Watched(WorldGrid):
    """Keeps what passes: the arrays that were sent, and per round which arrays came from whom."""

    def __init__(self, grid: WorldGrid) -> None:
        super().__init__(grid)
        self.sent: dict[int, dict[str, np.ndarray]] = {}
        self.arrived: dict[int, list[tuple[int, dict[str, np.ndarray]]]] = {}

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        messages = list(messages)
        self.sent[self.round] = values(messages[0])
        replies = list(super().send_and_receive(messages, timeout=timeout))
        self.arrived[self.round] = [(reply.metadata.src_node_id, values(reply)) for reply in replies]
        return replies


def values(message: Message) -> dict[str, np.ndarray]:
    return {name: array.numpy() for name, array in message.content["arrays"].items()}


def sources(replies: Iterable[Message]) -> list[int]:
    return [reply.metadata.src_node_id for reply in replies]


def data(replies: Iterable[Message]) -> list[tuple[int, dict[str, bytes]]]:
    """Which bytes came from whom, in the order in which they came."""
    return [(r.metadata.src_node_id, {name: array.data for name, array in r.content["arrays"].items()}) for r in replies]


def replay(seed: int, round: int, client: int) -> tuple[float, float, float, float]:
    """The draws for one reply, from the published address and order: three uniform numbers and a normal one."""
    address = hashlib.blake2b(f"{seed}/faults/{round}/{client}".encode(), digest_size=8).digest()
    draw = np.random.default_rng(int.from_bytes(address, "little") >> 1)
    lost, broken, repeated = (draw.random() for _ in range(3))
    return lost, broken, repeated, draw.standard_normal()


def expected_events(round: int, examples: list[int], seed: int = 0, **rates: Any) -> tuple[dict[str, float], list[int]]:
    """Count the events of one round over these clients, and list whose replies arrive, straight from the description."""
    counts, arrived = dict.fromkeys(EVENTS, 0.0), []
    for client, m in enumerate(examples):
        lost, broken, repeated, normal = replay(seed, round, client)
        if lost < rates.get("drop", 0):
            counts["dropped"] += 1
        elif rates.get("deadline") and 0.01 * m * math.exp(0.5 * normal) > rates["deadline"]:
            counts["late"] += 1
        else:
            edge = 0.0
            for name, event in DAMAGE.items():
                if edge <= broken < edge + rates.get(name, 0):
                    counts[event] += 1
                edge += rates.get(name, 0)
            again = repeated < rates.get("duplicate", 0)
            counts["duplicated"] += again
            arrived += [client] * (1 + again)
    return counts, arrived


ALL = {
    "drop": 0.2,
    "deadline": 3.5,
    "corrupt": 0.15,
    "nan": 0.1,
    "wrong_shape": 0.12,
    "wrong_keys": 0.08,
    "duplicate": 0.25,
}


def strike(grid: LocalGrid | Canned, ask: Ask, round: int = 1, **rates: Any) -> tuple[list[Message], dict[str, float]]:
    faults = Faults(grid, **rates)
    faults.begin_round(round)
    replies = list(faults.send_and_receive(ask(EVERYBODY, round=round)))
    return replies, faults.round_info()
