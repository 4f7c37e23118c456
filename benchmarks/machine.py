"""What a measurement was made on."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import torch


def describe(command: str) -> str:
    """Return one line that names machine, versions, threads and command."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    )
    machine = f"{names[0] if names else platform.processor()}, {len(names) or '?'} cores"
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "flwr"))
    return (
        f"{machine}; Python {platform.python_version()}, {versions}; {torch.get_num_threads()} thread; "
        f"medians with minimum and maximum; `{command}`\n"
    )
