"""A network whose weights never change: what is trained is a score for every weight, and the scores decide which count."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedagg import rng
from fedagg.errors import ConfigError
from fedagg.rankings import checked_sparsity, frl_mask, importance

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Masked(nn.Module):
    """A layer with fixed weights w, of which those with the most important scores s count: it computes with w * mask(s).

    Backward, the mask passes for |s| (for s, where ``mask_by`` is "signed"), so ds = sign(s) * w * dL/d(w * mask).

    Args:
        layer: a layer without bias. The signs of its weight stay, as what is not part of the state: whoever knows the seed
            knows them.
        scale: |w|. What the layer makes is multiplied by it, so that sums of pixels that cancel do so whatever their order.
        scores: s, of the shape of w, the only parameter.
        sparsity: the fraction of edges that is kept.
        mask_by: "abs" or "signed".
    """

    def __init__(self, layer: nn.Module, scale: float, scores: Tensor, sparsity: float, mask_by: str) -> None:
        super().__init__()
        self.layer, self.scale, self.sparsity, self.mask_by = layer, scale, sparsity, mask_by
        signs = layer.weight.detach().sign()  # type: ignore[operator]
        del self.layer.weight
        self.layer.register_buffer("weight", signs, persistent=False)
        self.scores = nn.Parameter(scores)

    def forward(self, x: Tensor) -> Tensor:
        """Map x as the layer does, by the edges that count."""
        rated = importance(self.scores, "mask_by", self.mask_by)
        mask = _mask(self.scores.detach(), self.sparsity, self.mask_by)
        kept = mask + (rated - rated.detach())  # the mask, with the slope of what is rated
        weight = self.layer.weight * kept  # type: ignore[operator]
        return self.scale * functional_call(self.layer, {"weight": weight}, (x,))  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"scale={self.scale:.4g}, sparsity={self.sparsity}, mask_by={self.mask_by!r}"


class _Mask(torch.autograd.Function):
    """``frl_mask`` of one network or, where ``vmap`` makes many of one, of each apart; nothing is differentiated here."""

    @staticmethod
    def forward(scores: Tensor, sparsity: float, mask_by: str) -> Tensor:
        """Return the mask; where training has diverged to NaN any will do, since the slope of the scores is then NaN too."""
        return frl_mask(scores.nan_to_num(0.0, posinf=math.inf, neginf=-math.inf), sparsity, mask_by)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Remember nothing."""
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], scores: Tensor, sparsity: float, mask_by: str) -> tuple[Tensor, int]:
        """Return the masks of many networks."""
        return torch.stack([_mask(one, sparsity, mask_by) for one in scores.movedim(in_dims[0], 0)]), 0


def _mask(scores: Tensor, sparsity: float, mask_by: str) -> Tensor:
    return _Mask.apply(scores, sparsity, mask_by)  # type: ignore[no-any-return, no-untyped-call]


def supermask(model: nn.Module, sparsity: float = 0.5, mask_by: str = "abs", *, seed: int = 0) -> nn.Module:
    """Return a copy of ``model`` in which every layer is ``Masked``; one that is returned here is returned as it is.

    Weights are the signs of those of ``model`` times sqrt(2 / fan_in); scores begin uniform on +-1 / sqrt(fan_in).

    Ramanujan et al., "What's Hidden in a Randomly Weighted Neural Network?", CVPR 2020, as Federated Rank Learning uses it.

    Args:
        model: of linear and convolutional layers without biases, and layers without parameters.
        sparsity: the fraction of each layer's edges that is kept, in (0, 1].
        mask_by: which are kept: those of largest |score| ("abs") or of largest score ("signed").
        seed: the run's seed; initial scores depend on it alone.

    Raises:
        ConfigError: naming the layer that has something else to train or to remember, or the setting that is impossible.
    """
    checked_sparsity(sparsity)
    importance(torch.empty(0), "mask_by", mask_by)
    made = [layer for layer in model.modules() if isinstance(layer, Masked)]
    if made:
        settings = {(layer.sparsity, layer.mask_by) for layer in made}
        if settings != {(sparsity, mask_by)}:
            raise ConfigError(f"this supermask was made with (sparsity, mask_by) = {settings}; got {(sparsity, mask_by)}")
        return model
    model = copy.deepcopy(model)
    places: dict[nn.Module, str] = {layer: path for path, layer in model.named_modules() if isinstance(layer, LAYERS)}
    _refuse_others(model, places)
    draw = rng.generator(seed, "scores")
    for layer, path in places.items():
        weight: Tensor = layer.weight.detach()  # type: ignore[operator]
        fan_in = weight[0].numel()
        scores = torch.empty(weight.shape, dtype=weight.dtype).uniform_(-1, 1, generator=draw) / math.sqrt(fan_in)
        masked = Masked(layer, math.sqrt(2 / fan_in), scores.to(weight.device), sparsity, mask_by)
        for owner, name in _owners(model, layer):
            setattr(owner, name, masked)
        if not path:
            return masked
    return model


def _refuse_others(model: nn.Module, places: dict[nn.Module, str]) -> None:
    """Raise ``ConfigError`` naming a layer that is more than weights to be masked."""
    why = "federated rank learning masks the weights of linear and convolutional layers, and nothing else travels"
    for path, layer in model.named_modules():
        own = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
        wrong = [name for name, _ in own if not (layer in places and name == "weight")]
        if wrong:
            hint = "Take one without biases, such as model=mlp_no_bias, lenet_frl or conv8"
            raise ConfigError(f"layer {path or 'the model'} ({type(layer).__name__}) has {', '.join(wrong)}: {why}. {hint}")
    if not places:
        raise ConfigError(f"{type(model).__name__} has no layer with weights: {why}")
    if len({id(layer.weight) for layer in places}) < len(places):
        raise ConfigError(f"two layers of {type(model).__name__} share their weights; a supermask has one score for one edge")


def _owners(model: nn.Module, layer: nn.Module) -> list[tuple[nn.Module, str]]:
    """Return every place in which ``layer`` stands, as the module it belongs to and its name there."""
    return [(owner, name) for owner in model.modules() for name, child in owner._modules.items() if child is layer]
