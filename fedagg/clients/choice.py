"""Which executor a run gets, on which device, in which precision: what ``engine`` asks for, and what that comes to here."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedagg.clients.batched import Batched
from fedagg.clients.executor import Executor, OneAtATime
from fedagg.clients.local import LocalTraining
from fedagg.clients.trial import SIZES, obstacle
from fedagg.data import Dataset, Population
from fedagg.errors import ConfigError

logger = logging.getLogger(__name__)

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CPU_BUDGET = 1 << 28  # bytes that the clients of a batch may take on a CPU
GPU_SHARE = 4  # on a GPU, the fourth part of all its memory: what is free now would differ from run to run


@dataclass(frozen=True)
class Engine:
    """What the clients of a run are trained with.

    Args:
        executor: trains them.
        name: ``one_at_a_time`` or ``batched``.
        why: the reason, for the plan.
        device: where it computes.
        batch: clients trained at once.
        client_bytes: memory that one of them takes while it trains, beside its row; an estimate.
    """

    executor: Executor
    name: str
    why: str
    device: torch.device
    batch: int
    client_bytes: int


def resolve_device(name: str) -> torch.device:
    """Return the device that ``name`` (auto, cpu, cuda, cuda:N) means here.

    Raises:
        ConfigError: another name, or a GPU that is not there.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if gpus else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    index = re.fullmatch(r"cuda(?::(\d+))?", name)
    if index and int(index[1] or 0) < gpus:
        return torch.device("cuda", int(index[1] or 0))
    here = ", ".join(["cpu", *(f"cuda:{gpu} ({torch.cuda.get_device_name(gpu)})" for gpu in range(gpus))])
    raise ConfigError(f"engine.device={name} cannot be used here: it must be auto, cpu, cuda or cuda:N; there is {here}")


def choose(
    population: Population,
    model: nn.Module,
    local: LocalTraining,
    device: torch.device,
    executor: str = "auto",
    precision: str = "float32",
    batch: int | None = None,
    at_most: int | None = None,
) -> Engine:
    """Return the executor that is asked for, or for ``auto`` the quicker one: on a CPU one client at a time, on a GPU many.

    A model or local training that cannot be batched is trained one client at a time; one warning says why.

    Args:
        population: what is trained on; a few of its examples are tried.
        model: the architecture.
        local: local training.
        device: where to compute.
        executor: auto, one_at_a_time or batched.
        precision: float32 or bfloat16.
        batch: clients at once; None takes as many as a share of the memory holds.
        at_most: the largest batch that None may come to; None is N.

    Raises:
        ConfigError: a name or a number that is not possible.
    """
    if executor not in ("auto", "one_at_a_time", "batched"):
        raise ConfigError(f"engine.executor must be auto, one_at_a_time or batched; got {executor}")
    if precision not in PRECISIONS:
        raise ConfigError(f"engine.precision must be {' or '.join(PRECISIONS)}; got {precision}")
    if batch is not None and (not isinstance(batch, int) or isinstance(batch, bool) or batch < 1):
        raise ConfigError(f"engine.batch must be an integer >= 1, or null; got {batch}")
    asked = "as asked"
    if executor == "auto":
        asked = f"auto: quicker on a {'GPU' if device.type == 'cuda' else 'CPU'}"
        executor = "batched" if device.type == "cuda" else "one_at_a_time"
    if executor == "one_at_a_time":
        return _alone(OneAtATime(model, device, PRECISIONS[precision]), asked)
    x, y = _few(population.dataset)
    batched = Batched(model, device, PRECISIONS[precision])
    exact = batched if precision == "float32" else Batched(model, device)  # mixed examples can hide in coarse numbers
    reason = obstacle(exact, local, model, x, y) or obstacle(batched, local, model, x, y)
    if reason is not None:
        logger.warning("clients train one at a time, because they cannot be batched: %s", reason)
        return _alone(batched.alone, f"they cannot be batched: {reason}")
    client_bytes = _client_bytes(batched, local, x, int(population.num_examples.max()))
    batched.batch = batch or max(1, min(at_most or len(population), _budget(device) // client_bytes))
    return Engine(batched, "batched", asked, device, batched.batch, client_bytes)


def _alone(executor: OneAtATime, why: str) -> Engine:
    layout = executor.layout
    client_bytes = 2 * layout.size() * layout.dtype().itemsize  # parameters, gradients
    return Engine(executor, "one_at_a_time", why, executor.device, 1, client_bytes)


def _client_bytes(batched: Batched, local: LocalTraining, x: Tensor, examples: int) -> int:
    """Return about how much memory one client of a batch takes.

    Four vectors [d]: parameters, gradients, what local training remembers, and one that is on its way; and what the backward
    pass needs of the largest batch, twice, because it makes a gradient of each.
    """
    layout, saved = batched.layout, 0
    weights = {parameter.untyped_storage().data_ptr() for parameter in batched.module.parameters()}

    def count(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += tensor.nbytes * (tensor.untyped_storage().data_ptr() not in weights)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        batched.module.train()(x.to(batched.device))
    largest = max(len(rows) for rows in local.batches(examples, torch.Generator()))
    return 4 * layout.size() * layout.dtype().itemsize + 2 * largest * saved // len(x)


def _budget(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory) // GPU_SHARE
    return CPU_BUDGET


def _few(dataset: Dataset) -> tuple[Tensor, Tensor]:
    """Return the examples of the trial: the first rows of the training set, again from the start if there are too few."""
    rows = np.arange(sum(SIZES)) % len(dataset.y_train)
    return dataset.features(dataset.x_train[rows]), torch.from_numpy(dataset.y_train[rows])
