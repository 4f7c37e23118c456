"""One tidy table of a whole study: ``run, seed, axes..., round, split, client, metric, value``."""

from __future__ import annotations

import csv
import io
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedagg.disk import write_whole
from fedagg.errors import ConfigError
from fedagg.results import METRICS_HEADER
from fedagg.study.store import Store

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

TABLE = "results.csv"


def write_table(store: Store) -> list[Path]:
    """Write what the completed runs measured: ``results.csv``, and ``results.parquet`` where pandas and pyarrow are installed.

    Rows stand in the order of the jobs, so equal studies give equal bytes, however often they were stopped.

    Returns:
        the files.
    """
    entries = store.entries()
    axes = list(dict.fromkeys(axis for entry in entries for axis in entry.axes))
    parts = [_line("run", "seed", *axes, *METRICS_HEADER)]
    for entry in entries:
        if store.state(entry.run).status == "completed":
            place = _line(entry.run, entry.seed, *(entry.axes.get(axis, "") for axis in axes)).removesuffix("\n")
            rows = (store.directory(entry.run) / "metrics.csv").read_text(encoding="utf-8").splitlines()[1:]
            parts += [f"{place},{row}\n" for row in rows]
    files = [store.folder / TABLE]
    write_whole(files[0], "".join(parts))
    if find_spec("pandas") and find_spec("pyarrow"):
        files.append(files[0].with_suffix(".parquet"))
        write_whole(files[-1], _frame(files[0]).to_parquet(index=False))
    return files


def load_study(path: str | Path) -> pd.DataFrame:
    """Return the tidy table of a study as a pandas data frame, as it stands now.

    Args:
        path: the store of the study, or the study as ``fedagg study`` takes it.

    Raises:
        ConfigError: there is no such study, or pandas is missing; ``results.csv`` needs nothing from here.

    Example:
        >>> frame = load_study("runs/quickstart")                                            # doctest: +SKIP
        >>> test = frame.query("split == 'test' and metric == 'accuracy'")                   # doctest: +SKIP
        >>> test[test["round"] == 30].groupby(["strategy", "attack"]).value.mean()           # doctest: +SKIP
    """
    if find_spec("pandas") is None:
        raise ConfigError("load_study returns a pandas data frame: pip install 'fedagg[studies]'")
    store = find_store(path)
    return _frame(write_table(store)[0])


def find_store(path: str | Path) -> Store:
    """Return the store in a folder, or that of a study named as for ``fedagg study``.

    Raises:
        ConfigError: there is neither.
    """
    from fedagg.study.plan import Study

    store = Store(Path(path))
    if not store.exists():
        store = Store(Study.load(path).store)
    if not store.exists():
        raise ConfigError(f"the study {path} has not been run: there is nothing in {store.folder}. Run fedagg study {path}")
    return store


def _frame(file: Path) -> pd.DataFrame:
    import pandas as pd

    names = pd.read_csv(file, nrows=0).columns
    types: dict[str, Any] = {name: "str" for name in names if name not in ("seed", "round", "client")}
    frame = pd.read_csv(file, dtype={**types, "client": "Int64"}, keep_default_na=False, na_values={"client": [""]})
    frame["value"] = [float(text) for text in frame["value"]]  # to the last bit, which pandas' own parser may miss
    return frame


def _line(*fields: object) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(fields)
    return text.getvalue()
