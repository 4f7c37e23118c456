"""Checkpoints: what a run needs to go on after its process died. Written atomically, read without running anybody's code."""

from __future__ import annotations

import hashlib
import io
import logging
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from fedagg.disk import write_whole, writing
from fedagg.errors import ConfigError, FedaggError
from fedagg.saving import decode, decode_rows, encode, encode_rows

logger = logging.getLogger(__name__)

MAGIC = "fedagg-checkpoint"
FORMAT = 1
REFUSED = "refused.txt"
HEADER = re.compile(rf"{MAGIC} (\d+) ([0-9a-f]{{64}}) (\d+)\n")


@dataclass
class Checkpoint:
    """A run between two rounds. Every draw of the run has an address in the seed tree, so the round is all a generator needs.

    Args:
        about: what run it is of, in words; another run does not go on from it.
        round: the last finished round.
        arrays: the global model after it, a Flower ``ArrayRecord``.
        rows: the metrics so far, as the loop keeps them.
        strategy: state of the strategy.
        grid: state of the Grids, the adversary's and the clients' among it.
        callbacks: state of the callbacks that have any, in their order.
    """

    about: str
    round: int
    arrays: Any
    rows: list[Any]
    strategy: Any
    grid: Any
    callbacks: list[Any]


class Checkpoints:
    """The checkpoints of one run, in a folder of their own.

    A file holds one line (format, SHA-256 and length of what follows) and a ``torch.save`` of tensors and plain containers,
    which is read with ``weights_only=True``. It gets its name once it is whole and on the disk.

    Args:
        folder: where; made when the first one is written.
        every: write one after every so many rounds; None goes by the clock.
        seconds: without ``every``: write one after a round if so many seconds have passed since the last.
        keep: how many of the newest stay.

    Example:
        >>> import tempfile
        >>> checkpoints = Checkpoints(tempfile.mkdtemp(), every=10)
        >>> # fedagg.run(grid, strategy, model, rounds=100, checkpoints=checkpoints)
        >>> # in another process, after a crash: the same line goes on after the last multiple of ten
    """

    def __init__(self, folder: str | Path, every: int | None = None, seconds: float = 10.0, keep: int = 2) -> None:
        if every is not None and not _is_count(every):
            raise ConfigError(f"checkpoint.every must be an integer >= 1, or null; got {every}")
        if not _is_count(keep):
            raise ConfigError(f"checkpoint.keep must be an integer >= 1; got {keep}")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not (math.isfinite(seconds) and seconds >= 0):
            raise ConfigError(f"checkpoint.seconds must be a number >= 0; got {seconds}")
        self.folder, self.every, self.seconds, self.keep = Path(folder), every, seconds, keep
        self._last = time.monotonic()

    def due(self, round: int) -> bool:
        """Whether one is to be written after this round."""
        if self.every is not None:
            return round % self.every == 0
        return time.monotonic() - self._last >= self.seconds

    def write(self, checkpoint: Checkpoint) -> None:
        """Write one, and remove those older than the newest ``keep`` and what a killed process had half written.

        Raises:
            Unsavable: some state is of a kind that cannot be read back without running code.
            FedaggError: the disk is full, or cannot be written; older checkpoints are as they were.
        """
        payload, content = io.BytesIO(), {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
        content["rows"] = encode_rows(checkpoint.rows)
        torch.save({name: encode(value, name) for name, value in content.items()}, payload)
        body = payload.getbuffer()
        header = f"{MAGIC} {FORMAT} {hashlib.sha256(body).hexdigest()} {len(body)}\n"
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / f"round-{checkpoint.round:08d}.ckpt", header, body)
        self._last = time.monotonic()
        for old in (*self._files()[self.keep :], *self._torn()):
            old.unlink(missing_ok=True)

    def refuse(self, reason: str) -> None:
        """Say why this run cannot be saved, now in a warning and to whoever wants to go on with it later."""
        logger.warning("no checkpoints, so this run cannot be resumed: %s", reason)
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / REFUSED, f"{reason}\n")

    @property
    def refused(self) -> str | None:
        """Why the run cannot be saved, None where it can."""
        file = self.folder / REFUSED
        return file.read_text(encoding="utf-8").strip() if file.exists() else None

    def latest(self) -> Checkpoint | None:
        """Return the newest checkpoint that is whole, None where there is none yet; damaged ones are named in a warning.

        Raises:
            FedaggError: there are checkpoints, and none can be used; or the run could not be saved.
        """
        if self.refused:
            raise FedaggError(f"the run of {self.folder} cannot be resumed: {self.refused}. Start over in a new directory")
        problems = []
        for path in self._files():
            try:
                found = _read(path)
            except (FedaggError, OSError) as error:
                problems.append(str(error))
                continue
            for problem in problems:
                logger.warning("%s; going on from %s", problem, path.name)
            return found
        if problems:
            raise FedaggError(f"no checkpoint can be used: {'; '.join(problems)}. Start over in a new directory")
        return None

    def any(self) -> bool:
        """Whether there are checkpoints, usable or not."""
        return bool(self._files())

    def clear(self) -> None:
        """Remove all of them, once the run is complete."""
        for path in (*self._files(), *self._torn(), self.folder / REFUSED):
            path.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _files(self) -> list[Path]:
        """Return the files, the newest first."""
        return sorted(self.folder.glob("round-*.ckpt"), reverse=True)

    def _torn(self) -> Iterator[Path]:
        return self.folder.glob(".round-*.ckpt.*")


def _read(path: Path) -> Checkpoint:
    data = path.read_bytes()
    end = data.find(b"\n", 0, 256) + 1
    header = HEADER.fullmatch(data[:end].decode("ascii", errors="replace"))
    if header is None:
        raise FedaggError(f"{path} is not a checkpoint of fedagg")
    version, digest, length = int(header[1]), header[2], int(header[3])
    if version != FORMAT:
        raise FedaggError(f"{path} has format {version}; this version reads format {FORMAT}")
    body = memoryview(data)[end:]
    if len(body) != length:
        raise FedaggError(f"{path} has {len(body)} bytes of contents instead of {length}")
    if hashlib.sha256(body).hexdigest() != digest:
        raise FedaggError(f"{path} is damaged: its contents do not match their SHA-256")
    try:
        content = {name: decode(value) for name, value in torch.load(io.BytesIO(body), weights_only=True).items()}
        content["rows"] = decode_rows(content["rows"])
        return Checkpoint(**content)
    except Exception as error:
        raise FedaggError(f"{path} does not hold the state of a run: {type(error).__name__}: {error}") from error


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
