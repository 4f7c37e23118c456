"""Run directories: a run that died goes on to the same bytes, and what must not be mixed is refused."""

import json
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from fedagg import Callback, ConfigError, FedaggError
from fedagg.disk import Lock
from fedagg.loop import Result
from fedagg.results import Run, read_run
from tests.resume.parts import KillAfter, Killed, exact
from tests.running import run_into

VARIANTS = [
    "strategy=fedavg server_optimizer=adam attack=alie evaluation.clients=true participation=bernoulli faults=lossy",
    "strategy=trimmed_mean cohort=5 attack=gaussian_noise attack.sampling=cohort faults=stragglers evaluation.every=3",
    "strategy=flwr_fedadam cohort=4 attack=sign_flip",
    "strategy=flwr_fedavgm cohort=4 faults=lossy participation=bernoulli",
    "strategy=flwr_fedmedian cohort=5 attack=label_flip",
]
COMMON = ("rounds=6", "seed=5")


def die(directory: Path, *overrides: str, after: int = 5, every: int = 2, resume: bool = False) -> None:
    """Run until round ``after`` and die; what was recorded of the end is taken back, for who is killed writes nothing."""
    with pytest.raises(Killed):
        run_into(
            directory, *COMMON, f"checkpoint.every={every}", *overrides, resume=resume, watch=lambda _: [KillAfter(after)]
        )
    info = json.loads((directory / "run.json").read_text())
    (directory / "run.json").write_text(json.dumps({**info, "status": "running", "error": None, "finished": None}))


def go_on(directory: Path, *overrides: str, every: int = 2) -> tuple[Result, Run]:
    return run_into(directory, *COMMON, f"checkpoint.every={every}", *overrides, resume=True)


def same(one: tuple[Result, Run], other: tuple[Result, Run]) -> bool:
    files = [(run.path / "metrics.csv").read_bytes() for _, run in (one, other)]
    hashes = [run.info["parameters"] for _, run in (one, other)]
    assert hashes[0]
    return files[0] == files[1] and hashes[0] == hashes[1] and exact(one[0]) == exact(other[0])


def files_in(directory: Path) -> dict[str, bytes]:
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_bytes(tmp_path: Path, variant: str) -> None:
    overrides = variant.split()
    whole = run_into(tmp_path / "whole", *COMMON, *overrides)
    die(tmp_path / "killed", *overrides)
    with open(tmp_path / "killed" / "metrics.csv", "a") as file:
        file.write("6,test,,acc")  # and it was writing a line
    resumed = go_on(tmp_path / "killed", *overrides)
    assert same(resumed, whole)
    assert (resumed[1].status, resumed[1].info["rounds_done"]) == ("completed", 6)
    assert sorted(files_in(tmp_path / "killed")) == sorted(files_in(tmp_path / "whole"))
    timing = (tmp_path / "killed" / "timing.csv").read_text().splitlines()
    assert [line for line in timing if line.split(",")[1] == "train"][-1].startswith("6,train,")
    assert len(timing) == len((tmp_path / "whole" / "timing.csv").read_text().splitlines())


@pytest.mark.parametrize("after", [(0,), (1,), (3, 3), (2, 6)])
def test_whenever_it_dies(tmp_path: Path, after: Sequence[int]) -> None:
    whole = run_into(tmp_path / "whole", *COMMON)
    for times, last in enumerate(after):
        die(tmp_path / "killed", after=last, resume=times > 0)
    assert same(go_on(tmp_path / "killed"), whole)


def test_what_a_process_had_half_written_goes(tmp_path: Path) -> None:
    die(tmp_path / "run")
    for name in (".run.json.4711", ".model.pt.4711", "checkpoints/.round-00000004.ckpt.4711"):
        (tmp_path / "run" / name).write_bytes(b"half")
    go_on(tmp_path / "run")
    assert sorted(files_in(tmp_path / "run")) == ["config.yaml", "metrics.csv", "model.pt", "run.json", "timing.csv"]


def test_checkpoints_are_kept_until_the_run_is_complete(tmp_path: Path) -> None:
    die(tmp_path / "run", "checkpoint.keep=3", every=1)
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["round-00000002.ckpt", "round-00000003.ckpt", "round-00000004.ckpt"]
    go_on(tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_by_default_quick_rounds_pay_for_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedagg.checkpoint.Checkpoints.write", lambda *_: pytest.fail("ten seconds have not passed"))
    run_into(tmp_path / "run", *COMMON)


@pytest.mark.parametrize("damage", ["truncate the newest", "truncate both"])
def test_damaged_checkpoints(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    whole = run_into(tmp_path / "whole", *COMMON)
    die(tmp_path / "run")
    files = sorted((tmp_path / "run" / "checkpoints").iterdir(), reverse=True)
    for file in files[: 1 if "newest" in damage else 2]:
        file.write_bytes(file.read_bytes()[:-100])
    if "newest" in damage:
        assert same(go_on(tmp_path / "run"), whole)
        assert "going on from round-00000002.ckpt" in caplog.text
    else:
        rows = (tmp_path / "run" / "metrics.csv").read_bytes()
        with pytest.raises(FedaggError, match=r"no checkpoint can be used: .*\. Start over in a new directory"):
            go_on(tmp_path / "run")
        assert (tmp_path / "run" / "metrics.csv").read_bytes() == rows
        assert read_run(tmp_path / "run").status == "failed"


def test_a_table_that_lost_lines_is_refused(tmp_path: Path) -> None:
    die(tmp_path / "run")
    table = tmp_path / "run" / "metrics.csv"
    table.write_bytes(table.read_bytes()[:100])
    with pytest.raises(FedaggError, match=r"metrics\.csv has lost lines .* holds 100 bytes, and held \d+.* new directory"):
        go_on(tmp_path / "run")
    assert len(table.read_bytes()) == 100


def test_a_run_that_is_complete(tmp_path: Path) -> None:
    run_into(tmp_path / "run", *COMMON)
    before = files_in(tmp_path / "run")
    with pytest.raises(ConfigError, match="is complete; there is nothing to go on with"):
        go_on(tmp_path / "run")
    assert files_in(tmp_path / "run") == before


def test_a_run_that_could_not_be_saved_is_not_begun_again_over_its_results(tmp_path: Path) -> None:
    """Its callback holds a set; five rounds are there to be read, and stay there."""
    added = [f"+callbacks.mine={{_target_: {__name__}.Hoarding}}"]
    die(tmp_path / "run", *added, every=1)
    before = files_in(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"cannot be resumed: callbacks\[1\]\['seen'\] is a builtins\.set.*new directory"):
        go_on(tmp_path / "run", *added, every=1)
    assert files_in(tmp_path / "run") == before
    assert read_run(tmp_path / "run").series("accuracy")[0].tolist() == [0, 1, 2, 3, 4, 5]


class Hoarding(Callback):
    """Has state that cannot be saved."""

    def state_dict(self) -> dict[str, set[int]]:
        return {"seen": {1}}

    def load_state_dict(self, state: dict[str, set[int]]) -> None:
        raise AssertionError


# Another config


def test_every_setting_that_differs_is_listed(tmp_path: Path) -> None:
    die(tmp_path / "run", "attack=ipm")
    before = files_in(tmp_path / "run")
    with pytest.raises(ConfigError) as error:
        go_on(tmp_path / "run", "attack=ipm", "attack.fraction=0.5", "local.lr=0.2", "rounds=7", "engine.threads=2")
    assert str(error.value).splitlines() == [
        f"{tmp_path / 'run'} holds a run of another config:",
        "  attack.fraction: 0.2 there, 0.5 here",
        "  engine.threads: 1 there, 2 here",
        "  f: 2 there, 3 here",
        "  local.lr: 0.1 there, 0.2 here",
        "  rounds: 6 there, 7 here",
    ]
    assert files_in(tmp_path / "run") == before


@pytest.mark.parametrize(
    "override", ["strategy=median", "seed=6", "engine.precision=bfloat16", "+callbacks.x={_target_: fedagg.Callback}"]
)
def test_what_can_change_a_result_may_not_differ(tmp_path: Path, override: str) -> None:
    die(tmp_path / "run")
    with pytest.raises(ConfigError, match="holds a run of another config"):
        go_on(tmp_path / "run", override)


def test_what_cannot_may(tmp_path: Path) -> None:
    whole = run_into(tmp_path / "whole", *COMMON)
    die(tmp_path / "run")
    assert same(go_on(tmp_path / "run", "checkpoint.seconds=3", "checkpoint.keep=1", "resume=auto", every=1), whole)


def test_other_data_are_refused(tmp_path: Path) -> None:
    die(tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    info = json.loads(file.read_text())
    info["data"]["fingerprint"] = "0123"
    file.write_text(json.dumps(info))
    with pytest.raises(ConfigError, match=r"data\.fingerprint: 0123 there, [0-9a-f]+ here"):
        go_on(tmp_path / "run")


def test_other_versions_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    die(tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    info = json.loads(file.read_text())
    now = info["versions"]["torch"]
    info["versions"]["torch"] = "1.0"
    file.write_text(json.dumps(info))
    with caplog.at_level(logging.WARNING):
        go_on(tmp_path / "run")
    assert [record.getMessage() for record in caplog.records] == [f"torch was 1.0 when this run began, and is {now} now"]


# A run that was killed while its directory was being made

PARTS = ["run.json", "config.yaml", "metrics.csv", "timing.csv"]  # in the order in which they are written


@pytest.mark.parametrize("count", range(1, 4))
def test_a_directory_that_is_half_made_is_nobodys_yet(tmp_path: Path, count: int) -> None:
    whole = run_into(tmp_path / "whole", *COMMON)
    die(tmp_path / "run", after=0)
    for name in PARTS[count:]:
        (tmp_path / "run" / name).unlink()
    if count > 2:
        (tmp_path / "run" / "metrics.csv").write_text("round,split,client,metric,value\n")
    assert same(run_into(tmp_path / "run", *COMMON), whole)


def test_a_run_with_results_is_never_taken_for_half_made(tmp_path: Path) -> None:
    die(tmp_path / "run")
    (tmp_path / "run" / "timing.csv").unlink()
    with pytest.raises(ConfigError, match="already holds a run"):
        run_into(tmp_path / "run", *COMMON)


def test_results_whose_record_is_gone_are_not_written_over(tmp_path: Path) -> None:
    run_into(tmp_path / "run", *COMMON)
    (tmp_path / "run" / "run.json").unlink()
    before = files_in(tmp_path / "run")
    with pytest.raises(ConfigError, match="already holds a run"):
        run_into(tmp_path / "run", *COMMON)
    assert files_in(tmp_path / "run") == before


# One process at a time


def test_two_at_once(tmp_path: Path) -> None:
    """The lock belongs to a process: SIGKILL lets go of it, and the message names whom to wait for."""
    die(tmp_path / "run")
    script = f"from fedagg.disk import Lock\nfrom pathlib import Path\nwith Lock(Path({str(tmp_path / 'run')!r})):"
    script += "\n print('mine', flush=True)\n import time\n time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "mine\n"
            before = files_in(tmp_path / "run")
            for resume in (True, False):
                with pytest.raises(ConfigError, match=rf"run is in use by process {other.pid}; wait for it, or stop it"):
                    run_into(tmp_path / "run", *COMMON, "checkpoint.every=2", resume=resume)
            assert files_in(tmp_path / "run") == before
        finally:
            other.kill()
    assert (tmp_path / "run" / ".lock").exists()  # nobody tidied up
    go_on(tmp_path / "run")
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_lock_is_not_fooled_by_the_one_who_leaves(tmp_path: Path) -> None:
    """Who opens the file just before its owner removes it must not believe to hold what the next one then holds as well."""
    first = Lock(tmp_path)
    first.__enter__()
    with pytest.raises(ConfigError, match="in use"), Lock(tmp_path):
        pass
    first.__exit__(None, None, None)
    with Lock(tmp_path), pytest.raises(ConfigError, match="in use"), Lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_run_can_be_moved(tmp_path: Path) -> None:
    whole = run_into(tmp_path / "whole", *COMMON)
    die(tmp_path / "run")
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    assert same(go_on(tmp_path / "elsewhere"), whole)


def test_what_the_config_left_open_is_on_record(tmp_path: Path) -> None:
    """The config of a run says what it came to; this says what was asked."""
    _, run = run_into(tmp_path / "run", *COMMON, "attack=ipm", "sanitize=true")
    open_ = run.info["left_open"]
    assert open_["f"] is None
    assert open_["engine.executor"] == open_["engine.device"] == "auto"
    assert {"seed", "sanitize", "rounds"}.isdisjoint(open_)
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert config["f"] == 2
    assert re.fullmatch("one_at_a_time|batched", config["engine"]["executor"])
