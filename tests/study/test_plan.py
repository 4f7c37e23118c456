"""From a study file and the command line to jobs, enumerated by hand; and every way to get it wrong."""

import re
from pathlib import Path

import pytest

from fedagg import ConfigError
from fedagg.study import Study
from fedagg.study.plan import find

FULL = """\
question: Does it?
config: {rounds: 2, local: {lr: 0.1, epochs: 2}}
axes:
  strategy: [fedavg, krum]
  world:
    alike: {partition: iid}
    skewed: {partition: dirichlet, partition.alpha: 0.1}
    as_it_is:
skip: [{strategy: krum, world: skewed}]
seeds: 2
report: {metric: loss, protocol: "last:5"}
workers: 3
launcher: ray
address: auto
store: somewhere
"""
COMMON = ["rounds=2", "local.lr=0.1", "local.epochs=2"]


def study(folder: Path, text: str = FULL) -> Study:
    folder.mkdir(exist_ok=True)
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    return Study.load(folder)


def titles(of: Study) -> list[str]:
    return [job.title for job in of.jobs()]


def overrides(of: Study) -> list[list[str]]:
    return [list(job.overrides) for job in of.jobs()]


# What a file says


def test_a_grid_with_zipped_points_and_a_hole(tmp_path: Path) -> None:
    jobs = study(tmp_path).jobs()
    assert [(job.axes, job.seed, list(job.overrides)) for job in jobs] == [
        ({"strategy": strategy, "world": world}, seed, [*COMMON, f"strategy={strategy}", *settings, f"seed={seed}"])
        for strategy, world, settings in [
            ("fedavg", "alike", ["partition=iid"]),
            ("fedavg", "skewed", ["partition=dirichlet", "partition.alpha=0.1"]),
            ("fedavg", "as_it_is", []),
            ("krum", "alike", ["partition=iid"]),
            ("krum", "as_it_is", []),
        ]
        for seed in (0, 1)
    ]


def test_everything_else_a_file_says(tmp_path: Path) -> None:
    read = study(tmp_path / "mine")
    assert (read.name, read.folder, read.question) == ("mine", tmp_path / "mine", "Does it?")
    assert read.report == {"metric": "loss", "protocol": "last:5"}
    assert (read.workers, read.launcher, read.address, read.store) == (3, "ray", "auto", Path("somewhere"))


def test_what_a_file_need_not_say(tmp_path: Path) -> None:
    read = study(tmp_path / "mine", "question: Well?")
    assert (read.workers, read.launcher, read.address, read.store) == (None, "local", None, Path("runs/mine"))
    assert overrides(read) == [["seed=0"]]


@pytest.mark.parametrize(("said", "seeds"), [("3", [0, 1, 2]), ("[7, 3]", [7, 3]), ("1", [0])])
def test_seeds(tmp_path: Path, said: str, seeds: list[int]) -> None:
    assert [job.seed for job in study(tmp_path, f"seeds: {said}").jobs()] == seeds


def test_listed_runs(tmp_path: Path) -> None:
    """With every point of the axes; equal ones once."""
    read = study(
        tmp_path,
        "axes: {strategy: [mean, krum]}\nruns: [{local.lr: 0.1}, {local: {lr: 0.3}, rounds: 6}, {local.lr: 0.1}]",
    )
    assert titles(read) == [
        "strategy=mean listed=local.lr=0.1 seed=0",
        "strategy=mean listed=local.lr=0.3,rounds=6 seed=0",
        "strategy=krum listed=local.lr=0.1 seed=0",
        "strategy=krum listed=local.lr=0.3,rounds=6 seed=0",
    ]
    assert overrides(read)[3] == ["strategy=krum", "local.lr=0.3", "rounds=6", "seed=0"]


def test_later_keys_win(tmp_path: Path) -> None:
    """A point beats the common config, a listed run beats both."""
    read = study(tmp_path, "config: {rounds: 1}\naxes: {a: {x: {rounds: 2}, y: }}\nruns: [{rounds: 3}, {f: 1}]")
    assert overrides(read) == [
        ["rounds=3", "seed=0"],
        ["rounds=2", "f=1", "seed=0"],
        ["rounds=3", "seed=0"],
        ["rounds=1", "f=1", "seed=0"],
    ]


def test_all_choices_of_a_group(tmp_path: Path) -> None:
    """Those beside the file as well, and no part of others."""
    (tmp_path / "faults").mkdir()
    for name in ("mine", "_part"):
        (tmp_path / "faults" / f"{name}.yaml").touch()
    read = study(tmp_path, "axes: {faults: 'glob(*, exclude=n*)'}")
    assert [job.axes["faults"] for job in read.jobs()] == ["lossy", "mine", "stragglers"]


def test_values_are_read_as_in_other_configs(tmp_path: Path) -> None:
    """By itself YAML 1.1 sees text in the first and a date in the third."""
    read = study(tmp_path, "config: {local.lr: 1e-3, a: text, b: 2024-01-01, c: 12 30, d: null, e: true, f: '1', g: [1, x y]}")
    expected = [
        "local.lr=0.001",
        "a=text",
        "b='2024-01-01'",
        "c='12 30'",
        "d=null",
        "e=true",
        "f='1'",
        "g=[1,'x y']",
        "seed=0",
    ]
    assert overrides(read) == [expected]


def test_labels_of_values(tmp_path: Path) -> None:
    """Numbers, booleans and null are called the same on the axis, in ``skip`` and on the command line."""
    read = study(
        tmp_path,
        "axes: {a: [true, false], b: [null, 1e-5, [1, 2]], c: {true: {f: 1}, 0.5: {f: 2}}}\n"
        "skip: [{a: true, b: null}, {b: 1e-5}, {c: 0.5}]",
    )
    assert titles(read) == ["a=true b=[1, 2] c=true seed=0", "a=false b=null c=true seed=0", "a=false b=[1, 2] c=true seed=0"]
    assert titles(read.with_overrides(["a=true", "b=1e-4", "c=true,0.5"])) == ["a=true b=0.0001 c=true seed=0"]


# The command line


def changed(folder: Path, *words: str) -> Study:
    return study(folder, FULL.replace("seeds: 2", "seeds: 1")).with_overrides(words)


def test_another_axis(tmp_path: Path) -> None:
    """The skipped cell names a strategy that is gone: nothing is skipped."""
    assert titles(changed(tmp_path, "strategy=median,mean", "world=skewed")) == [
        "strategy=median world=skewed seed=0",
        "strategy=mean world=skewed seed=0",
    ]


def test_one_value_for_an_axis_keeps_its_column(tmp_path: Path) -> None:
    assert titles(changed(tmp_path, "strategy=median", "world=as_it_is")) == ["strategy=median world=as_it_is seed=0"]


def test_a_name_means_the_point_that_bears_it(tmp_path: Path) -> None:
    """Also where it is that of a choice too, and every point is a choice."""
    read = study(tmp_path, "axes: {participation: {bernoulli: {participation: class_biased}}}")
    (job,) = read.with_overrides(["participation=bernoulli"]).jobs()
    assert job.axes == {"participation": "bernoulli"}
    assert "participation=class_biased" in job.overrides
    other = read.with_overrides(["participation=bernoulli,cyclic"]).axes["participation"]
    assert other == {"bernoulli": {"participation": "class_biased"}, "cyclic": {"participation": "cyclic"}}


def test_named_points_are_only_narrowed(tmp_path: Path) -> None:
    assert titles(changed(tmp_path, "strategy=fedavg", "world=as_it_is,alike")) == [
        "strategy=fedavg world=as_it_is seed=0",
        "strategy=fedavg world=alike seed=0",
    ]
    with pytest.raises(
        ConfigError, match=r"axis world has no skewd \(did you mean skewed\?\); it has alike, skewed, as_it_is"
    ):
        changed(tmp_path, "world=skewd")


def test_a_new_axis_and_seeds(tmp_path: Path) -> None:
    read = changed(tmp_path, "strategy=krum", "world=alike", "attack=none,alie", "seed=5,4")
    assert titles(read) == [
        f"strategy=krum world=alike attack={attack} seed={seed}" for attack in ("none", "alie") for seed in (5, 4)
    ]
    assert overrides(read)[2] == [*COMMON, "strategy=krum", "partition=iid", "attack=alie", "seed=5"]
    assert [job.seed for job in changed(tmp_path, "strategy=mean", "world=alike", "seed=range(2,5)").jobs()] == [2, 3, 4]


def test_a_glob(tmp_path: Path) -> None:
    assert [job.axes["faults"] for job in changed(tmp_path, "strategy=mean", "world=alike", "faults=glob(l*)").jobs()] == [
        "lossy"
    ]
    assert titles(changed(tmp_path, "strategy=glob(m*an)", "world=alike")) == [
        "strategy=mean world=alike seed=0",
        "strategy=median world=alike seed=0",
    ]


def test_a_plain_value_wins_over_everything(tmp_path: Path) -> None:
    read = changed(tmp_path, "strategy=mean", "rounds=9", "partition.alpha=5", "local.lr=1e-2", "++x='a,b'", "~callbacks.y")
    assert overrides(read)[1] == [
        "local.epochs=2",
        "strategy=mean",
        "partition=dirichlet",
        "rounds=9",
        "partition.alpha=5",
        "local.lr=1e-2",
        "++x='a,b'",
        "~callbacks.y",
        "seed=0",
    ]


def test_how_it_is_carried_out(tmp_path: Path) -> None:
    read = changed(tmp_path, "study.workers=2", "study.launcher=local", "study.address=null", "study.store=/a b")
    assert (read.workers, read.launcher, read.address, read.store) == (2, "local", None, Path("/a b"))
    assert read.forced == {}


# Mistakes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("axis: {a: [1]}", r"a study has no axis \(did you mean axes\?\); it has question, config, axes"),
        ("report: {metrics: loss}", r"report has no metrics \(did you mean metric\?\); it has metric, protocol"),
        ("report: {1: loss}", "report has no 1; it has"),
        ("axes: {strategy: [krum]}\nskip: [{stratgy: krum}]", r"skip has no stratgy \(did you mean strategy\?\)"),
        ("axes: {strategy: [krum]}\nskip: [{strategy: krumm}]", r"skip\.strategy has no krumm \(did you mean krum\?\)"),
        ("axes: {seed: [0, 1]}", r"an axis cannot be called seed: .* Seeds go under seeds:"),
        ("axes: {round: [0, 1]}", "an axis cannot be called round: that is a column of the table"),
        ("axes: {listed: [0, 1]}", "an axis cannot be called listed"),
        ("axes: {a: []}", r"axes\.a has no points"),
        ("axes: {a: }", r"axes\.a has no points"),
        ("axes: {a: [1, 1]}", r"axes\.a names a point twice: 1, 1"),
        ("axes: {a: krum}", r"a must be a list, or glob\(\*\) for all its choices; got krum"),
        ("axes: {strategy: glob(x*)}", r"strategy: glob\(x\*\) picks none of average_all, bulyan, .*trimmed_mean"),
        ("axes: {a: {x: 3}}", r"axes\.a\.x must be a mapping of keys to values; got 3"),
        ("axes: 3", "axes must be a mapping of keys to values; got 3"),
        ("axes: [strategy]", "axes must be a mapping"),
        ("config: [rounds=3]", "config must be a mapping"),
        ("runs: {rounds: 3}", "runs must be a list"),
        ("runs: [3]", "runs must be a mapping"),
        ("skip: {a: 1}", "skip must be a list"),
        ("tune: 3", "tune must be a mapping"),
        ("workers: 0", r"study\.workers must be an integer >= 1; got 0"),
        ("workers: true", r"study\.workers must be an integer >= 1; got True"),
        ("launcher: rya", r"study\.launcher has no rya \(did you mean ray\?\); it has local, ray"),
        ("store: 3", r"study\.store must be a folder; got 3"),
        *((f"seeds: {seeds}", "seeds must be how many, or a list of different integers >= 0; got") for seeds in (
            "0", "-1", "[]", "[1, 1]", "[0, -2]", "[0.5]", "[true]",
        )),
        ("seeds: many", "seeds must be a list; got 'many'"),
        ("seeds: true", "seeds must be a list; got True"),
        ("[1, 2]", "a study is a mapping with the keys question, config, axes"),
        ("", "a study is a mapping with the keys"),
        ("a: [", "cannot be read: .*line 1"),
        ("axes: {}\naxes: {}", "cannot be read: .*duplicate key axes"),
        ("config: {a: '${b'}", "cannot be read"),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(str(tmp_path / 'study.yaml'))}:? .*{message}"):
        study(tmp_path, text)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("study.worker=2", r"study has no worker \(did you mean workers\?\)"),
        ("study.workers=0", "must be an integer >= 1; got 0"),
        ("study.workers=two", "must be an integer >= 1; got two"),
        ("study.store=null", "must be a folder; got None"),
        ("seed=0,0", "seeds must be"),
        ("seed=x", "seeds must be"),
        ("strategy=mean,mean", r"axes\.strategy names a point twice: mean, mean"),
        ("local.lr=interval(0,1)", r"local\.lr=interval\(0,1\) has no list of values"),
        ("rounds=[1", r"rounds=\[1 is not key=value"),
        ("rounds", "rounds is not key=value"),
        ("round=1,2", "an axis cannot be called round"),
    ],
)
def test_words_that_are_wrong(tmp_path: Path, word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        changed(tmp_path, word)


@pytest.mark.parametrize("text", ["config: {seed: 1}", "axes: {a: {x: {seed: 1}}}", "runs: [{seed: 1}]"])
def test_seeds_have_one_place(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="seeds go under seeds:"):
        study(tmp_path, text).jobs()


@pytest.mark.parametrize("text", ["axes: {a: [1]}\nskip: [{a: 1}]", "axes: {a: {}}", "skip: [{}]"])
def test_nothing_is_left(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="has no run: all of them are skipped, or an axis has no points"):
        study(tmp_path, text).jobs()


# Where it is


def test_found_by_name_folder_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "experiments" / "mine" / "study.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("question: Well?")
    (tmp_path / "mine").mkdir()  # something else of that name
    assert [found.resolve() for found in map(find, ("mine", file.parent, file))] == [file] * 3
    assert Study.load("mine").folder == file.parent
    assert find("quickstart").parts[-2:] == ("quickstart", "study.yaml")  # of the checkout


def test_an_unknown_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"no study quikstart \(did you mean quickstart\?\): .*Known: .*quickstart"):
        Study.load("quikstart")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x00"])
def test_a_file_that_is_no_text(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "study.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read"):
        Study.load(tmp_path)
