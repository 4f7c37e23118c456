"""Synthetic run directories: learning curves with the shape of real ones, in a moment."""

import os
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from fedagg.report import canvas
from fedagg.results import RunDirectory

DOT = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)  # a PNG of one pixel


def write_run(
    path: Path, strategy: str = "mean", attack: str = "none", seed: int = 0, values: Iterable[float] = (0.5,), **more: Any
):
    """A run whose accuracy takes ``values`` in rounds 0, 1, ...; config, label, status, error and fields may be given."""
    values = list(values)
    config = {"seed": seed, "rounds": len(values) - 1, "strategy": {"_target_": strategy}, "attack": {"method": attack}}
    config |= more.get("config", {})
    label = {"strategy": strategy, "attack": attack, "data": "digits", "model": "mlp", "partition": "dirichlet"}
    fields = {"rounds": len(values) - 1} | more.get("fields", {})
    run = RunDirectory.create(path, config, label | more.get("label", {}), seed, **fields)
    for number, value in enumerate(values):
        run.append([(number, "test", None, "accuracy", value), (number, "test", None, "loss", 2.3 - 2 * value)])
    run.update(rounds_done=len(values) - 1)
    if more.get("status", "completed") != "running":
        run.finish(more.get("status", "completed"), more.get("error"))
    return run


def curve(strategy: str, attack: str, seed: int, rounds: int) -> np.ndarray:
    """An accuracy that climbs; under an attack to where the strategy can hold it."""
    draw = np.random.default_rng([seed, *(strategy + attack).encode()])
    fixed = np.random.default_rng([*(strategy + attack).encode()])
    top = 0.93 + 0.04 * fixed.random() if attack == "none" else 0.12 + 0.82 * fixed.beta(2, 1.2)
    speed = 0.1 + 0.25 * fixed.random()
    steps = np.arange(rounds + 1)
    values = 0.1 + (top - 0.1) * (1 - np.exp(-speed * steps)) + draw.normal(0, 0.012, rounds + 1) + draw.normal(0, 0.015)
    return np.clip(values, 0, 1)


def write_study(
    root: Path, strategies: Iterable[str], attacks: Iterable[str], seeds: int = 3, rounds: int = 30, **more: Any
) -> Path:
    """All combinations."""
    for strategy in strategies:
        for attack in list(attacks):
            for seed in range(seeds):
                write_run(
                    root / f"{strategy}-{attack}-{seed}", strategy, attack, seed, curve(strategy, attack, seed, rounds), **more
                )
    return root


@pytest.fixture(scope="session", autouse=True)
def _quick_disk() -> Iterator[None]:
    """Wait for no disk: what reaches the operating system is what tests can see."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session", name="make_run")
def _make_run() -> Callable[..., RunDirectory]:
    return write_run


@pytest.fixture(scope="session", name="make_study")
def _make_study() -> Callable[..., Path]:
    return write_study


@pytest.fixture
def no_pdf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures as PNG only: embedding fonts takes long."""

    def save(figure: Figure, stem: Path) -> list[Path]:
        png = stem.with_name(f"{stem.name}.png")
        figure.savefig(png, dpi=200)
        return [png]

    monkeypatch.setattr(canvas, "save", save)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn, but a dot stands for them: encoding takes most of the time."""

    def save(_: Any, stem: Path) -> list[Path]:
        files = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "pdf")]
        for file in files:
            file.write_bytes(DOT)
        return files

    monkeypatch.setattr(canvas, "save", save)
