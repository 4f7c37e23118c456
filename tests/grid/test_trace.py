"""Traces: what the file says, and what is said about files that say nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fedagg import Availability, Checkpoints, ConfigError, LocalGrid, Strategy, run
from fedagg.grid import Trace

TABLE = [[1, 0, 1], [0, 0, 1], [1, 1, 0], [1, 0, 0]]


def csv(folder: Path, text: str) -> str:
    file = folder / "trace.csv"
    file.write_text(text)
    return str(file)


@pytest.fixture(params=["csv", "npy of bool", "npy of float"], name="file")
def _file(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "csv":
        return csv(tmp_path, "# round by round\n1,0,1\n0, 0, 1\n# later\n1,1,0\r\n1,0,0")
    np.save(tmp_path / "trace.npy", np.array(TABLE, bool if request.param == "npy of bool" else float))
    return str(tmp_path / "trace.npy")


def test_rows_are_rounds_and_begin_again(file: str) -> None:
    trace = Trace(file)
    for round in (1, 2, 3, 4, 5, 8, 401):
        assert trace.available(round).tolist() == [bool(cell) for cell in TABLE[(round - 1) % 4]]
    assert trace.available(1).dtype == torch.bool
    assert trace.reachability.tolist() == [0.75, 0.25, 0.5]


def test_the_first_columns_are_used(file: str) -> None:
    assert Trace(file, num_clients=2).available(3).tolist() == [True, True]
    with pytest.raises(ConfigError, match="has 3 columns, for as many clients; the population has 5"):
        Trace(file, num_clients=5)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1,0\n1,2\n", r"line 2, column 2: must be 0 or 1; got '2'"),
        ("client,shift\n1,0\n", r"line 1, column 1: must be 0 or 1; got 'client'"),
        ("1,0\n\n0,1\n", r"line 2, column 1: must be 0 or 1; got ''"),
        ("1,0,\n", r"line 1, column 3: must be 0 or 1; got ''"),
        ("1;0\n", r"line 1, column 1: must be 0 or 1; got '1;0'"),
        ("1,01\n", r"line 1, column 2: must be 0 or 1; got '01'"),
        ("1,0\n1,0,1\n", "line 2: 3 columns, where the lines before have 2"),
        ("# nothing\n", "holds no line of zeros and ones"),
        ("", "holds no line of zeros and ones"),
    ],
)
def test_what_is_no_csv_trace(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(ConfigError, match=found):
        Trace(csv(tmp_path, text))


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.ones(4), r"array \[rounds, clients\]; got shape \[4\]"),
        (np.ones((0, 3)), r"got shape \[0, 3\]"),
        (np.array([[0, 1], [0, 7]]), r"\[1, 1\] must be 0 or 1; got 7"),
        (np.array([[np.nan]]), r"\[0, 0\] must be 0 or 1; got nan"),
        (np.array([[{}]]), "without running code"),
    ],
)
def test_what_is_no_npy_trace(tmp_path: Path, array: np.ndarray, found: str) -> None:
    np.save(tmp_path / "trace.npy", array)
    with pytest.raises(ConfigError, match=found):
        Trace(str(tmp_path / "trace.npy"))


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no trace at .*gone\.csv; participation\.file must name"):
        Trace(str(tmp_path / "gone.csv"))
    with pytest.raises(ConfigError, match=r"a \.csv or a \.npy file; got trace\.txt"):
        Trace("trace.txt")


def test_a_run_does_not_go_on_with_another_trace(tmp_path: Path, grid: LocalGrid, model: nn.Module) -> None:
    file = csv(tmp_path, "1,1,0,0,0,0\n0,0,0,0,1,1\n1,1,1,1,1,1\n")

    def go(rounds: int, folder: str) -> list[tuple[int, float]]:
        world, saved = Availability(grid, Trace(file)), Checkpoints(tmp_path / folder, every=1)
        return run(world, Strategy(), model, rounds, checkpoints=saved).series("clients", "server")

    go(2, "one")
    assert go(4, "one") == [(1, 2.0), (2, 2.0), (3, 6.0), (4, 2.0)]
    go(2, "other")
    csv(tmp_path, "1,1,0,0,0,0\n0,0,0,0,1,1\n1,1,1,1,1,0\n")
    with pytest.raises(ConfigError, match="has changed since the run began"):
        go(4, "other")
