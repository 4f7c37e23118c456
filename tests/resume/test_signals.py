"""Ctrl-C and SIGTERM: the round ends, a checkpoint is written, the user is told how to go on; a second one stops at once."""

import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fedagg import Callback
from fedagg.loop import Round
from fedagg.results import find_runs, read_run
from fedagg.signals import Interrupted, StopOnSignal
from tests.commands import Command, start
from tests.running import SMALL, run_into

Process = Callable[..., "subprocess.Popen[str]"]
LONG = [*SMALL, "rounds=120", "checkpoint.every=1000"]


class Signals(Callback):
    """Sends its own process a signal, so many times, once a round is finished."""

    def __init__(self, number: int, round: int = 2, times: int = 1) -> None:
        self.number, self.round, self.times = number, round, times

    def round_finished(self, done: Round) -> None:
        if done.round == self.round:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


class Slow(Callback):
    """Takes a minute over round 1."""

    def round_finished(self, done: Round) -> None:
        if done.round == 1:
            print("slow", flush=True)
            time.sleep(60)


@pytest.fixture(name="process")
def _process(tmp_path: Path) -> Iterator[Process]:
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> "subprocess.Popen[str]":
        started.append(start(*arguments, cwd=tmp_path))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_sigterm_and_then_the_same_bytes(process: Process, command: Command, tmp_path: Path) -> None:
    """As a cluster does it. Ctrl-C is tested with the command line."""
    running = process("run", *LONG, "hydra.run.dir=run")
    metrics = tmp_path / "run" / "metrics.csv"
    deadline = time.monotonic() + 100
    while not (metrics.exists() and "\n3,test" in metrics.read_text()):
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 143
    assert err.splitlines()[-1] == f"stopped; go on with: fedagg resume {tmp_path / 'run'}"
    run = read_run(tmp_path / "run")
    last = int(run.metrics.round[-1])
    assert run.status == "interrupted"
    assert last < 120
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == [f"round-{last:08d}.ckpt"]
    done = command("resume", tmp_path / "run")
    assert done.code == 0, done.err
    assert f"round {last + 1}/120" in done.out
    assert f"round {last}/120" not in done.out
    whole, _ = tmp_path / "whole", run_into(tmp_path / "whole", *LONG)
    assert metrics.read_bytes() == (whole / "metrics.csv").read_bytes()
    assert read_run(tmp_path / "run").info["parameters"] == read_run(whole).info["parameters"]


def test_a_second_one_stops_at_once(process: Process, tmp_path: Path) -> None:
    running = process("run", *LONG, f"+callbacks.slow={{_target_: {__name__}.Slow}}", "hydra.run.dir=run")
    assert running.stdout is not None
    assert running.stderr is not None
    while running.stdout.readline() != "slow\n":
        assert running.poll() is None
    running.send_signal(signal.SIGINT)
    assert running.stderr.readline() == "stopping after this round; once more to stop at once\n"
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=50)
    assert running.returncode == 130
    assert err == f"stopped; go on with: fedagg resume {tmp_path / 'run'}\n"
    run = read_run(tmp_path / "run")
    assert run.status == "interrupted"
    assert run.series("accuracy")[0].tolist() == [0, 1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("times", [1, 2])
def test_exit_codes(command: Command, tmp_path: Path, number: int, code: int, times: int) -> None:
    before = signal.getsignal(number)
    added = f"+callbacks.mine={{_target_: {__name__}.Signals, number: {int(number)}, times: {times}}}"
    done = command("run", *LONG, added, "hydra.run.dir=run")
    assert done.code == code
    assert done.err.splitlines() == [
        "stopping after this round; once more to stop at once",
        f"stopped; go on with: fedagg resume {tmp_path / 'run'}",
    ]
    assert signal.getsignal(number) is before
    assert (tmp_path / "run" / "checkpoints").exists() == (times == 1)
    assert read_run(tmp_path / "run").series("accuracy")[0].tolist() == [0, 1, 2]
    assert command("resume", tmp_path / "run").code == (0 if times == 1 else code)  # the latter meets round 2 again


def test_in_the_last_round_the_run_is_complete(command: Command, tmp_path: Path) -> None:
    added = f"+callbacks.mine={{_target_: {__name__}.Signals, number: {int(signal.SIGINT)}, round: 3}}"
    assert command("run", *SMALL, added, "hydra.run.dir=run").code == 0
    assert read_run(tmp_path / "run").status == "completed"


def test_a_sweep_stops(command: Command, tmp_path: Path) -> None:
    added = f"+callbacks.mine={{_target_: {__name__}.Signals, number: {int(signal.SIGTERM)}, round: 2}}"
    done = command("run", *LONG, added, "seed=0,1", "hydra.sweep.dir=sweep", "-m")
    assert done.code == 143
    (run,) = find_runs(tmp_path / "sweep")
    assert run.status == "interrupted"
    assert shlex.split(done.err.splitlines()[-1])[-3:] == ["fedagg", "resume", str(run.path)]  # its name is full of braces


def test_before_the_run_begins_there_is_nothing_to_go_on_with(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedagg.experiment.build", stop)
    done = command("run", *LONG, "hydra.run.dir=run")
    assert (done.code, done.err) == (130, "stopped before the run began\n")


def test_handlers_are_put_back_whatever_happens() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopOnSignal() as signals:
        assert signal.getsignal(signal.SIGINT) is not before[0]
        os.kill(os.getpid(), signal.SIGTERM)
        assert (signals.caught, signals.paused) == (signal.SIGTERM, True)
        with pytest.raises(Interrupted, match="stopped by SIGTERM") as stop:
            os.kill(os.getpid(), signal.SIGTERM)
    assert stop.value.exit_code == 143
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    with suppress(ZeroDivisionError), StopOnSignal():
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_outside_the_main_thread_nothing_is_touched() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with StopOnSignal():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
