"""Faults: what damaged and repeated replies look like, and that damage is done to copies."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, Error, Message

from fedagg import LocalGrid
from tests.faults import DAMAGE, EVERYBODY, Ask, Canned, data, sources, strike, values


def bits_of(value: np.ndarray) -> np.ndarray:
    return np.unpackbits(np.frombuffer(value.tobytes(), dtype=np.uint8))


def damaged(canned: Canned, ask: Ask, **rates: Any) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Pairs of what a client sent and what arrives, over ten rounds in which every reply is damaged."""
    sent, before = [values(reply) for reply in canned.replies], data(canned.replies)
    for round in range(1, 11):
        replies, info = strike(canned, ask, round, **rates)
        assert [info[event] for event in DAMAGE.values()].count(6) == 1
        assert [dict(r.content["metrics"]) for r in replies] == [dict(r.content["metrics"]) for r in canned.replies]
        yield from zip(sent, map(values, replies), strict=True)
    assert data(canned.replies) == before  # damage is done to copies


@pytest.mark.parametrize("bits", [1, 10, 300])
def test_corruption_flips_bits(canned: Canned, ask: Ask, bits: int) -> None:
    places = np.zeros(32)
    for honest, broken in damaged(canned, ask, corrupt=1.0, bits=bits):
        flipped = np.concatenate([bits_of(broken[name]) ^ bits_of(honest[name]) for name in honest])
        assert broken.keys() == honest.keys()
        assert flipped.sum() == bits
        places += flipped.reshape(-1, 32).sum(axis=0)
    if bits == 300:  # every bit of a float alike: 60 x 300 flips over 32 places, chi-squared with 31 degrees, 0.9999 at 69.5
        assert ((places - places.mean()) ** 2 / places.mean()).sum() < 69.5


def test_a_corruption_cannot_flip_more_bits_than_there_are(canned: Canned, ask: Ask) -> None:
    honest, broken = next(damaged(canned, ask, corrupt=1.0, bits=10**6))
    for name in honest:
        assert (bits_of(broken[name]) != bits_of(honest[name])).all()


def test_one_number_is_nan(canned: Canned, ask: Ask) -> None:
    for honest, broken in damaged(canned, ask, nan=1.0):
        changed = {name: broken[name] != honest[name] for name in honest}
        assert sum(int(where.sum()) for where in changed.values()) == 1
        assert sum(int(np.isnan(value).sum()) for value in broken.values()) == 1


def test_one_array_has_another_shape(canned: Canned, ask: Ask) -> None:
    shapes = set()
    for honest, broken in damaged(canned, ask, wrong_shape=1.0):
        (changed,) = [name for name in honest if broken[name].shape != honest[name].shape]
        assert broken[changed].shape in ((1,), (honest[changed].size + 1,))
        assert broken[changed].dtype == honest[changed].dtype
        assert all(np.array_equal(broken[name], honest[name]) for name in honest if name != changed)
        shapes.add((changed, broken[changed].shape == (1,)))
    assert len(shapes) == 4  # either array, and both a shape that broadcasts and one that does not


def test_an_array_is_missing_or_renamed_or_too_many(canned: Canned, ask: Ask) -> None:
    seen = set()
    for honest, broken in damaged(canned, ask, wrong_keys=1.0):
        missing, unknown = honest.keys() - broken.keys(), broken.keys() - honest.keys()
        assert missing or unknown
        seen.add((len(missing), len(unknown)))
    assert seen == {(1, 0), (1, 1), (0, 1)}


def test_arrays_of_any_shape_and_dtype_can_be_damaged(canned: Canned, ask: Ask) -> None:
    """A scalar, a column-major matrix, half and double precision; integers and empty arrays stay as they are."""
    shapes: dict[str, np.ndarray] = {
        "scalar": np.array(0.5, dtype=np.float64),
        "one": np.array([0.5], dtype=np.float32),
        "columns": np.asfortranarray(np.arange(6, dtype=np.float16).reshape(2, 3)),
        "count": np.array([7]),
        "empty": np.zeros((0, 3), dtype=np.float32),
    }
    for reply in canned.replies:
        arrays = reply.content["arrays"]
        for name in list(arrays):
            del arrays[name]
        for name, value in shapes.items():
            arrays[name] = Array(value)
    for kind in DAMAGE:
        for honest, broken in damaged(canned, ask, **{kind: 1.0}):
            assert any(
                name not in broken or broken[name].shape != value.shape or broken[name].tobytes() != value.tobytes()
                for name, value in honest.items()
            ) or set(broken) != set(honest)
            for name in ("count", "empty"):
                assert np.array_equal(broken[name], shapes[name])


def test_errors_can_be_lost_and_repeated_but_not_damaged(canned: Canned, ask: Ask) -> None:
    asked = ask(EVERYBODY)
    for message in asked:  # nobody can reply to a message without an id
        message.metadata.__dict__["_message_id"] = str(message.metadata.dst_node_id)
    canned.replies = [Message(Error(0, "no power"), reply_to=message) for message in asked]
    replies, info = strike(canned, ask, corrupt=1.0, duplicate=1.0)
    assert [reply.error.reason for reply in replies] == ["no power"] * 12
    assert (info["corrupted"], info["duplicated"]) == (0, 6)
    assert strike(canned, ask, drop=1.0)[0] == []


def test_a_second_copy_has_records_of_its_own(grid: LocalGrid, ask: Ask) -> None:
    """Flower's FedMedian empties the replies it is given: it must not find the twin empty."""
    replies, info = strike(grid, ask, duplicate=1.0)
    assert info["duplicated"] == 6
    assert sources(replies) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    once, twice = data(replies)[::2], data(replies)[1::2]
    assert once == twice
    for reply in replies[::2]:
        for name in list(reply.content["arrays"]):
            del reply.content["arrays"][name]
    assert data(replies[1::2]) == twice
