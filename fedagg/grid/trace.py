"""Who takes part when, from a file: availability that somebody measured, or made up."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedagg.errors import ConfigError

Table = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Trace:
    """Client i can be reached in round r if row r, column i of a table says so. After its last row the table begins again.

    Args:
        file: a ``.csv`` file with a line for each round, in it 0 or 1 for each client, separated by commas; lines that begin
            with # are comments. Or a ``.npy`` file, a boolean array [rounds, clients], or one of zeros and ones.
        num_clients: use the first so many columns; None uses all.

    Raises:
        ConfigError: the file does not exist, is not of this form (naming line and column), or has fewer columns.
    """

    file: str
    num_clients: int | None = None

    def __post_init__(self) -> None:
        _ = self._table

    @cached_property
    def _table(self) -> Tensor:
        path = Path(self.file).expanduser()
        if path.suffix not in _READERS:
            raise ConfigError(f"a trace is a .csv or a .npy file; got {self.file}")
        if not path.is_file():
            raise ConfigError(f"there is no trace at {path.resolve()}; participation.file must name a .csv or a .npy file")
        table = _READERS[path.suffix](path)
        if self.num_clients is not None and table.shape[1] < self.num_clients:
            raise ConfigError(
                f"{path} has {table.shape[1]} columns, for as many clients; the population has {self.num_clients}. "
                f"Lower population to {table.shape[1]} or take a longer trace"
            )
        return torch.from_numpy(table[:, : self.num_clients].copy())

    @property
    def reachability(self) -> Tensor:
        """[N] float64, the share of rounds in which each client is there; 0 for one that never is."""
        return self._table.double().mean(dim=0)

    def available(self, round: int) -> Tensor:
        """Return [N] bool."""
        return self._table[(round - 1) % len(self._table)].clone()

    def state_dict(self) -> dict[str, str]:
        """Return what the table is known by, so that a run does not go on with another one."""
        return {"sha256": hashlib.sha256(self._table.numpy().tobytes()).hexdigest()}

    def load_state_dict(self, state: Mapping[str, str]) -> None:
        """Raise ``ConfigError`` unless ``state`` is that of the same table."""
        if state != self.state_dict():
            raise ConfigError(f"{self.file} has changed since the run began; put back what it was, or begin a new run")


def _read_csv(path: Path) -> Table:
    rows: list[Table] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("#"):
            continue
        row = _parse(path, number, line)
        if rows and len(row) != len(rows[0]):
            raise ConfigError(f"{path}, line {number}: {len(row)} columns, where the lines before have {len(rows[0])}")
        rows.append(row)
    if not rows:
        raise ConfigError(f"{path} holds no line of zeros and ones, one for each client")
    return np.stack(rows)


def _parse(path: Path, number: int, line: str) -> Table:
    """Return the zeros and ones of a line: a digit and a comma in turn, once spaces are gone."""
    text = np.frombuffer((line.replace(" ", "") + ",").encode(), np.uint8)
    pairs = text[: len(text) // 2 * 2].reshape(-1, 2)
    if len(text) % 2 == 0 and np.isin(pairs[:, 0], (ord("0"), ord("1"))).all() and (pairs[:, 1] == ord(",")).all():
        return np.asarray(pairs[:, 0] == ord("1"))
    cells = line.split(",")
    column = next(i for i, cell in enumerate(cells) if cell.replace(" ", "") not in ("0", "1"))
    raise ConfigError(f"{path}, line {number}, column {column + 1}: must be 0 or 1; got {cells[column].strip()!r}")


def _read_npy(path: Path) -> Table:
    try:
        table = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ConfigError(f"{path} is no array that NumPy can read without running code: {error}") from error
    if table.ndim != 2 or 0 in table.shape:
        raise ConfigError(f"{path} must hold an array [rounds, clients]; got shape {list(table.shape)}")
    wrong = np.argwhere((table != 0) & (table != 1))
    if len(wrong):
        row, column = wrong[0]
        raise ConfigError(f"{path}[{row}, {column}] must be 0 or 1; got {table[row, column]}")
    return np.asarray(table, dtype=np.bool_)


_READERS = {".csv": _read_csv, ".npy": _read_npy}
