"""A model as a function of its parameters, for objectives that need more of it than its logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedagg.errors import ConfigError
from fedagg.resident import ResidentModel

Forward = Callable[[Tensor], Tensor]


class Network:
    """``network(params, x) -> logits [b, C]``, for the parameters of one client as the resident model lists them.

    Args:
        resident: the model.
        lower: turns a forward pass into one of the precision that is asked for.
    """

    def __init__(self, resident: ResidentModel, lower: Callable[[Callable[..., Tensor]], Callable[..., Tensor]]) -> None:
        self._resident, self.module = resident, resident.module
        number = {parameter: i for i, parameter in enumerate(resident.params)}
        # A tied weight in all its places, but a layer that has two places once: torch's tying would not put its weight back.
        own = dict(_own(self.module))
        self._places = {name: number[value] for name, value in own.items() if value.requires_grad}
        self._buffers = [slot for slot in resident.layout.slots if slot.kind == "float_buffers" and slot.name in own]
        self.forward: Forward = lower(self.module)
        self._functional = lower(self._with)

    def __call__(self, params: Sequence[Tensor], x: Tensor) -> Tensor:
        """Return logits; where ``params`` are those in which the model lives, by its plain and quicker forward pass."""
        return self.forward(x) if params is self._resident.params else self._functional(params, x)

    def features(self, params: Sequence[Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what enters the last linear layer, [b, L], and the logits."""
        with self._listening() as entered:
            logits = self(params, x)
        return entered[-1], logits

    def frozen(self, params: Sequence[Tensor], buffers: Tensor, x: Tensor) -> Tensor:
        """Return the features [b, L] of a model with other parameters and float buffers [b], in evaluation mode."""
        parts = ((slot, buffers[slot.offset : slot.offset + slot.size]) for slot in self._buffers)
        own = {slot.name: part.view(slot.shape).to(slot.dtype) for slot, part in parts}
        training = self.module.training
        self.module.eval()
        try:
            with torch.no_grad(), self._listening() as entered:
                self._functional(params, x, own)
        finally:
            self.module.train(training)
        return entered[-1]

    def _with(self, params: Sequence[Tensor], x: Tensor, buffers: Mapping[str, Tensor] | None = None) -> Tensor:
        own = {name: params[i] for name, i in self._places.items()} | dict(buffers or {})
        return functional_call(self.module, own, (x,), tie_weights=False)  # type: ignore[no-any-return]

    @contextmanager
    def _listening(self) -> Iterator[list[Tensor]]:
        """Note what enters the last linear layer."""
        entered: list[Tensor] = []
        handle = head(self.module).register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
        try:
            yield entered
        finally:
            handle.remove()


def head(model: nn.Module) -> nn.Linear:
    """Return the last linear layer of a model.

    Raises:
        ConfigError: there is none.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise ConfigError(f"features are what enters the last linear layer, and {type(model).__name__} has none")
    return layers[-1]


def _own(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield all parameters and buffers of each layer of ``model``, each layer once."""
    for path, layer in model.named_modules():
        values = (
            *layer.named_parameters(recurse=False, remove_duplicate=False),
            *layer.named_buffers(recurse=False, remove_duplicate=False),
        )
        for name, value in values:
            yield f"{path}.{name}".lstrip("."), value
