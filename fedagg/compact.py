"""Sequences over flat arrays: what a million clients cost a few bytes each, where lists of objects would cost a hundred."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, SupportsIndex, TypeVar, overload

import numpy as np
import numpy.typing as npt

from fedagg.errors import ConfigError

T = TypeVar("T", covariant=True)
Integers = npt.NDArray[np.integer[Any]]

BLOCK = 1 << 20  # rows that are looked at together: enough to be fast, a few tens of megabytes of temporaries


class _Compact(Sequence[T]):
    """A sequence whose items are made when they are asked for."""

    @abstractmethod
    def _item(self, place: int) -> T: ...

    @overload
    def __getitem__(self, place: SupportsIndex) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> list[T]: ...
    def __getitem__(self, place: SupportsIndex | slice) -> T | list[T]:
        places = range(len(self))
        return [self._item(i) for i in places[place]] if isinstance(place, slice) else self._item(places[place])

    def __iter__(self) -> Iterator[T]:
        return map(self._item, range(len(self)))


class Ids(_Compact[int]):
    """Ascending client ids [n] in one array; membership takes O(log n).

    Example:
        >>> ids = Ids(np.array([2, 5, 9]))
        >>> ids[1], list(ids), 5 in ids, 6 in ids
        (5, [2, 5, 9], True, False)
    """

    def __init__(self, array: Integers) -> None:
        self.array = array

    @classmethod
    def of(cls, ids: Iterable[int]) -> Ids:
        """Return ascending ids, a range for one, in this form; itself where it has it already."""
        if isinstance(ids, Ids):
            return ids
        return cls(np.arange(ids.start, ids.stop, ids.step) if isinstance(ids, range) else np.array(list(ids), np.int64))

    def where(self, mask: npt.NDArray[np.bool_]) -> Ids:
        """Return those ids whose entry in ``mask`` [N], indexed by client id, is true."""
        return Ids(self.array[mask[self.array]])

    def __len__(self) -> int:
        return len(self.array)

    def __contains__(self, client: object) -> bool:
        if not isinstance(client, int | np.integer):
            return False
        place = int(np.searchsorted(self.array, client))
        return place < len(self.array) and bool(self.array[place] == client)

    def __repr__(self) -> str:
        return f"<{len(self)} ids>"

    def _item(self, place: int) -> int:
        return int(self.array[place])


class CSR(_Compact[Integers]):
    """N arrays of row numbers in two, as a sparse matrix keeps its columns: item i is ``flat[offsets[i] : offsets[i + 1]]``.

    The arrays are kept, not copied, and are read-only from here on; so are the items, which are views.

    Args:
        flat: [S] integers, all items one after another.
        offsets: [N + 1] integers from 0 to S that never fall; equal neighbours are an empty item.

    Raises:
        ConfigError: arrays of another type or shape, or offsets that do not divide ``flat``.

    Example:
        >>> rows = CSR(np.array([7, 8, 9]), np.array([0, 2, 2, 3]))
        >>> [item.tolist() for item in rows], rows.sizes.tolist()
        ([[7, 8], [], [9]], [2, 0, 1])
    """

    def __init__(self, flat: Integers, offsets: Integers) -> None:
        for name, array in (("flat", flat), ("offsets", offsets)):
            if array.ndim != 1 or array.dtype.kind not in "iu":
                raise ConfigError(f"CSR needs integers in one dimension as {name}; got {array.dtype} {list(array.shape)}")
        ends = offsets.astype(np.int64, copy=False)
        if len(ends) == 0 or ends[0] != 0 or ends[-1] != len(flat) or np.any(ends[1:] < ends[:-1]):
            found = "none" if len(ends) == 0 else f"{ends[0]} .. {ends[-1]}, lowest step {np.diff(ends).min(initial=0)}"
            raise ConfigError(f"CSR needs offsets that rise from 0 to {len(flat)}, the length of flat; got {found}")
        self.flat, self.offsets = flat.view(), ends.view()
        self.flat.flags.writeable = self.offsets.flags.writeable = False

    @classmethod
    def of(cls, arrays: Sequence[npt.ArrayLike]) -> CSR:
        """Return a sequence of index arrays, one a client, in this form; itself where it has it already.

        Raises:
            ConfigError: naming the client whose item is no list of integers.
        """
        if isinstance(arrays, CSR):
            return arrays
        items = [_integers(client, rows) for client, rows in enumerate(arrays)]
        sizes = np.fromiter(map(len, items), dtype=np.int64, count=len(items))
        return cls(np.concatenate([np.empty(0, np.int64), *items]), np.concatenate([[0], np.cumsum(sizes)]))

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """[N], the lengths of the items."""
        return np.diff(self.offsets)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yield ranges of items, first and one after the last, that hold about a million rows each."""
        cuts = np.searchsorted(self.offsets, np.arange(0, len(self.flat), BLOCK))
        yield from pairwise(np.unique([*cuts, len(self)]).tolist())

    def block(self, first: int, last: int) -> tuple[Integers, npt.NDArray[np.int64]]:
        """Return the rows of the items ``first`` .. ``last - 1`` and, for each row, its item counted from ``first``."""
        ends = self.offsets[first : last + 1]
        return self.flat[ends[0] : ends[-1]], np.repeat(np.arange(last - first), np.diff(ends))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __repr__(self) -> str:
        return f"<{len(self)} index arrays, {len(self.flat)} rows of {self.flat.dtype}>"

    def _item(self, place: int) -> Integers:
        return self.flat[self.offsets[place] : self.offsets[place + 1]]


def _integers(client: int, rows: npt.ArrayLike) -> Integers:
    array: npt.NDArray[Any] = np.asarray(rows)
    if array.size == 0:
        return np.empty(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ConfigError(f"client {client} needs a list of row numbers; got {array.dtype} {list(array.shape)}")
    return array.astype(np.int64, copy=False)
