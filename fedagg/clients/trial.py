"""Can these clients be trained together? Found out by doing it: on a few examples, together and one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from fedagg import rng
from fedagg.clients.batched import Batched
from fedagg.clients.executor import Block, Job
from fedagg.clients.local import LocalTraining

SIZES = (4, 3, 2)  # examples of each client: whatever the batch size from 2 on, some step has uneven batches
# Of the length of an update: above what rounding does to networks with kinks, far below what mixing examples does.
TOLERANCE = {"cpu": 1e-3, "cuda": 3e-2}  # convolutions on GPUs round their factors to ten bits
LOW_PRECISION_TOLERANCE = 0.5


def obstacle(batched: Batched, local: LocalTraining, model: nn.Module, x: Tensor, y: Tensor) -> str | None:
    """Return why clients cannot be trained together, naming the layer (or what else it is), or None if they can.

    Args:
        batched: what would train them.
        local: how they train.
        model: its values are where the trial starts.
        x: [9, ...] examples.
        y: [9] int64.
    """
    if type(local).train is not LocalTraining.train:
        return f"{type(local).__name__} has a train() of its own, which trains one client"
    layout, clients = batched.layout, range(len(SIZES))
    state = layout.gather(model)
    shared = {"received": state.params, "received_buffers": state.float_buffers, "round": torch.ones(1, dtype=torch.int64)}
    first = {**dict.fromkeys(local.receives, torch.zeros_like(state.params)), **local.first(state), **shared}

    def job(i: int, m: int, x: Tensor, y: Tensor) -> Job:
        batches = local.batches(m, rng.generator(0, "trial", i))
        known = {**first, "steps": torch.tensor([len(batches)])}
        seen = {name: known[name] for name in (*local.in_steps, *local.buffers_in_steps)}
        return Job(x, y, batches, m, rng.derive(0, "trial dropout", i), seen)

    def jobs() -> list[Job]:
        parts = zip(torch.split(x, list(SIZES)), torch.split(y, list(SIZES)), strict=True)
        return [job(i, m, *part) for i, (m, part) in enumerate(zip(SIZES, parts, strict=True))]

    empty = torch.empty(2, len(SIZES), layout.size(), dtype=layout.dtype())
    together, alone = (Block.over(rows, state.params, layout) for rows in empty)
    with rng.kept_torch():
        with _innermost(batched.module) as where:
            try:
                batched.together(state, local, dict(enumerate(jobs())), together)
            except Exception as error:
                return f"{where()}: {str(error).split('. ')[0]}"
        for outcome in batched.alone.train(state, local, clients, lambda some: [jobs()[client] for client in some], alone):
            if outcome.metrics is None:
                return f"a trial with one client alone fails: {outcome.error.splitlines()[-1]}"
        return _changed_buffer(batched, together, alone) or _difference(batched, local, together, alone, x)


def _changed_buffer(batched: Batched, together: Block, alone: Block) -> str | None:
    """Name the layer that changes a buffer while it trains; together, nobody would get his own."""
    for slot in batched.layout.slots:
        if slot.kind != "params":
            part = slice(slot.offset, slot.offset + slot.size)
            if not torch.equal(getattr(together, slot.kind)[:, part], getattr(alone, slot.kind)[:, part]):
                owner, _, name = slot.name.rpartition(".")
                return f"{_named(owner, batched.module.get_submodule(owner))}: its buffer {name} changes while it trains"
    return None


def _difference(batched: Batched, local: LocalTraining, together: Block, alone: Block, x: Tensor) -> str | None:
    """Name what makes clients end elsewhere together than alone."""
    apart, length = (together.updates - alone.updates).norm(dim=1), alone.updates.norm(dim=1)
    low = batched.precision != torch.float32
    if bool((apart <= (LOW_PRECISION_TOLERANCE if low else TOLERANCE[batched.device.type]) * length).all()):
        return None
    if layer := _mixing_layer(batched, x):
        return f"{layer}: what it makes of an example depends on the other examples of the batch"
    return f"{type(local).__name__}: its clients end elsewhere together than alone"


def _mixing_layer(batched: Batched, x: Tensor) -> str | None:
    """Name the first layer to finish whose output for two examples changes when a third one is there."""

    def calls(x: Tensor) -> list[tuple[str, object, object]]:
        made: list[tuple[str, object, object]] = []
        with _hooks(batched.module, after=lambda name, inputs, output: made.append((name, next(iter(inputs), None), output))):
            if batched.alone.noise:
                batched.alone.noise.begin_pass(torch.tensor(0, device=x.device))
            batched.module(x)
        return made

    def agree(few: object, more: object) -> bool:
        if not isinstance(few, Tensor) or not isinstance(more, Tensor) or few.shape != more[: len(few)].shape:
            return True  # no examples in the first dimension; those of the model itself are
        return bool((few - more[: len(few)]).norm() <= TOLERANCE[batched.device.type] * few.norm())

    x = x.to(batched.device)
    for (name, *few), (_, *more) in zip(calls(x[:2]), calls(x[:3]), strict=False):
        if agree(few[0], more[0]) and not agree(few[1], more[1]):
            return name
    return None


@contextmanager
def _innermost(model: nn.Module) -> Iterator[Callable[[], str]]:
    """Yield a function that names the layer whose forward pass has begun last and not ended: where an exception came from."""
    inside = [_named("", model)]
    with _hooks(model, before=inside.append, after=lambda *_: inside.pop()):
        yield lambda: inside[-1]


@contextmanager
def _hooks(
    model: nn.Module,
    before: Callable[[str], object] = lambda name: None,
    after: Callable[[str, tuple[object, ...], object], object] = lambda name, inputs, output: None,
) -> Iterator[None]:
    """Call ``before(layer)`` and ``after(layer, inputs, output)`` around every layer's forward pass."""
    handles = []
    for path, layer in model.named_modules():
        name = _named(path, layer)
        handles.append(layer.register_forward_pre_hook(partial(_before, before, name)))
        handles.append(layer.register_forward_hook(partial(_after, after, name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _before(tell: Callable[[str], object], name: str, *_: object) -> None:
    tell(name)


def _after(tell: Callable[..., object], name: str, layer: nn.Module, inputs: object, output: object) -> None:
    tell(name, inputs, output)


def _named(path: str, layer: nn.Module) -> str:
    return f"{path or 'the model'} ({type(layer).__name__})"
