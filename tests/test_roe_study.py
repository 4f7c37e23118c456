"""The study of certified elections, from the command to its table, with a few clients."""

import csv
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import experiments.roe.__main__ as roe


def test_a_small_world_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(roe.DATA, "digits", {**roe.DATA["digits"], "clients": 24, "groups": 4, "tested": 40})
    monkeypatch.setattr(roe, "ProcessPoolExecutor", lambda workers: ThreadPoolExecutor(1))  # sees the smaller world
    command = ["roe", "--data", "digits", "--seeds", "1", "--most", "2", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    roe.main()
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(row["election"], row["what"], int(row["malicious"])): float(row["mean"]) for row in rows}
    names = ("DPA", "DPA+ROE", "FA", "FA+ROE")
    assert set(found) == {(name, what, r) for name in names for what in ("certified", "attacked") for r in range(3)}
    for name in names:
        proof, fact = ([found[name, what, r] for r in range(3)] for what in ("certified", "attacked"))
        assert proof[0] == fact[0] > 0.5
        assert proof == sorted(proof, reverse=True)
        assert fact == sorted(fact, reverse=True)
        assert all(low <= left for low, left in zip(proof, fact, strict=True))
    assert (tmp_path / "certified.png").stat().st_size > 1000
