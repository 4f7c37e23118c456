"""The file: written whole or not at all, refused when anything about it is wrong, and read without running anybody's code."""

import hashlib
import io
import logging
import math
import pickle
import re
import struct
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedagg import Checkpoints, ConfigError, FedaggError
from fedagg.checkpoint import Checkpoint
from fedagg.saving import Unsavable, decode, encode


def made(round: int, **changes: Any) -> Checkpoint:
    arrays = ArrayRecord({"w": Array(np.full(3, round, np.float32))})
    plain: dict[str, Any] = {"about": "a test", "rows": [], "strategy": {}, "grid": {}, "callbacks": []}
    return Checkpoint(**{**plain, "round": round, "arrays": arrays, **changes})


def write(folder: Path, *rounds: int, keep: int = 2) -> Checkpoints:
    checkpoints = Checkpoints(folder, keep=keep)
    for round in rounds:
        checkpoints.write(made(round))
    return checkpoints


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def newest(folder: Path) -> Path:
    return folder / names(folder)[-1]


# When, and how many


@pytest.mark.parametrize(("every", "rounds"), [(1, [1, 2, 3, 4, 5, 6]), (2, [2, 4, 6]), (4, [4]), (7, [])])
def test_every_so_many_rounds(tmp_path: Path, every: int, rounds: list[int]) -> None:
    checkpoints = Checkpoints(tmp_path, every=every, seconds=0)
    assert [round for round in range(1, 7) if checkpoints.due(round)] == rounds


def test_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 101.0, 109.9, 110.0, 110.0, 119.0, 120.5, 120.5])  # also read when one is written
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    checkpoints = Checkpoints(tmp_path, seconds=10)
    due: list[bool] = []
    for _ in range(5):
        due.append(checkpoints.due(len(due) + 1))
        if due[-1]:
            checkpoints.write(made(len(due)))
    assert due == [False, False, True, False, True]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_stay(tmp_path: Path, keep: int) -> None:
    checkpoints = write(tmp_path / "new" / "folder", 9, 10, 11, 100, keep=keep)
    kept = [f"round-{round:08d}.ckpt" for round in (9, 10, 11, 100)[-keep:]]
    assert names(checkpoints.folder) == kept
    found = checkpoints.latest()
    assert found is not None
    assert found.round == 100


def test_clearing_takes_what_is_ours_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    checkpoints = write(folder, 1, 2)
    checkpoints.refuse("it is secret")
    (folder / ".round-00000003.ckpt.4711").write_bytes(b"half of one, by a process that was killed")
    (folder / "notes.txt").write_text("mine")
    checkpoints.clear()
    assert names(folder) == ["notes.txt"]
    (folder / "notes.txt").unlink()
    checkpoints.clear()
    assert not folder.exists()
    checkpoints.clear()


def test_what_a_killed_process_left_goes_with_the_next_one(tmp_path: Path) -> None:
    write(tmp_path, 1)
    (tmp_path / ".round-00000002.ckpt.4711").write_bytes(b"half")
    write(tmp_path, 2)
    assert names(tmp_path) == ["round-00000001.ckpt", "round-00000002.ckpt"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every": 0}, "checkpoint.every must be an integer >= 1, or null; got 0"),
        ({"every": True}, "checkpoint.every must be"),
        ({"every": 2.0}, "checkpoint.every must be"),
        ({"keep": 0}, "checkpoint.keep must be an integer >= 1; got 0"),
        ({"seconds": -1}, "checkpoint.seconds must be a number >= 0; got -1"),
        ({"seconds": math.nan}, "checkpoint.seconds must be"),
        ({"seconds": "soon"}, "checkpoint.seconds must be"),
    ],
)
def test_impossible_settings(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Checkpoints(tmp_path, **settings)
    assert message in str(error.value)


# What is in it


def test_the_header_is_a_line_of_text(tmp_path: Path) -> None:
    write(tmp_path, 5)
    header, _, body = newest(tmp_path).read_bytes().partition(b"\n")
    assert header.decode() == f"fedagg-checkpoint 1 {hashlib.sha256(body).hexdigest()} {len(body)}"


def test_everything_comes_back(tmp_path: Path) -> None:
    rows = [
        (0, "test", None, "accuracy", 0.1 + 0.2),
        (1, "client", 0, "loss", math.nan),
        (1, "client", 2**64 - 1, "loss", -0.0),
        (1, "client", 5, "test", math.inf),
    ]
    strategy = {"rule": {"memory": torch.tensor([1.5, -0.0])}, "times": {3: 4}}
    Checkpoints(tmp_path).write(made(7, rows=rows, strategy=strategy, grid={"grid": {}}, callbacks=[{"n": 1}]))
    found = Checkpoints(tmp_path).latest()
    assert found is not None
    assert (found.about, found.round, found.grid, found.callbacks) == ("a test", 7, {"grid": {}}, [{"n": 1}])
    assert [row[:4] for row in found.rows] == [row[:4] for row in rows]
    assert [struct.pack("d", row[4]) for row in found.rows] == [struct.pack("d", row[4]) for row in rows]
    assert found.strategy["times"] == {3: 4}
    assert found.strategy["rule"]["memory"].numpy().tobytes() == np.array([1.5, -0.0], np.float32).tobytes()
    assert found.arrays["w"].numpy().tolist() == [7.0, 7.0, 7.0]


VALUES: list[Any] = [
    None,
    True,
    2**80,
    -1.5,
    "text",
    b"bytes",
    [1, (2, [None]), {}],
    {"a": {1: [2]}, (3, "b"): None, 2: "2", "fedagg kind": "dict", "value": 1},
    OrderedDict(a=1),
]


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_plain_values(value: Any) -> None:
    assert through_a_file(value) == value


@pytest.mark.parametrize(
    "dtype",
    ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"],
)
def test_arrays_and_their_scalars(dtype: str) -> None:
    array = np.array([[0, 1, 3], [100, 5, 6]]).astype(dtype)
    for value in (array, array.T, array[:, 1], array[::-1], array[0, 0], np.array(array[1, 0]), array[:0]):
        back = through_a_file(value)
        assert type(back) is type(value)
        assert (back.dtype, back.shape, back.tolist()) == (value.dtype, value.shape, value.tolist())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.bool])
def test_tensors(dtype: torch.dtype) -> None:
    value = torch.tensor([[0.0, 1.0], [3.0, -2.0]]).to(dtype)
    back = through_a_file(value)
    assert back.dtype == dtype
    assert torch.equal(back, value)


def test_a_view_does_not_bring_the_memory_behind_it(tmp_path: Path) -> None:
    Checkpoints(tmp_path).write(made(1, strategy=torch.zeros(1000, 1000)[0]))
    assert newest(tmp_path).stat().st_size < 20_000


def test_flower_records() -> None:
    record = RecordDict(
        {
            "a": ArrayRecord({"x": Array(np.arange(3, dtype=np.int16)), "empty": Array(np.zeros((0, 2)))}),
            "c": ConfigRecord({"s": "text", "b": b"bytes", "l": [1.5, 2.5], "t": True}),
            "m": MetricRecord({"n": 3, "l": [1, 2], "f": 0.1}),
        }
    )
    back = through_a_file({"records": [record]})["records"][0]
    assert [type(back[name]) for name in record] == [ArrayRecord, ConfigRecord, MetricRecord]
    assert {name: dict(back[name]) for name in "cm"} == {name: dict(record[name]) for name in "cm"}
    for name, array in record["a"].items():
        assert (back["a"][name].dtype, back["a"][name].shape, back["a"][name].data) == (array.dtype, array.shape, array.data)


def through_a_file(value: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(encode(value, "it"), buffer)
    return decode(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))


@pytest.mark.parametrize(
    "value",
    [{1, 2}, defaultdict(list), object(), np.array(["a"]), np.array([1], ">f4"), 1j, Path("x"), np.longdouble(1)],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_come_back_as_it_was_is_refused(value: Any) -> None:
    with pytest.raises(Unsavable, match=rf"^it\['a'\]\[1\] is a .*{type(value).__name__}, which cannot be saved$"):
        encode({"a": [0, value]}, "it")


def test_no_code_is_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return (Path.touch, (tmp_path / "evil",))

    (tmp_path / "folder").mkdir()
    body = pickle.dumps(Evil())
    header = f"fedagg-checkpoint 1 {hashlib.sha256(body).hexdigest()} {len(body)}\n".encode()
    (tmp_path / "folder" / "round-00000001.ckpt").write_bytes(header + body)
    with pytest.raises(FedaggError, match="does not hold the state of a run"):
        Checkpoints(tmp_path / "folder").latest()
    assert not (tmp_path / "evil").exists()


# What is refused


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    place = len(data) * 2 // 3
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


def from_the_future(data: bytes) -> bytes:
    return data.replace(b"fedagg-checkpoint 1 ", b"fedagg-checkpoint 2 ", 1)


def of_something_else(data: bytes) -> bytes:
    body = pickle.dumps([1, 2, 3])
    return f"fedagg-checkpoint 1 {hashlib.sha256(body).hexdigest()} {len(body)}\n".encode() + body


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (cut, r"has \d+ bytes of contents instead of \d+"),
    "longer": (lambda data: data + b"x", r"has \d+ bytes of contents instead of \d+"),
    "bit flipped": (flip, "is damaged: its contents do not match their SHA-256"),
    "future": (from_the_future, "has format 2; this version reads format 1"),
    "foreign": (lambda data: b"PK\x03\x04" + data, "is not a checkpoint of fedagg"),
    "binary": (lambda data: b"\xff\xfe" * 500, "is not a checkpoint of fedagg"),
    "empty": (lambda data: b"", "is not a checkpoint of fedagg"),
    "something else": (of_something_else, "does not hold the state of a run"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_one_is_named_and_the_one_before_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    checkpoints = write(tmp_path, 4, 6)
    change, message = DAMAGE[damage]
    file = newest(tmp_path)
    file.write_bytes(change(file.read_bytes()))
    with caplog.at_level(logging.WARNING):
        found = checkpoints.latest()
    assert found is not None
    assert found.round == 4
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert re.fullmatch(rf"{file} {message}.*; going on from round-00000004\.ckpt", record.getMessage())


@pytest.mark.parametrize("damage", DAMAGE)
def test_none_that_can_be_used(tmp_path: Path, damage: str) -> None:
    checkpoints = write(tmp_path, 4, 6)
    change, message = DAMAGE[damage]
    for file in tmp_path.iterdir():
        file.write_bytes(change(file.read_bytes()))
    with pytest.raises(FedaggError, match=message) as error:
        checkpoints.latest()
    assert "no checkpoint can be used" in str(error.value)
    assert str(error.value).endswith("Start over in a new directory")
    for file in tmp_path.iterdir():
        assert str(file) in str(error.value)


def test_every_single_bit_counts(tmp_path: Path) -> None:
    """One bit flipped anywhere, header or contents, and the file is refused."""
    checkpoints = write(tmp_path, 1)
    whole = newest(tmp_path).read_bytes()
    places = [*range(100), *range(100, len(whole), 37)]
    for place in places:
        newest(tmp_path).write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        with pytest.raises(FedaggError):
            checkpoints.latest()
    newest(tmp_path).write_bytes(whole)
    assert checkpoints.latest() is not None


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "nowhere").latest() is None


def test_a_crash_while_it_is_written_leaves_the_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = write(tmp_path, 1, 2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(f"os.{step}", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with pytest.raises(FedaggError, match=r"round-00000003\.ckpt cannot be written: No space left on device"):
                checkpoints.write(made(3))
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
