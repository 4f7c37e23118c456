"""The server's own examples, and a model tried on them whose parameters come as one vector."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.modules.batchnorm import _NormBase

from fedagg.errors import ConfigError
from fedagg.params import Layout, ModelState, State

logger = logging.getLogger(__name__)
Examples = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Batches:
    """Examples in batches of ``size``, in a new order at every pass.

    A last batch of a single example joins the one before it: batch normalisation cannot stand one.
    """

    x: Tensor
    y: Tensor
    size: int
    generator: torch.Generator

    def __iter__(self) -> Iterator[Examples]:
        rows = list(torch.split(torch.randperm(len(self.y), generator=self.generator), self.size))
        if len(rows) > 1 and len(rows[-1]) == 1:
            rows[-2:] = [torch.cat(rows[-2:])]
        for batch in rows:
            yield self.x[batch.to(self.x.device)], self.y[batch.to(self.y.device)]


class ProxyModel:
    """An architecture and examples to try it on.

    Normalisation layers use the statistics of the batch, everywhere. In training mode they also move their running buffers,
    which are those of ``begin`` at first.

    Args:
        model: it is copied; of its values only those are used that are no parameters and that nobody sends.
        proxy: inputs [m, ...] and classes [m] of m >= 1 examples.
        params: [d], some model; its device is where everything lies.

    Raises:
        ConfigError: the model is not the one ``params`` belong to, or it has fewer classes than the examples.
    """

    def __init__(self, model: nn.Module, proxy: Examples, params: Tensor) -> None:
        self.module = copy.deepcopy(model).to(params.device)
        self.layout = Layout.of_model(self.module)
        if self.layout.size() != len(params):
            raise ConfigError(f"FedLAW's model has {self.layout.size()} parameters, that of the clients {len(params)}")
        self.x, self.y = proxy[0].to(params.device), proxy[1].to(params.device)
        parts = {slot.offset: slot for slot in self.layout.slots if slot.kind == "params"}
        self._shapes = [parts[offset].shape for offset in sorted(parts)]
        self._sizes = [parts[offset].size for offset in sorted(parts)]
        number = {offset: i for i, offset in enumerate(sorted(parts))}
        slots = {slot.name: slot for slot in self.layout.slots}
        held = [slots[name] for name in _names(self.module) if name in slots]
        self._places = {slot.name: number[slot.offset] for slot in held if slot.kind == "params"}
        self._others = [slot for slot in held if slot.kind != "params"]
        self._own = self.layout.gather(self.module)
        self.begin(None)
        self._check(params)

    def begin(self, state: State | None) -> None:
        """Take the buffers of ``state``; None: those that the model came with."""
        views = {slot.name: (slot, self.layout.view(state or self._own, slot)) for slot in self._others}
        self._buffers = {name: view.to(slot.dtype, copy=True) for name, (slot, view) in views.items()}

    def batches(self, size: int, generator: torch.Generator) -> Batches:
        """Return the examples in batches, in orders drawn from ``generator``."""
        return Batches(self.x, self.y, size, generator)

    def loss(self, params: Tensor, batch: Examples) -> Tensor:
        """Return the mean cross-entropy [] of ``params`` [d] on a batch, in training mode: buffers move."""
        self.module.train()
        return functional.cross_entropy(self._logits(params, batch[0], self._buffers), batch[1])

    @torch.no_grad()
    def measure(self, params: Tensor, size: int) -> float:
        """Return the mean cross-entropy of ``params`` [d] on all examples, in batches of ``size``; nothing is dropped out."""
        self.module.eval()
        for layer in self.module.modules():
            if isinstance(layer, _NormBase):
                layer.train()
        total = 0.0
        for x, y in Batches(self.x, self.y, size, torch.Generator().manual_seed(0)):
            buffers = {name: buffer.clone() for name, buffer in self._buffers.items()}
            total += float(functional.cross_entropy(self._logits(params, x, buffers), y, reduction="sum"))
        return total / len(self.y)

    def buffers(self) -> Mapping[str, Tensor] | None:
        """Return ``float_buffers`` [b] and ``int_buffers`` [c] as they are now; None if one of them is not finite."""
        now = ModelState(self._own.params, self._own.float_buffers.clone(), self._own.int_buffers.clone())
        for slot in self._others:
            self.layout.view(now, slot).copy_(self._buffers[slot.name])
        finite = bool(now.float_buffers.isfinite().all())
        return {"float_buffers": now.float_buffers, "int_buffers": now.int_buffers} if finite else None

    def _logits(self, params: Tensor, x: Tensor, buffers: dict[str, Tensor]) -> Tensor:
        parts = [part.view(shape) for part, shape in zip(torch.split(params, self._sizes), self._shapes, strict=True)]
        given = {name: parts[i] for name, i in self._places.items()} | buffers
        x = x.to(params.dtype) if x.is_floating_point() else x
        logits: Tensor = functional_call(self.module, given, (x,), tie_weights=False)
        buffers.update({name: given[name] for name in buffers})  # a layer may have put another tensor in its place
        return logits

    @torch.no_grad()
    def _check(self, params: Tensor) -> None:
        self.module.eval()
        classes = self._logits(params, self.x[:1], dict(self._buffers)).shape[1]
        found = set(self.y.tolist())
        if not found <= set(range(classes)):
            raise ConfigError(f"FedLAW's model knows classes 0 to {classes - 1}; its proxy has {min(found)} to {max(found)}")
        if missing := sorted(set(range(classes)) - found):
            logger.warning("the proxy has no example of classes %s: what a model knows of them does not count", missing)


def checked(proxy: Examples) -> Examples:
    """Return inputs and classes, if that is what they are.

    Raises:
        ConfigError: naming what was found instead.
    """
    if isinstance(proxy, str) or len(proxy) != 2 or not all(isinstance(part, Tensor) for part in proxy):
        found = repr(proxy) if isinstance(proxy, str) else type(proxy).__name__
        raise ConfigError(f"FedLAW's proxy must be a pair of tensors, inputs [m, ...] and classes [m]; got {found}")
    x, y = proxy
    if y.ndim != 1 or len(x) != len(y) or len(y) == 0 or y.is_floating_point():
        shapes = f"{list(x.shape)} and {list(y.shape)} {y.dtype}"
        raise ConfigError(f"FedLAW's proxy must be inputs [m, ...] and integer classes [m] with m >= 1; got {shapes}")
    return x, y.long()


def _names(model: nn.Module) -> Iterator[str]:
    """Yield the names of all parameters and buffers of each layer, each layer once: a tied weight has several."""
    for path, layer in model.named_modules():
        own = chain(
            layer.named_parameters(recurse=False, remove_duplicate=False),
            layer.named_buffers(recurse=False, remove_duplicate=False),
        )
        for name, _ in own:
            yield f"{path}.{name}".lstrip(".")
