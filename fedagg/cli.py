"""The ``fedagg`` command. Heavy imports wait until a verb needs them, so that ``fedagg --help`` is quick."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fedagg.console import complain, config_dir, say_how_to_go_on, suggest

EXAMPLES = """\
examples:
  fedagg run                                             20 clients, digits, FedAvg, nobody hostile
  fedagg run strategy=krum attack=alie attack.fraction=0.2 seed=1
  fedagg run strategy=fedavg,median attack=none,ipm seed=0,1,2 -m      every combination
  fedagg run --help                                      the config groups, their choices and all keys
  fedagg resume runs/2026-11-02_09-30-00-000000          go on with a run that was stopped or killed
  fedagg verify runs/2026-11-02_09-30-00-000000          does it come out the same again, to the bit?
  fedagg report runs/2026-11-02_09-30-00-000000          table and figures from any number of runs
  fedagg partition partition=dirichlet partition.alpha=0.1             who holds what, as a picture
  fedagg list attack                                     the choices of a config group

exit codes: 0 done; 1 the run failed; 2 something in the command is wrong; 130, 143 stopped by Ctrl-C, SIGTERM (resume goes on)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["run"]:
        from fedagg.hydra_app import run

        return run(arguments[1:])
    parser = _parser()
    parsed, rest = parser.parse_known_args(arguments)
    if rest and parsed.verb != "partition":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if parsed.verb == "report":
        return _report(parsed)
    if parsed.verb == "partition":
        from fedagg.hydra_app import partition

        return partition([*parsed.overrides, *rest], parsed.out)
    if parsed.verb in ("resume", "verify"):
        return _again(parsed)
    if parsed.verb == "list":
        return _list(parsed.group)
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
    report.add_argument("paths", nargs="+", type=Path, metavar="DIR", help="run directories, or folders that hold them")
    report.add_argument("--out", type=Path, help="where to write (default: the report folder inside the one DIR given)")
    report.add_argument("--metric", default="accuracy", help="which metric on the test set (default: accuracy)")
    report.add_argument(
        "--protocol", default="final", help="final; last:K, the mean of the last K evaluations; best, the oracle's round"
    )
    partition = verbs.add_parser("partition", help="show who would hold which data: sizes, and a picture of labels by client")
    partition.add_argument("overrides", nargs="*", metavar="key=value", help="as for fedagg run")
    partition.add_argument("--out", type=Path, default=Path("partition.png"), help="the picture (default: partition.png)")
    again = verbs.add_parser("resume", help="go on with a run after its last checkpoint")
    again.add_argument("path", type=Path, metavar="RUN_DIR")
    verify = verbs.add_parser("verify", help="repeat a run in a temporary directory and compare, to the bit")
    verify.add_argument("path", type=Path, metavar="RUN_DIR")
    verify.add_argument("overrides", nargs="*", metavar="engine.key=value", help="repeat it on another engine")
    listing = verbs.add_parser("list", help="list the config groups and their choices")
    listing.add_argument("group", nargs="?", help="only this group")
    return parser


def _report(parsed: argparse.Namespace) -> int:
    from fedagg.errors import FedaggError
    from fedagg.report import report

    try:
        report(parsed.paths, out=parsed.out, metric=parsed.metric, protocol=parsed.protocol)
    except FedaggError as error:
        return complain(error)
    return 0


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
