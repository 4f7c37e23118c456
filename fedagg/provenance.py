"""What a result depends on besides its config: code, versions, machine; and the final model with its hash."""

from __future__ import annotations

import hashlib
import io
import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fedagg
from fedagg.disk import write_whole
from fedagg.params import KINDS, State

PACKAGES = ("flwr", "torch", "numpy", "ray", "hydra-core", "scikit-learn", "scipy")


def describe_machine(device: str) -> dict[str, Any]:
    """Return ``versions`` and ``hardware`` for the run record."""
    versions = {"python": platform.python_version(), "fedagg": fedagg.__version__, "commit": _commit()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    hardware = {
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
        "gpu": torch.cuda.get_device_name(device) if device.startswith("cuda") and torch.cuda.is_available() else None,
    }
    return {"versions": versions, "hardware": hardware}


@cache
def _commit() -> str | None:
    """Return the commit of the checkout the code runs from, marked when files differ from it; None for an installation.

    Asked once: the code of a process is that of its start, whatever happens to the checkout during a sweep.
    """
    root = Path(fedagg.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=root, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() or None


def parameters_hash(state: State) -> str:
    """Return the SHA-256 of a model's values, parameters and buffers."""
    digest = hashlib.sha256()
    for kind in KINDS:
        digest.update(getattr(state, kind).cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_model(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a state dict for ``torch.load(path, weights_only=True)``; a half-written file never has this name."""
    contents = io.BytesIO()
    torch.save({name: tensor.cpu().clone() for name, tensor in tensors.items()}, contents)
    write_whole(path, contents.getbuffer())
