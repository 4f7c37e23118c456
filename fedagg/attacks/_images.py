"""What the backdoors share: images, and the examples among them that get the trigger and the wrong label."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fedagg.attacks._rows import whole_share


def check_backdoor(attack: object, target: int, fraction: float) -> None:
    """Raise ``ValueError`` unless ``target`` may be a class and ``fraction`` is a share."""
    if target < 0:
        raise ValueError(f"{type(attack).__name__} needs a class target >= 0; got target={target}")
    if not 0 <= fraction <= 1:
        raise ValueError(f"{type(attack).__name__} needs fraction in [0, 1]; got fraction={fraction}")


def check_images(attack: object, x: Tensor, height: int, width: int) -> None:
    """Raise ``ValueError`` unless ``x`` is [B, C, H, W] or [B, H, W] with images of at least this size."""
    if x.ndim not in (3, 4) or x.shape[-2] < height or x.shape[-1] < width:
        raise ValueError(
            f"{type(attack).__name__} needs images [B, C, H, W] or [B, H, W] of at least {height} x {width} pixels; "
            f"got shape {list(x.shape)}"
        )


def with_backdoor(
    x: Tensor, y: Tensor, trigger: Callable[[Tensor], Tensor], target: int, fraction: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return copies in which the first ``floor(fraction * B)`` examples of a random order have the trigger and the label.

    Args:
        x: [B, ...].
        y: [B], labels.
        trigger: stamps examples, [b, ...] -> [b, ...].
        target: the label of stamped examples.
        fraction: share of the examples.
        generator: decides which.
    """
    chosen = torch.randperm(len(x), generator=generator, device=generator.device)[: whole_share(fraction, len(x))].to(x.device)
    x, y = x.clone(), y.clone()
    x[chosen] = trigger(x[chosen])
    y[chosen.to(y.device)] = target
    return x, y
