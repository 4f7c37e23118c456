"""The ``fedagg`` command. Heavy imports wait until a verb needs them, so that ``fedagg --help`` is quick."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from fedagg.console import complain, config_dir, say_how_to_go_on, suggest

MANY = 300  # runs whose configs take so long to compose that one wonders
EXAMPLES = """\
examples:
  fedagg run                                             20 clients, digits, FedAvg, nobody hostile
  fedagg run strategy=krum attack=alie attack.fraction=0.2 seed=1
  fedagg run strategy=fedavg,median attack=none,ipm seed=0,1,2 -m      every combination
  fedagg run --help                                      the config groups, their choices and all keys
  fedagg resume runs/2026-11-02_09-30-00-000000          go on with a run that was stopped or killed
  fedagg verify runs/2026-11-02_09-30-00-000000          does it come out the same again, to the bit?
  fedagg study quickstart                                run what is missing of a study; again after a crash: go on
  fedagg study quickstart --dry-run                      which runs it has, which are done, what the rest will cost
  fedagg study quickstart rounds=100 seed=0,1,2,3,4      a larger one, in the same store
  fedagg tune quickstart                                 the learning rate, on data that clients hold out
  fedagg status quickstart                               how far it is, from another terminal
  fedagg report quickstart                               page, tables and figures from a study or any number of runs
  fedagg partition partition=dirichlet partition.alpha=0.1             who holds what, as a picture
  fedagg list attack                                     the choices of a config group
  fedagg check my_pkg.MyRule f=2                         does a plug-in of yours keep the contract?

exit codes: 0 done; 1 a run failed; 2 something in the command is wrong; 130, 143 stopped by Ctrl-C, SIGTERM (resume goes on)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code. Plug-ins in the current folder can be named, as with ``python -m``."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return _main(argv)
    except BrokenPipeError:  # the reader has seen enough, as in fedagg status NAME | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _main(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["run"]:
        from fedagg.hydra_app import run

        return run(arguments[1:])
    parser = _parser()
    parsed, rest = parser.parse_known_args(arguments)
    if rest and (parsed.verb not in ("partition", "study", "tune", "check") or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if parsed.verb == "report":
        return _report(parsed)
    if parsed.verb == "partition":
        from fedagg.hydra_app import partition

        return partition([*parsed.overrides, *rest], parsed.out)
    if parsed.verb in ("study", "status", "tune"):
        return _study(parsed, rest)
    if parsed.verb in ("resume", "verify"):
        return _again(parsed)
    if parsed.verb == "list":
        return _list(parsed.group)
    if parsed.verb == "check":
        return _check(parsed, rest)
    parser.print_help()
    return 0


def _parser() -> argparse.ArgumentParser:
    from fedagg import __version__

    parser = argparse.ArgumentParser(
        prog="fedagg",
        description="Federated learning under attack: which way of combining client updates survives, and at what cost.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fedagg {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    verbs.add_parser("run", add_help=False, help="run one config, or with -m every combination (a Hydra application)")
    report = verbs.add_parser("report", help="make the table and the figures from run directories")
    report.add_argument(
        "paths", nargs="+", type=Path, metavar="DIR", help="run directories, folders that hold them, or a study"
    )
    report.add_argument("--out", type=Path, help="where to write (default: the report folder inside the one DIR given)")
    report.add_argument("--metric", help="which metric on the test set, or split/metric (default: the study's, or accuracy)")
    report.add_argument(
        "--protocol", help="final (default); last:K, the mean of the last K evaluations; best, the oracle's round"
    )
    report.add_argument("--rows", metavar="AXIS", help="rows are the points of this axis of the study, in place of strategies")
    partition = verbs.add_parser("partition", help="show who would hold which data: sizes, and a picture of labels by client")
    partition.add_argument("overrides", nargs="*", metavar="key=value", help="as for fedagg run")
    partition.add_argument("--out", type=Path, default=Path("partition.png"), help="the picture (default: partition.png)")
    study = verbs.add_parser("study", help="run what is missing of a study: strategies x attacks x ... x seeds")
    study.add_argument("where", metavar="STUDY", help="a name below experiments, a folder with a study.yaml, or the file")
    study.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="as for fedagg run; study.workers=2, study.launcher=ray, study.store=DIR",
    )
    study.add_argument("--dry-run", action="store_true", help="list the runs and the estimated cost, and run nothing")
    study.add_argument("--retry-failed", action="store_true", help="try failed runs again; without this they are left alone")
    study.add_argument(
        "--fail-fast", action="store_true", help="stop at the first failure instead of going on with the others"
    )
    tune = verbs.add_parser("tune", help="search a study's hyper-parameters, in peace and under the worst attack")
    tune.add_argument("where", metavar="STUDY", help="as for fedagg study; its file says what to search")
    tune.add_argument("overrides", nargs="*", metavar="key=value", help="as for fedagg study")
    status = verbs.add_parser("status", help="show how far a study is, also while another process runs it")
    status.add_argument("where", metavar="STUDY", help="as for fedagg study, or the folder with its runs")
    again = verbs.add_parser("resume", help="go on with a run after its last checkpoint")
    again.add_argument("path", type=Path, metavar="RUN_DIR")
    verify = verbs.add_parser("verify", help="repeat a run in a temporary directory and compare, to the bit")
    verify.add_argument("path", type=Path, metavar="RUN_DIR")
    verify.add_argument("overrides", nargs="*", metavar="engine.key=value", help="repeat it on another engine")
    listing = verbs.add_parser("list", help="list the config groups and their choices")
    listing.add_argument("group", nargs="?", help="only this group")
    check = verbs.add_parser("check", help="try every promise that a rule, attack, weighting, ... of yours makes")
    check.add_argument("path", metavar="CLASS", help="as in an import: my_pkg.MyRule")
    check.add_argument("overrides", nargs="*", metavar="key=value", help="arguments of its constructor; f is 1 if not given")
    check.add_argument(
        "--exempt", action="append", default=[], metavar="CHECK=REASON", help="a promise it does not make, and why"
    )
    return parser


def _report(parsed: argparse.Namespace) -> int:
    from fedagg.errors import FedaggError
    from fedagg.report import report
    from fedagg.study.store import Store

    try:
        folders = [_runs_of(path) for path in parsed.paths]
        store = Store(folders[0])
        study = store.manifest() if len(folders) == 1 and store.exists() else {}
        chosen = {"metric": parsed.metric, "protocol": parsed.protocol, "rows": parsed.rows}
        chosen = {
            "metric": "accuracy",
            "protocol": "final",
            **study.get("report", {}),
            **{k: v for k, v in chosen.items() if v},
        }
        report(folders, out=parsed.out, question=study.get("question", ""), **chosen)
    except FedaggError as error:
        return complain(error)
    return 0


def _runs_of(path: Path) -> Path:
    """Return the folder of runs that a word behind ``report`` means: itself, or the store of a study."""
    from fedagg.errors import ConfigError
    from fedagg.study.plan import find
    from fedagg.study.table import find_store

    if path.exists() and not (path / "study.yaml").is_file():
        return path
    try:
        find(path)
    except ConfigError:
        raise ConfigError(f"{path} does not exist; give a run directory, a folder that holds some, or a study") from None
    return find_store(path).folder


def _study(parsed: argparse.Namespace, rest: Sequence[str]) -> int:
    from fedagg.errors import FedaggError
    from fedagg.study import Study, run_study
    from fedagg.study.status import dry_run, status
    from fedagg.study.table import find_store
    from fedagg.study.tune import tune

    try:
        if parsed.verb == "status":
            print("\n".join(status(find_store(parsed.where))))
            return 0
        study = Study.load(parsed.where).with_overrides([*parsed.overrides, *rest])
        if parsed.verb == "tune":
            tune(study)
            return 0
        if (jobs := len(study.jobs())) >= MANY:
            print(f"{study.name}: composing the configs of {jobs} runs, which takes a while", file=sys.stderr)
        if parsed.dry_run:
            print("\n".join(dry_run(study)))
            return 0
        summary = run_study(study, retry_failed=parsed.retry_failed, fail_fast=parsed.fail_fast)
    except FedaggError as error:
        return complain(error)
    except KeyboardInterrupt:  # before there were workers; they let their rounds end
        return 130
    print(f"{study.name}: {summary}")
    again = ["fedagg", "study", *(word for word in (parsed.where, *parsed.overrides, *rest))]
    if summary.stopped is not None:
        print(f"stopped; go on with: {shlex.join(again)}", file=sys.stderr)
    elif summary.failed:
        print(
            f"what failed: fedagg status {study.store}; try again with: {shlex.join([*again, '--retry-failed'])}",
            file=sys.stderr,
        )
    return summary.exit_code


def _again(parsed: argparse.Namespace) -> int:
    import logging

    from fedagg import rerun
    from fedagg.errors import FedaggError

    logging.getLogger("flwr").setLevel(logging.ERROR)  # as for fedagg run
    try:
        if parsed.verb == "verify":
            return 0 if rerun.verify(parsed.path, parsed.overrides) else 1
        rerun.resume(parsed.path)
    except FedaggError as error:
        return complain(error)
    except KeyboardInterrupt as stop:
        if parsed.verb == "resume":
            say_how_to_go_on(parsed.path)
        return int(getattr(stop, "exit_code", 130))
    return 0


def _check(parsed: argparse.Namespace, rest: Sequence[str]) -> int:
    from fedagg.errors import FedaggError
    from fedagg.testing.command import check

    try:
        return check(parsed.path, [*parsed.overrides, *rest], parsed.exempt)
    except FedaggError as error:
        return complain(error)


def _list(group: str | None) -> int:
    from fedagg.errors import ConfigError

    groups = {folder.name: folder for folder in sorted(config_dir().iterdir()) if folder.is_dir() and folder.name != "machine"}
    if group is not None and group not in groups:
        return complain(ConfigError(f"no config group {group}{suggest(group, groups)}. Groups: {', '.join(groups)}"))
    for name, folder in groups.items():
        if group in (None, name):
            choices = [file for file in sorted(folder.glob("*.yaml")) if not file.stem.startswith("_")]
            print(name)
            for file in choices:
                first = file.read_text().splitlines()[0].lstrip("# ")
                print(f"  {file.stem:<20} {first.removeprefix('fedagg run ')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
