"""A model whose memory is three flat vectors, in which it trains."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from fedagg.params import KINDS, Layout, ModelState, Slot, State


class ResidentModel:
    """A model that lives in three flat vectors: loading it, and reading it off, is one copy per vector.

    An optimizer step in place changes the vectors. Buffers whose dtype the vectors cannot have (booleans, say) are copied
    one by one.

    Args:
        model: it is copied; its values do not matter.
        device: where it lives.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.layout = Layout.of_model(model)
        self.module = copy.deepcopy(model).to(device)
        memory = self.layout.gather(self.module)
        self._memory = ModelState(*(getattr(memory, kind).to(device) for kind in KINDS))
        trained = {name: parameter for name, parameter in self.module.named_parameters() if parameter.requires_grad}
        self.params: list[Tensor] = list(trained.values())
        slots = {slot.name: slot for slot in self.layout.slots}
        self.slots = [slots[name] for name in trained]  # where each of ``params`` lies
        self._apart: list[tuple[Slot, Tensor]] = []
        self._buffers: dict[tuple[nn.Module, str], Tensor] = {}
        owners = {}
        for prefix, module in self.module.named_modules(remove_duplicate=False):
            for name in (*module._parameters, *module._buffers):
                owners[f"{prefix}.{name}".lstrip(".")] = (module, name)
        for slot in self.layout.slots:
            module, name = owners[slot.name]
            tensor = getattr(module, name)
            if slot.dtype != self.layout.dtype(slot.kind):
                self._apart.append((slot, tensor))
            elif name in module._parameters:
                tensor.data = self.layout.view(self._memory, slot)
            else:
                module._buffers[name] = self.layout.view(self._memory, slot)
            if name in module._buffers:
                self._buffers[module, name] = getattr(module, name)

    def views(self, rows: Tensor) -> list[Tensor]:
        """Return vectors [..., d] as tensors [..., *shape], one for each of ``params``, without a copy."""
        lead = rows.shape[:-1]
        return [rows[..., slot.offset : slot.offset + slot.size].view(*lead, *slot.shape) for slot in self.slots]

    def load(self, state: State) -> None:
        """Take the values of ``state``."""
        for (module, name), tensor in self._buffers.items():
            module._buffers[name] = tensor  # the one that belongs here: a client may have put another in its place
        for kind in KINDS:
            if self.layout.size(kind):
                getattr(self._memory, kind).copy_(getattr(state, kind))
        for slot, tensor in self._apart:
            tensor.copy_(self.layout.view(state, slot))

    def store_update(self, base: Tensor, row: Tensor, float_buffers: Tensor, int_buffers: Tensor) -> None:
        """Write what was added to ``base`` [d] into ``row`` [d], and the buffers beside it."""
        for (module, name), tensor in self._buffers.items():
            if getattr(module, name) is not tensor:
                tensor.copy_(getattr(module, name))
        if base.device == row.device:
            torch.sub(self._memory.params, base, out=row)
        else:
            row.copy_(self._memory.params - base)
        for kind, into in (("float_buffers", float_buffers), ("int_buffers", int_buffers)):
            if len(into):
                into.copy_(getattr(self._memory, kind))
                for slot, tensor in self._apart:
                    if slot.kind == kind:
                        into[slot.offset : slot.offset + slot.size].view(slot.shape).copy_(tensor)
