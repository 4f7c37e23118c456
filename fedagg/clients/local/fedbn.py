"""FedBN: normalisation layers stay with the client."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from fedagg.clients.local.base import Sent
from fedagg.clients.local.sgd import LocalSGD
from fedagg.errors import ConfigError
from fedagg.params import Kind, Layout, State

NORMALISATION = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True)
class FedBN(LocalSGD):
    """Local SGD where each client keeps its own normalisation layers, weights and float buffers, and sends no change of them.

    Layers are known by their type, whatever they are called. A client starts from the layers it receives the first time it
    takes part. No model is a client's but with its own layers, so none is measured on the server's test set: clients
    evaluate, ``evaluation.clients=true``, and ``clients/accuracy_mean`` is the result. Any strategy goes with it.

    Source: Li et al., "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization", ICLR 2021.

    Args:
        epochs: see ``LocalSGD``.
        batch_size: see ``LocalSGD``.
        lr: see ``LocalSGD``.
        momentum: see ``LocalSGD``.
        weight_decay: see ``LocalSGD``.
        steps: see ``LocalSGD``.
    """

    keeps: ClassVar[tuple[str, ...]] = ("norm", "norm_buffers")
    own_start: ClassVar[bool] = True
    personalises: ClassVar[bool] = True
    server_model: ClassVar[bool] = False

    _places: Mapping[Kind, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def prepared(self, model: nn.Module, layout: Layout) -> Self:
        layers = {path: layer for path, layer in model.named_modules() if isinstance(layer, NORMALISATION)}
        places = {kind: _places(layout, kind, layers) for kind in ("params", "float_buffers")}
        if not any(len(columns) for columns in places.values()):
            raise ConfigError(
                "FedBN keeps normalisation layers with the clients, and this model has none with weights or running "
                "statistics; take another model, model=resnet18 for one, or another local"
            )
        for path, layer in layers.items():
            if getattr(layer, "track_running_stats", False) and getattr(layer, "momentum", 0.0) is None:
                raise ConfigError(
                    f"FedBN cannot keep {path} ({type(layer).__name__}): with momentum=None its statistics depend on a count "
                    "of batches, which is the server's; give it a momentum"
                )
        ready = copy.copy(self)
        object.__setattr__(ready, "_places", places)
        return ready

    def first(self, state: State) -> dict[str, Tensor]:
        """Return the received layers."""
        return self._own(state.params, state.float_buffers)

    def begin(self, params: Tensor, float_buffers: Tensor, kept: Mapping[str, Tensor]) -> None:
        params[:, self._places["params"]] = kept["norm"]
        float_buffers[:, self._places["float_buffers"]] = kept["norm_buffers"]

    def evaluates(self, params: Tensor, float_buffers: Tensor, kept: Mapping[str, Tensor]) -> None:
        self.begin(params, float_buffers, kept)

    def send(self, sent: Sent, kept: Mapping[str, Tensor]) -> None:
        received, changed = self.first(sent.model), self._own(sent.rows, sent.float_buffers)
        kept["norm"].copy_(received["norm"] + changed["norm"])
        kept["norm_buffers"].copy_(changed["norm_buffers"])
        sent.rows[:, self._places["params"]] = 0
        sent.float_buffers[:, self._places["float_buffers"]] = received["norm_buffers"]

    def _own(self, params: Tensor, float_buffers: Tensor) -> dict[str, Tensor]:
        """Return what belongs to normalisation layers, of [..., d] and [..., b]."""
        return {
            "norm": params[..., self._places["params"]],
            "norm_buffers": float_buffers[..., self._places["float_buffers"]],
        }


def _places(layout: Layout, kind: Kind, layers: Mapping[str, nn.Module]) -> Tensor:
    """Return where the values of these layers lie in a flat vector, ascending."""
    slots = [slot for slot in layout.slots if slot.kind == kind and slot.name.rpartition(".")[0] in layers]
    columns = [torch.arange(slot.offset, slot.offset + slot.size) for slot in slots]
    return torch.unique(torch.cat(columns)) if columns else torch.empty(0, dtype=torch.int64)
