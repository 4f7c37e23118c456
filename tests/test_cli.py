"""The command line as a user meets it: what it prints, what it exits with, and what it says to a mistake."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fedagg import Callback, ConfigError, FedaggError, __version__
from fedagg.console import config_dir
from fedagg.loop import Round
from fedagg.results import find_runs, read_run
from tests.commands import Command, start

SMALL = ["population=4", "model=logistic_regression", "partition=iid"]


# Looking around


def test_help_loads_nothing_heavy() -> None:
    """In one process: the help of every verb but run, the lists, and then run's, which is Hydra's."""
    code = """
import contextlib, sys
from fedagg.cli import main
def heavy():
    return sorted({"torch", "flwr", "ray", "hydra", "omegaconf", "matplotlib", "numpy", "sklearn", "scipy"} & set(sys.modules))
for words in (["--help"], ["--version"], [], ["report", "--help"], ["partition", "--help"], ["list"], ["list", "attack"]):
    with contextlib.suppress(SystemExit):
        main(words)
print("HEAVY", heavy())
with contextlib.suppress(SystemExit):
    main(["run", "--help"])
print("HEAVY", heavy())
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert re.findall("HEAVY (.*)", done.stdout) == ["[]", "['hydra', 'omegaconf']"]
    assert done.stderr == ""


def test_help_names_the_verbs_with_examples_and_exit_codes(command: Command) -> None:
    for words in (["--help"], []):
        done = command(*words)
        assert done.code == 0
        for verb in ("run", "resume", "verify", "report", "partition", "list"):
            assert re.search(rf"^ +{verb}\b", done.out, re.MULTILINE)
            assert re.search(rf"^  fedagg {verb} ", done.out, re.MULTILINE)
        assert "130, 143 stopped" in done.out
    assert command("--version").out == f"fedagg {__version__}\n"


def test_help_of_run_shows_groups_choices_and_keys(command: Command) -> None:
    done = command("run", "--help")
    assert done.code == 0
    assert "strategy: " in done.out
    assert "trimmed_mean" in done.out
    assert "alie" in done.out
    assert re.search(r"^rounds: 30", done.out, re.MULTILINE)


def test_list_shows_what_there_is(command: Command) -> None:
    everything = command("list")
    assert everything.code == 0
    blocks = re.findall(r"^(\w+)\n((?:  .*\n)*)", everything.out, re.MULTILINE)
    groups = {group: [line.split()[0] for line in lines.splitlines()] for group, lines in blocks}
    for folder in config_dir().iterdir():
        if folder.is_dir() and folder.name != "machine":
            choices = sorted(file.stem for file in folder.glob("*.yaml") if not file.stem.startswith("_"))
            assert groups.pop(folder.name) == choices
    assert groups == {}
    one = command("list", "attack")
    assert one.out.splitlines()[0] == "attack"
    assert "attack=alie: a little is enough" in one.out
    assert one.out in everything.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list", "nope"], r"^error: no config group nope\. Groups: attack, data, .*strategy, weighting$"),
        (["list", "atack"], r"^error: no config group atack \(did you mean attack\?\)\. Groups: "),
        (["report", "nowhere"], "^error: nowhere does not exist; give a run directory"),
        (["report", "."], r"^error: no run in \.: neither it nor a folder below it holds a run\.json"),
        (["report"], "the following arguments are required: DIR"),
        (["rum"], r"invalid choice: 'rum' \(choose from '?run'?, "),
        (["list", "attack", "--all"], "unrecognized arguments: --all"),
        (["partition", "partition.alpa=1"], r"^error: no setting partition\.alpa \(did you mean partition\.alpha\?\)"),
        (["partition", "partition.alpha=-1"], "^error: Dirichlet needs a finite alpha > 0; got alpha=-1"),
        (["partition", "--out", "who.xyz"], r"^error: --out who\.xyz: Format 'xyz' is not supported"),
    ],
)
def test_mistakes_in_the_other_verbs(command: Command, words: list[str], message: str) -> None:
    done = command(*words)
    assert done.code == 2
    assert re.search(message, done.err.strip(), re.MULTILINE)


def test_partition_draws_who_holds_what(command: Command, tmp_path: Path) -> None:
    done = command("partition", "population=5", "partition=shards", "--out", "who.png", "seed=1")
    assert done.code == 0
    numbers = dict(line.split() for line in done.out.splitlines())
    assert (numbers["clients"], numbers["samples"], numbers["empty_clients"]) == ("5", "1438", "0")
    assert numbers["picture"] == "who.png"
    assert (tmp_path / "who.png").read_bytes().startswith(b"\x89PNG")


# Mistakes in a run

MISTAKES = [
    ("stratgy=krum", r"no setting stratgy \(did you mean strategy\?\)"),
    ("attack=aile", r"attack has no choice aile \(did you mean alie\?\)\. Choices: alie, .*sign_flip"),
    ("partition.alpa=1", r"no setting partition\.alpa \(did you mean partition\.alpha\?\)"),
    ("strategy=krum strategy.rule.ff=2", r"no setting strategy\.rule\.ff \(did you mean strategy\.rule\.f\?\)"),
    ("attack=sign_flip attack.method.scal=2", r"no setting attack\.method\.scal \(did you mean attack\.method\.scale\?\)"),
    ("+local.lrr=1", r"LocalSGD takes epochs, .*did you mean lr for lrr\?"),
    ("+strategy.rule.ff=2 strategy=krum", r"strategy\.rule .*Krum takes f, .*did you mean f for ff\?"),
    ("f=9 strategy=krum", r"Krum needs n >= 2f \+ 3 \(Blanchard et al\. 2017\); got n=20, f=9\. Lower f"),
    ("partition.alpha=0", "Dirichlet needs a finite alpha > 0; got alpha=0"),
    ("population=5000", "at most as many clients as samples; got 5000 clients, 1438 samples"),
    ("attack.fraction=1.5", r"attack\.fraction must be in \[0, 1\]; got 1\.5"),
    ("attack=alie attack.fraction=-0.1", r"attack\.fraction must be in \[0, 1\]; got -0\.1"),
    ("attack=ipm attack.fraction=some", r"attack\.fraction must be in \[0, 1\]; got some"),
    ("cohort=30", "cohort must be at most the population; got cohort=30, population=20"),
    ("data=fashion_mnist data.dir=/nowhere", r"in /nowhere \(data\.dir\); none is there\. Install them with 'apt-get install"),
    ("data=digits data.dir=/tmp", r"data=digits is inside scikit-learn and reads no folder; got data\.dir=/tmp"),
    ("rounds=0", "rounds must be an integer >= 1; got 0"),
    ("rounds=many", "rounds must be an integer >= 1; got many"),
    ("rounds=2.5", r"rounds must be an integer >= 1; got 2\.5"),
    ("population=null", "population must be an integer >= 1; got None"),
    ("seed=-1", "seed must be an integer >= 0; got -1"),
    ("seed=true", "seed must be an integer >= 0; got True"),
    ("f=-1", "f must be an integer >= 0, or null; got -1"),
    ("on_client_error=ignore", "on_client_error must be raise or drop; got ignore"),
    ("evaluation.holdout=much", r"evaluation\.holdout must be between 0 and 1; got much"),
    ("evaluation.every=0", r"evaluation\.every must be an integer >= 1; got 0"),
    ("engine.threads=0", r"engine\.threads must be an integer >= 1; got 0"),
    ("engine.device=warp", r"engine\.device=warp cannot be used here"),
    ("local.lr=big", r"local\.lr must be a number; got big"),
    ("local.epochs=0", r"local\.epochs must be an integer >= 1; got 0"),
    ("model=cnn data=breast_cancer", r"model=cnn needs pictures .*rows have shape \(30,\)\. Take model=mlp"),
    ("attack=null", "attack=null: a config group takes one of its choices; fedagg list attack shows them"),
    ("attack=nan", "attack=nan: a config group takes one of its choices"),  # Hydra reads a number there
    ("~seed", "no setting seed"),
    ("attack.method=lie", r"attack\.method must name a class under _target_; got lie"),
    ("+callbacks.mine._target_=json.Nope", r"callbacks\.mine\._target_=json\.Nope cannot be imported: .*no attribute 'Nope'"),
    ("strategy=median strategy.rule._target_=nowhere.Median", r"strategy\.rule\._target_=nowhere\.Median cannot be imported"),
    ("strategy=flwr_fedavg server_optimizer=adam", "server_optimizer has no effect on flwr.*FedAvg"),
    ("rounds=[1", "no viable alternative at input '\\[1'"),
    ("--config-dir=/nowhere", "Additional config directory '/nowhere' not found"),
    ("--config-name=nope", "Cannot find primary config 'nope'"),
]


@pytest.mark.parametrize(("overrides", "message"), MISTAKES, ids=[overrides for overrides, _ in MISTAKES])
def test_a_mistake_is_one_message_and_no_run(command: Command, tmp_path: Path, overrides: str, message: str) -> None:
    """Exit code 2; the nearest right name or the bound; nothing on standard output; and no run."""
    done = command("run", f"hydra.run.dir={tmp_path}/run", *overrides.split())
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert done.err.count("error:") == 1
    assert re.search(message, done.err, re.DOTALL)
    assert done.out == ""
    assert not {"metrics.csv", "run.json", "model.pt"} & {file.name for file in tmp_path.rglob("*")}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, so engine.device=cuda is no mistake")
def test_a_gpu_that_is_not_there(command: Command, tmp_path: Path) -> None:
    done = command("run", f"hydra.run.dir={tmp_path}/run", "engine.device=cuda")
    assert done.code == 2
    assert done.err.startswith("error: engine.device=cuda cannot be used here: ")
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_a_run_is_never_overwritten(command: Command, tmp_path: Path) -> None:
    words = ["run", *SMALL, "rounds=1", f"hydra.run.dir={tmp_path}/run"]
    assert command(*words).code == 0
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    again = command(*words, "seed=7")
    assert again.code == 2
    assert re.search(r"^error: .*run already holds a run.*hydra\.run\.dir=", again.err)
    assert {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()} == before


def test_the_traceback_is_there_for_those_who_ask(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDAGG_DEBUG", "1")
    with pytest.raises(ConfigError, match="rounds must be an integer"):
        command("run", "rounds=0")
    with pytest.raises(ConfigError, match="no config group nope"):
        command("list", "nope")


def test_the_process_is_as_it_was(command: Command) -> None:
    """``main`` may be called from a program; the second call behaves as the first."""
    arguments, environment = list(sys.argv), dict(os.environ)
    first, second = command("run", "stratgy=krum"), command("run", "stratgy=krum")
    assert first == second
    assert first.code == 2
    assert sys.argv == arguments
    assert dict(os.environ) == environment


# Runs


def test_the_first_lines_are_the_plan_and_then_one_line_a_round(command: Command, tmp_path: Path) -> None:
    words = [*SMALL, "rounds=2", "strategy=trimmed_mean", "attack=ipm", "attack.fraction=0.25", "seed=3"]
    done = command("run", *words, f"hydra.run.dir={tmp_path}/run")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    plan = ["data", "model", "rounds", "executor", "memory", "strategy", "world", "changed", "output"]
    assert [line.split()[0] for line in lines[:9]] == plan
    run = read_run(tmp_path / "run")
    assert "4 clients" in lines[0]
    assert "650 parameters" in lines[1]
    assert "2 x 4 of 4 clients" in lines[2]
    assert lines[3].startswith("executor  ")
    assert "1 thread (auto: quicker on a " in lines[3]
    assert lines[4].startswith("memory    about ")
    assert "TrimmedMean(f=1)" in lines[5]
    assert (
        f"IPM (sees: honest) by 25% of the population (clients {run.info['byzantine'][0]}); the server believes f = 1"
        in lines[6]
    )
    assert lines[7].split()[1:] == words
    assert lines[8].split()[1] == str(tmp_path / "run")
    accuracy = run.series("accuracy")[1]
    for number, line in enumerate(lines[9:]):
        assert line.startswith(f"trimmed_mean x ipm, seed 3  round {number}/2  accuracy {accuracy[number]:.4f}  loss ")
    assert len(lines) == 9 + 3
    assert "byzantine 1/4" in lines[-1]
    assert run.info["command"] == "fedagg run " + " ".join(words)


def test_the_recorded_command_repeats_a_run_of_ones_own_config(command: Command, tmp_path: Path) -> None:
    """Also where another folder of configs, and another primary config, were named."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "study.yaml").write_text("defaults: [config, _self_]\npopulation: 5\nmodel: {hidden: [4]}\n")
    first = command("run", "--config-dir=mine", "--config-name=study", "rounds=1", f"hydra.run.dir={tmp_path}/a")
    assert (first.code, first.err) == (0, "")
    recorded = read_run(tmp_path / "a")
    assert recorded.config["population"] == 5
    words = recorded.info["command"].split()
    assert words[:2] == ["fedagg", "run"]
    assert command(*words[1:], f"hydra.run.dir={tmp_path}/b").code == 0
    assert read_run(tmp_path / "b").config == recorded.config
    assert read_run(tmp_path / "b").info["parameters"] == recorded.info["parameters"]


def test_a_run_gets_a_directory_of_its_own(command: Command, tmp_path: Path) -> None:
    for _ in range(2):
        assert command("run", *SMALL, "rounds=1").code == 0
    assert len(find_runs(tmp_path / "runs")) == 2


def test_every_combination_and_a_report_on_them(command: Command, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    done = command("run", "-m", "seed=0,1", "attack=none,alie", "rounds=1", *SMALL, f"hydra.sweep.dir={sweep}")
    assert done.code == 0
    runs = find_runs(sweep)
    assert [run.status for run in runs] == ["completed"] * 4
    assert {(run.seed, run.label["attack"]) for run in runs} == {(0, "none"), (0, "alie"), (1, "none"), (1, "alie")}
    assert {run.path.parent for run in runs} == {sweep}
    jobs = json.loads((sweep / "study.json").read_text())["jobs"]
    assert {(run.path.name, run.seed, run.label["attack"]) for run in runs} == {
        (job["run"], job["seed"], job["axes"]["attack"]) for job in jobs
    }
    assert len((sweep / "results.csv").read_text().splitlines()) == 1 + sum(len(run.metrics) for run in runs)
    reported = command("report", sweep)
    assert (reported.code, reported.err) == (0, "")
    assert "fedavg" in reported.out
    assert "n=2 seeds" in reported.out
    assert {"table.csv", "table.md", "table.tex", "heatmap.png", "heatmap.pdf"} <= {
        file.name for file in (sweep / "report").iterdir()
    }
    assert len((sweep / "report" / "table.csv").read_text().splitlines()) == 1 + 2
    elsewhere = command("report", sweep, "--out", tmp_path / "loss", "--metric", "loss", "--protocol", "best")
    assert elsewhere.code == 0
    assert (tmp_path / "loss" / "table-loss-best.csv").exists()
    unknown = command("report", sweep, "--metric", "acuracy")
    assert unknown.code == 2
    assert "did you mean test/accuracy?" in unknown.err


def test_a_mistake_in_one_job_ends_a_sweep(command: Command, tmp_path: Path) -> None:
    done = command("run", "-m", "rounds=1,0,2", *SMALL, f"hydra.sweep.dir={tmp_path}/sweep")
    assert done.code == 2
    assert "error: rounds must be an integer >= 1; got 0" in done.err
    assert [run.info["rounds"] for run in find_runs(tmp_path / "sweep")] == [1]


class Stops(Callback):
    """Ends the run after round 1, by the way that the config names."""

    def __init__(self, how: str) -> None:
        self.how = how

    def round_finished(self, done: Round) -> bool:
        if done.round == 1 and self.how == "complains":
            raise FedaggError("there is no more coffee")
        return done.round == 1


@pytest.mark.parametrize(("how", "code", "status"), [("complains", 1, "failed"), ("stops", 0, "completed")])
def test_callbacks_from_the_command_line(command: Command, tmp_path: Path, how: str, code: int, status: str) -> None:
    added = f"+callbacks.mine={{_target_: {__name__}.Stops, how: {how}}}"
    done = command("run", *SMALL, "rounds=3", added, f"hydra.run.dir={tmp_path}/run")
    assert done.code == code
    assert done.err == ("error: there is no more coffee\n" if code else "")
    run = read_run(tmp_path / "run")
    assert (run.status, run.info["rounds_done"]) == (status, 1)


def test_ctrl_c_keeps_the_rounds_that_are_done(tmp_path: Path) -> None:
    process = start("run", *SMALL, "rounds=1000000", "hydra.run.dir=run", cwd=tmp_path)
    try:
        deadline, metrics = time.monotonic() + 100, tmp_path / "run" / "metrics.csv"
        while not (metrics.exists() and "\n3,test" in metrics.read_text()):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert err.splitlines() == [
        "stopping after this round; once more to stop at once",
        f"stopped; go on with: fedagg resume {tmp_path / 'run'}",
    ]
    assert "Traceback" not in out
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (info["status"], info["error"]) == ("interrupted", None)
    rounds, accuracy = read_run(tmp_path / "run").series("accuracy")
    assert rounds.tolist() == list(range(info["rounds_done"] + 1))
    assert 3 <= info["rounds_done"] < 1000000
    assert accuracy[3] > accuracy[0]
