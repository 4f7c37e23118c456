"""What a search found, taken over by the runs of a study."""

from pathlib import Path
from typing import Any

import pytest

from fedagg import ConfigError
from fedagg.study import Study
from fedagg.study.tune import tune
from tests.study.parts import load

HEAD = "strategy,world,attack,local.lr,local.epochs,validation,test_accuracy\n"
TABLE = HEAD + "fedavg,alike,none,0.1,2,0.5,0.4\n" + "fedavg,alike,ipm,0.7,1,0.3,0.2\n" + "median,alike,none,1e-2,1,0.6,0.5\n"
AXES = {"strategy": ["fedavg", "median"], "world": {"alike": {"partition": "iid"}, "skewed": {"partition": "dirichlet"}}}


def study(folder: Path, table: str = TABLE, **keys: Any) -> Study:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tuned.csv").write_text(table)
    return load(folder, **{"axes": AXES, "tuned": "tuned.csv", **keys})


def rates(of: Study) -> dict[tuple[str, ...], list[str]]:
    """Place -> the overrides that set local training, the last of each key."""
    found = {}
    for job in of.jobs():
        found[tuple(job.axes.values())] = [word for word in job.overrides if word.startswith("local.")]
    return found


def test_every_run_takes_what_was_found_in_peace_for_its_place(tmp_path: Path) -> None:
    """The search stood at one world, so that axis does not count."""
    assert rates(study(tmp_path)) == {
        ("fedavg", "alike"): ["local.lr=0.1", "local.epochs=2"],
        ("fedavg", "skewed"): ["local.lr=0.1", "local.epochs=2"],
        ("median", "alike"): ["local.lr=0.01", "local.epochs=1"],
        ("median", "skewed"): ["local.lr=0.01", "local.epochs=1"],
    }


def test_it_wins_over_the_file_and_not_over_the_command_line(tmp_path: Path) -> None:
    read = study(tmp_path, config={"local.lr": 5.0}).with_overrides(["strategy=fedavg", "world=alike", "local.epochs=9"])
    assert rates(read) == {("fedavg", "alike"): ["local.lr=0.1", "local.epochs=9"]}


def test_a_place_that_was_not_searched(tmp_path: Path) -> None:
    searched = TABLE + "fedavg,skewed,none,0.1,2,0.5,0.4\n"
    with pytest.raises(
        ConfigError, match=r"tuned\.csv has no setting for strategy=median, world=skewed; run fedagg tune for it"
    ):
        study(tmp_path, searched).jobs()
    with pytest.raises(ConfigError, match=r"no setting for strategy=fedavg, world=\(no such axis\)"):
        study(tmp_path, searched, axes={"strategy": ["fedavg"]}).jobs()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("a,b\n1,2\n", "is no table of fedagg tune; its first line is a,b"),
        (HEAD + "fedavg,alike\n", "is no table"),
        ("", "cannot be read"),
    ],
)
def test_another_table(table: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        study(tmp_path, table).jobs()


def test_a_table_that_is_not_there_yet(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.csv cannot be read: .*No such file"):
        study(tmp_path, tuned="missing.csv").jobs()


def test_from_a_search_to_the_runs(tmp_path: Path) -> None:
    """A study names the table before it is there; the search does not heed it."""
    pytest.importorskip("optuna")
    keys = {
        "axes": AXES,
        "tune": {"space": {"local.lr": [0.0, 0.5]}, "trials": 2},
        "workers": 1,
        "tuned": "store-tune/tuned.csv",
    }
    read = load(tmp_path, **keys)
    found = {tuple(each.place.values()): each.setting["local.lr"] for each in tune(read, quiet=True)}
    assert set(found.values()) == {0.5}
    assert rates(read) == {place: ["local.lr=0.5"] for place in found}
