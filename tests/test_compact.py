"""Sequences over flat arrays behave as the lists they stand for."""

import re

import numpy as np
import pytest

from fedagg import compact
from fedagg.compact import CSR, Ids
from fedagg.errors import ConfigError

LISTS = [[7, 8], [], [9, 1, 4], [5], []]


@pytest.fixture
def csr() -> CSR:
    return CSR(np.array([7, 8, 9, 1, 4, 5]), np.array([0, 2, 2, 5, 6, 6]))


@pytest.mark.parametrize("place", [0, 2, 4, -1, -5, np.int64(3)])
def test_items_are_those_of_the_lists(csr: CSR, place: int) -> None:
    assert csr[place].tolist() == LISTS[place]
    assert Ids(np.array([2, 5, 9, 12, 40]))[place] == [2, 5, 9, 12, 40][place]


@pytest.mark.parametrize("places", [slice(None), slice(1, 4), slice(None, None, -2), slice(9, 10)])
def test_slices_are_lists_of_items(csr: CSR, places: slice) -> None:
    assert [item.tolist() for item in csr[places]] == LISTS[places]
    assert Ids(np.array([2, 5, 9, 12, 40]))[places] == [2, 5, 9, 12, 40][places]


def test_all_of_it(csr: CSR) -> None:
    assert [item.tolist() for item in csr] == LISTS
    assert len(csr) == 5
    assert csr.sizes.tolist() == [2, 0, 3, 1, 0]


@pytest.mark.parametrize("place", [5, -6])
def test_there_is_an_end(csr: CSR, place: int) -> None:
    for sequence in (csr, Ids(np.arange(5))):
        with pytest.raises(IndexError):
            sequence[place]


def test_lists_become_csr_and_csr_stays(csr: CSR) -> None:
    made = CSR.of([[7, 8], (), np.array([9, 1, 4], np.uint8), range(5, 6), np.empty((0, 3))])
    assert made.flat.tolist() == csr.flat.tolist()
    assert made.offsets.tolist() == csr.offsets.tolist()
    assert CSR.of(csr) is csr
    assert len(CSR.of([])) == 0


def test_nothing_is_copied_and_nothing_can_be_written() -> None:
    flat = np.array([3, 4, 5])
    csr = CSR(flat, np.array([0, 2, 3]))
    assert np.shares_memory(csr[0], flat)
    with pytest.raises(ValueError, match="read-only"):
        csr[0][0] = 1
    flat[0] = 9  # the caller's own array is not frozen
    assert csr[0].tolist() == [9, 4]


@pytest.mark.parametrize(
    ("flat", "offsets", "says"),
    [
        ([1, 2], [0, 1], "rise from 0 to 2, the length of flat; got 0 .. 1"),
        ([1, 2], [1, 2], "got 1 .. 2"),
        ([1, 2], [0, 3, 2], "got 0 .. 2, lowest step -1"),
        ([1, 2], np.array([0, 3, 2], np.uint64), "got 0 .. 2, lowest step -1"),
        ([1, 2], np.array([], int), "got none"),
        ([0.5], [0, 1], "integers in one dimension as flat; got float64 [1]"),
        ([1], [0.0, 1.0], "as offsets; got float64 [2]"),
        ([[1]], [0, 1], "as flat; got int64 [1, 1]"),
    ],
)
def test_arrays_that_are_no_csr(flat: list[int], offsets: list[int], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        CSR(np.asarray(flat), np.asarray(offsets))


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_blocks_cover_every_item_once(csr: CSR, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact, "BLOCK", size)
    items: list[list[int]] = [[] for _ in LISTS]
    ends = [0]
    for first, last in csr.blocks():
        assert first == ends[-1] < last
        ends.append(last)
        rows, owners = csr.block(first, last)
        assert len(rows) < size + 3  # a block is over when it is full; the longest item has 3
        for row, owner in zip(rows.tolist(), owners.tolist(), strict=True):
            items[first + owner].append(row)
    assert items == LISTS
    assert ends[-1] == 5
    assert len(ends) > 2 or size == 100


def test_ids() -> None:
    ids = Ids(np.array([2, 5, 9]))
    assert list(ids) == [2, 5, 9]
    assert all(type(client) is int for client in [*ids, ids[1]])
    assert [client in ids for client in (1, 2, 3, 5, 9, 10, -1, 2.5, "2", np.int32(9))] == [
        *(False, True, False, True, True, False, False, False, False, True)
    ]
    assert list(ids.where(np.array([0, 0, 1, 0, 0, 1, 0, 0, 1, 0], dtype=bool))) == [2, 5]
    assert Ids.of(ids) is ids
    assert list(Ids.of(range(3, 9, 2))) == [3, 5, 7]
    assert list(Ids.of(iter([4, 8]))) == [4, 8]
    assert list(Ids.of([])) == []
    assert 0 not in Ids.of([])
