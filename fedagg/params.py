"""A model as three flat vectors, and those vectors as Flower's ``ArrayRecord``.

Rules see one vector of trainable floats. Float buffers (a running mean) and integer buffers (a step counter) travel beside it
and are aggregated in their own way, so that a counter near 10^5 never decides which client is an outlier.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from io import BytesIO
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from torch import Tensor, nn

Kind = Literal["params", "float_buffers", "int_buffers"]
KINDS: tuple[Kind, ...] = ("params", "float_buffers", "int_buffers")


@dataclass(frozen=True)
class Slot:
    """Where one named tensor lives: which flat vector, from which offset, in which shape and dtype."""

    name: str
    kind: Kind
    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


@dataclass
class ModelState:
    """The values of a model: ``params`` [d], ``float_buffers`` [b], ``int_buffers`` [c] (int64), each one flat vector."""

    params: Tensor
    float_buffers: Tensor
    int_buffers: Tensor

    def clone(self) -> ModelState:
        """Return a copy in new memory."""
        return ModelState(*(getattr(self, kind).clone() for kind in KINDS))

    def update_from(self, theta: Tensor) -> Update:
        """Return these parameters minus ``theta`` [d]."""
        return Update.checked(self.params - theta)


class Update(NamedTuple):
    """What a client changed: ``row`` [d], and whether it may reach a rule.

    It may where its squared norm is finite, which that of a row of 1e200 is not.
    """

    row: Tensor
    finite: bool

    @classmethod
    def checked(cls, row: Tensor) -> Update:
        """Return ``row`` [d] and whether its squared norm is finite."""
        return cls(row, math.isfinite(row.dot(row).item()))


class SentState:
    """The model one client sends, kept as what it changed: the parameters exist only while somebody looks at them.

    Args:
        base: [d], the parameters the client received.
        update: what it added to them; its row is one of a round's matrix.
        float_buffers: [b].
        int_buffers: [c].
    """

    def __init__(self, base: Tensor, update: Update, float_buffers: Tensor, int_buffers: Tensor) -> None:
        self.base, self.update, self.float_buffers, self.int_buffers = base, update, float_buffers, int_buffers

    @property
    def params(self) -> Tensor:
        """[d], made anew at every look."""
        return self.base + self.update.row

    def update_from(self, theta: Tensor) -> Update:
        """Return the parameters minus ``theta`` [d]: the very row where ``theta`` is what the client received."""
        return self.update if theta is self.base else Update.checked(self.params - theta)


State = ModelState | SentState


@dataclass(frozen=True)
class Layout:
    """The order of a model's tensors in the flat vectors. Equal layouts mean interchangeable vectors.

    Tied weights (two names, one tensor) share a slot's place and so count once in ``d``.
    """

    slots: tuple[Slot, ...]

    @classmethod
    def of_model(cls, model: nn.Module) -> Layout:
        """Describe ``model.state_dict()``: trainable floats are parameters, other floats and frozen weights float buffers."""
        tensors = model.state_dict(keep_vars=True)
        return cls._place(
            (name, tensor, "params" if tensor.requires_grad else "float_buffers") for name, tensor in tensors.items()
        )

    @classmethod
    def of_arrays(cls, arrays: ArrayRecord) -> Layout:
        """Describe arrays. Of somebody else's no model is known: every float array counts as parameters."""
        if isinstance(arrays, ModelRecord):
            return arrays.layout
        return cls._place((name, torch.from_numpy(array.numpy()), "params") for name, array in arrays.items())

    @classmethod
    def _place(cls, tensors: Iterator[tuple[str, Tensor, Kind]]) -> Layout:
        ends: dict[Kind, int] = dict.fromkeys(KINDS, 0)
        seen: dict[int, Slot] = {}
        slots, kept_alive = [], []
        for name, tensor, float_kind in tensors:
            kept_alive.append(tensor)
            if tensor.is_complex():
                raise ValueError(f"{name} is complex; only real floats and integers can be aggregated")
            kind: Kind = float_kind if tensor.is_floating_point() else "int_buffers"
            twin = seen.get(id(tensor))
            slot = Slot(name, kind, twin.offset if twin else ends[kind], tuple(tensor.shape), tensor.dtype)
            if twin is None:
                ends[kind] += slot.size
                seen[id(tensor)] = slot
            slots.append(slot)
        dtypes = {slot.dtype for slot in slots if slot.kind == "params"}
        if len(dtypes) > 1:
            raise ValueError(f"all trainable parameters must share one dtype; got {sorted(map(str, dtypes))}")
        return cls(tuple(slots))

    def layers(self) -> list[slice]:
        """Return where the parameters of each named tensor lie in their flat vector."""
        return [slice(slot.offset, slot.offset + slot.size) for slot in self.slots if slot.kind == "params"]

    def sizes(self) -> dict[str, int]:
        """Return how many parameters each named tensor has."""
        return {slot.name: slot.size for slot in self.slots if slot.kind == "params"}

    def size(self, kind: Kind = "params") -> int:
        """Length of one of the flat vectors; ``d`` by default."""
        return self._sizes[kind]

    @cached_property
    def _sizes(self) -> dict[Kind, int]:
        return {kind: max((slot.offset + slot.size for slot in self.slots if slot.kind == kind), default=0) for kind in KINDS}

    @cached_property
    def nbytes(self) -> int:
        """Bytes of one model: every named tensor in its own dtype."""
        return sum(slot.size * slot.dtype.itemsize for slot in self.slots)

    def dtype(self, kind: Kind = "params") -> torch.dtype:
        """Dtype of one of the flat vectors (the model's own for parameters; wide enough for every buffer otherwise)."""
        return self._dtypes[kind]

    @cached_property
    def _dtypes(self) -> dict[Kind, torch.dtype]:
        params = next((slot.dtype for slot in self.slots if slot.kind == "params"), torch.float32)
        floats = [slot.dtype for slot in self.slots if slot.kind == "float_buffers"]
        return {
            "params": params,
            "float_buffers": reduce(torch.promote_types, floats, torch.float32),
            "int_buffers": torch.int64,
        }

    def empty(self, device: torch.device | None = None) -> ModelState:
        """Return uninitialised vectors of the right sizes."""
        return ModelState(*(torch.empty(self.size(kind), dtype=self.dtype(kind), device=device) for kind in KINDS))

    def view(self, state: State, slot: Slot) -> Tensor:
        """Return the part of ``state`` that belongs to ``slot``, in its shape, without a copy."""
        flat: Tensor = getattr(state, slot.kind)
        return flat[slot.offset : slot.offset + slot.size].view(slot.shape)

    def gather(self, model: nn.Module) -> ModelState:
        """Copy the values of ``model`` into flat vectors, on the device of ``model``."""
        tensors = model.state_dict()
        devices = {tensor.device for tensor in tensors.values()}
        state = self.empty(device=devices.pop() if len(devices) == 1 else torch.device("cpu"))
        for slot in self.slots:
            self.view(state, slot).copy_(tensors[slot.name])
        return state

    def scatter(self, state: ModelState, model: nn.Module) -> None:
        """Copy flat vectors into ``model``."""
        model.load_state_dict({slot.name: self.view(state, slot) for slot in self.slots})

    def read(self, arrays: ArrayRecord, device: torch.device | None = None) -> State:
        """Return the flat vectors of a record, checking keys and shapes; a record of ours is read without a copy.

        Args:
            arrays: a model.
            device: where vectors lie that have to be made; None is the CPU.

        Raises:
            ValueError: naming the missing or unknown key, or the array whose shape or dtype does not fit.
        """
        if isinstance(arrays, ModelRecord) and arrays.state is not None and arrays.layout == self:
            return arrays.state
        names = {slot.name for slot in self.slots}
        if names != set(arrays):
            raise ValueError(f"missing arrays {sorted(names - set(arrays))}, unknown arrays {sorted(set(arrays) - names)}")
        state = self.empty(device)
        for slot in self.slots:
            value = arrays[slot.name].numpy()
            if value.shape != slot.shape:
                raise ValueError(f"array {slot.name} must have shape {list(slot.shape)}; got {list(value.shape)}")
            if not np.issubdtype(value.dtype, np.number) and value.dtype != np.bool_:
                raise ValueError(f"array {slot.name} must hold numbers; got {value.dtype}")
            self.view(state, slot).copy_(torch.as_tensor(value))
        return state

    def record(self, state: State) -> ModelRecord:
        """Return Flower arrays over ``state``, without a copy."""
        return ModelRecord(self, state)


class TensorArray(Array):
    """A Flower ``Array`` that keeps its tensor and turns into bytes only when somebody reads ``data``.

    Args:
        tensor: the values, or what is added to ``base``.
        dtype: what the values are sent as.
        base: of the shape of ``tensor``, or None for zeros.
    """

    def __init__(self, tensor: Tensor, dtype: torch.dtype, base: Tensor | None = None) -> None:
        self.tensor, self.base = tensor, base
        self.dtype = str(dtype).removeprefix("torch.")
        self.shape = tuple(tensor.shape)
        self.stype = "numpy.ndarray"

    def numpy(self) -> np.ndarray[Any, Any]:
        """Return a copy: callers may keep it or write to it, as with any Flower array."""
        values = self.tensor.clone() if self.base is None else self.base + self.tensor
        return values.cpu().numpy().astype(self.dtype, copy=False)

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The bytes Flower sends, made now."""
        buffer = BytesIO()
        np.save(buffer, self.numpy(), allow_pickle=False)
        return buffer.getvalue()

    def deflate(self) -> bytes:
        """Travel as a plain ``Array``: the other side need not know this class."""
        return Array(self.numpy()).deflate()

    def __reduce__(self) -> tuple[type[Array], tuple[np.ndarray[Any, Any]]]:
        return Array, (self.numpy(),)  # a pickled view would bring the memory behind it


class _ArraysOnDemand(MutableMapping[str, Array]):
    """The arrays of a model, made when somebody first looks: most replies are read as one row and never array by array."""

    def __init__(self, layout: Layout, state: State) -> None:
        self._layout, self._state = layout, state

    @cached_property
    def _arrays(self) -> dict[str, Array]:
        layout, state = self._layout, self._state
        if not isinstance(state, SentState):
            return {slot.name: TensorArray(layout.view(state, slot), slot.dtype) for slot in layout.slots}
        base = ModelState(state.base, state.float_buffers, state.int_buffers)
        update = ModelState(state.update.row, state.float_buffers, state.int_buffers)
        return {
            slot.name: TensorArray(
                layout.view(update, slot), slot.dtype, layout.view(base, slot) if slot.kind == "params" else None
            )
            for slot in layout.slots
        }

    def __getitem__(self, key: str) -> Array:
        return self._arrays[key]

    def __setitem__(self, key: str, value: Array) -> None:
        self._arrays[key] = value

    def __delitem__(self, key: str) -> None:
        del self._arrays[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        return repr(self._arrays)

    def copy(self) -> dict[str, Array]:
        return dict(self._arrays)


class ModelRecord(ArrayRecord):
    """An ``ArrayRecord`` over the flat vectors of one model. As soon as somebody changes an entry, ``state`` is None."""

    def __init__(self, layout: Layout, state: State) -> None:
        super().__init__()
        self.layout = layout
        self.state: State | None = state
        self.__dict__["_data"] = _ArraysOnDemand(layout, state)

    def deflate(self) -> bytes:
        """Travel as a plain ``ArrayRecord``."""
        return self._plain().deflate()

    def __reduce__(self) -> tuple[type[ArrayRecord], tuple[dict[str, Array]]]:
        return ArrayRecord, (dict(self.items()),)

    def _plain(self) -> ArrayRecord:
        plain = ArrayRecord()
        for name, array in self.items():
            plain[name] = array
        return plain

    def __setitem__(self, key: str, value: Array) -> None:
        self.state = None
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self.state = None
        super().__delitem__(key)


def merge_buffers(states: Sequence[State], weights: Tensor) -> Mapping[str, Tensor]:
    """Aggregate buffers: the weighted mean of the float ones, the maximum of the integer ones.

    Args:
        states: n >= 1 states of one layout.
        weights: [n], non-negative; divided by their sum here, uniform if that is 0.
    """
    share = weights.double().clamp(min=0)
    share = share / share.sum() if share.sum() > 0 else torch.full_like(share, 1 / len(states))
    floats = torch.stack([state.float_buffers for state in states])
    integers = torch.stack([state.int_buffers for state in states])
    return {
        "float_buffers": (share.to(floats.device) @ floats.double()).to(floats.dtype),
        "int_buffers": integers.amax(dim=0) if integers.numel() else integers[0],
    }
