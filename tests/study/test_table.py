"""The table of a study as pandas reads it: every value to the bit, every label as it was."""

from pathlib import Path

import pytest

import fedagg
from fedagg import ConfigError
from fedagg.study import load_study, write_table
from fedagg.study.store import Entry, Store

pd = pytest.importorskip("pandas")
VALUES = [
    "0.1",
    "1e-05",
    "0.30000000000000004",
    "2.2250738585072014e-308",
    "1.7976931348623157e+308",
    "inf",
    "-inf",
    "nan",
    "-0.0",
]
LABELS = ["a,b", 'say "c"', "null", "", "1.50", "nan", "ü\nv", "00"]


def store_of(folder: Path, axes: list[dict[str, str]]) -> Store:
    """One complete run per place; the values are hard to read right."""
    store, jobs = Store(folder), []
    for number, place in enumerate(axes):
        run = f"{number:012x}"
        (folder / run).mkdir(parents=True)
        (folder / run / "run.json").write_text('{"format": 1, "status": "completed"}')
        lines = [f"{i},client,{i if i else ''},{'NA' if i else 'accuracy'},{value}" for i, value in enumerate(VALUES)]
        (folder / run / "metrics.csv").write_text("\n".join(["round,split,client,metric,value", *lines, ""]))
        jobs.append(Entry(run, place, number, 8, ""))
    store.enter("mine", "", {}, jobs)
    return store


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Store:
    return store_of(tmp_path / "store", [{"world": label} for label in LABELS])


def test_columns_and_values(store: Store) -> None:
    frame = load_study(store.folder)
    assert list(frame.columns) == ["run", "seed", "world", "round", "split", "client", "metric", "value"]
    assert len(frame) == len(LABELS) * len(VALUES)
    for name in ("seed", "round"):
        assert frame[name].dtype == "int64"
    assert frame["client"].dtype == "Int64"
    assert frame["value"].dtype == "float64"
    for name in ("run", "world", "split", "metric"):
        assert all(type(text) is str for text in frame[name])
    first = frame[frame["seed"] == 0]
    assert [repr(value) for value in first["value"].tolist()] == VALUES
    assert first["client"].isna().tolist() == [True] + 8 * [False]
    assert first["client"].tolist()[1:] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert first["metric"].tolist() == ["accuracy"] + 8 * ["NA"]
    assert frame["run"].unique().tolist() == [f"{number:012x}" for number in range(len(LABELS))]  # not 0 to 7


def test_labels(store: Store) -> None:
    assert load_study(store.folder)["world"].unique().tolist() == LABELS


def test_the_other_file(store: Store) -> None:
    pytest.importorskip("pyarrow")
    files = write_table(store)
    assert [file.name for file in files] == ["results.csv", "results.parquet"]
    pd.testing.assert_frame_equal(pd.read_parquet(files[1]), load_study(store.folder), check_exact=True)
    assert sorted(path.name for path in store.folder.iterdir() if path.is_file()) == [
        "results.csv",
        "results.parquet",
        "study.json",
    ]


def test_places_on_different_axes(tmp_path: Path) -> None:
    """Where a job does not stand on an axis, its field is empty."""
    store = store_of(tmp_path / "store", [{"a": "1"}, {"b": "2", "a": "3"}])
    frame = load_study(store.folder)
    assert list(frame.columns)[:4] == ["run", "seed", "a", "b"]
    assert frame[["a", "b"]].drop_duplicates().to_numpy().tolist() == [["1", ""], ["3", "2"]]


def test_only_what_is_complete(store: Store) -> None:
    (store.folder / f"{3:012x}" / "run.json").write_text('{"format": 1, "status": "running"}')
    assert sorted(load_study(store.folder)["seed"].unique()) == [0, 1, 2, 4, 5, 6, 7]


def test_nothing_is_complete(tmp_path: Path) -> None:
    Store(tmp_path).enter("mine", "", {}, [Entry("a", {"x": "1"}, 0, 2, "")])
    frame = load_study(tmp_path)
    assert (len(frame), list(frame.columns)[:3]) == (0, ["run", "seed", "x"])


def test_by_the_name_of_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "experiments" / "mine"
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text("question: Well?")
    with pytest.raises(ConfigError, match=r"the study mine has not been run: .*runs/mine\. Run fedagg study mine"):
        load_study("mine")
    store_of(tmp_path / "runs" / "mine", [{}])
    assert len(fedagg.load_study("mine")) == len(load_study(folder)) == len(VALUES)
    with pytest.raises(ConfigError, match=r"no study mime \(did you mean mine\?\)"):
        load_study("mime")


def test_without_pandas(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedagg.study.table.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"returns a pandas data frame: pip install 'fedagg\[studies\]'"):
        load_study(store.folder)
    assert [file.name for file in write_table(store)] == ["results.csv"]
