"""``fedagg check`` as a user meets it."""

import re
import subprocess
import sys
import textwrap

import pytest

GOOD = ["check", "tests.testing.my_plugins.Lower"]
BAD = ["check", "tests.testing.my_plugins.Half"]


def test_one_line_per_check(command):
    done = command(*GOOD)
    assert done.code == 0
    first, *lines, last = done.out.splitlines()
    assert first == "Lower(f=1)"  # what a required f is when none is given
    assert last == f"{len(lines)} checks, all kept"
    assert {line.split()[0] for line in lines} == {"kept"}
    assert "kept    permutation" in done.out
    assert "The order of the rows does not matter." in done.out


def test_arguments_are_yaml(command):
    assert command(*GOOD, "f=3").out.startswith("Lower(f=3)\n")
    assert command("check", "strategies.Median", "even=lower").out.startswith("Median(even='lower')\n")
    strategy = command("check", "fedagg.Strategy", "rule={_target_: strategies.Krum, f: 1}", "seed=3")
    assert strategy.code == 0
    assert "no_replies" in strategy.out
    assert command("check", "fedagg.attacks.IPM", "epsilon=1e-1").code == 0


def test_what_is_broken_is_shown_with_its_input(command):
    done = command(*BAD)
    assert done.code == 1
    broken = re.findall(r"^  broken  (\w+)", done.out, re.MULTILINE)
    assert broken == ["equal_rows", "hull", "translation"]
    assert re.search(r"instead of .*\n +with rows\(seed=0, n=3, d=3, scale=1.0, common=1.0\) = \[\[", done.out)
    assert done.out.splitlines()[-1].endswith("checks, 3 failed")


def test_exemptions(command):
    reasons = [f"--exempt={name}=it halves" for name in ("equal_rows", "hull", "translation")]
    done = command(*BAD, *reasons)
    assert done.code == 0
    assert re.search(r"^  exempt  equal_rows +it halves$", done.out, re.MULTILINE)
    stale = command(*GOOD, "--exempt", "scale=I thought it would not")
    assert stale.code == 1
    assert re.search(r"^  stale   scale +stale exemption: it is kept.*I thought it would not$", stale.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["Krum"], r"^error: Krum has no module; write it as in an import, like my_pkg\.Krum"),
        (["strategies.Krm"], r"^error: strategies\.Krm does not exist \(did you mean Krum\?\)\. Classes there: .*Median"),
        (["strategees.Krum"], r"^error: strategees\.Krum: No module named 'strategees'\. It must be in this folder"),
        (["strategies.rules"], r"^error: strategies\.rules is no class"),
        (["strategies.Krum", "neigbours=byzfl"], r"Krum takes f, neighbours, power; did you mean neighbours for neigbours\?"),
        (["strategies.Krum", "neighbours=all"], r"neighbours in \['paper', 'byzfl'\]; got 'all'"),
        (["strategies.Krum", "f"], r"^error: f is not key=value"),
        (["strategies.Krum", "power=[1"], r"^error: power=\[1: "),
        (["fedagg.Population"], r"^error: check \(Population\): "),
        (["fedagg.data.IID"], r"^error: there are checks for a Rule, PreAggregator, Weighting, Attack or Strategy; got IID"),
        ([*GOOD[1:], "--exempt", "trnslation=no"], r"^error: exempt: no check trnslation \(did you mean translation\?\)"),
        ([*GOOD[1:], "--exempt", "translation="], "^error: exempt: translation needs a reason"),
        ([*GOOD[1:], "--exempt", "translation"], "^error: translation is not check=reason"),
        ([], "the following arguments are required: CLASS"),
    ],
)
def test_mistakes(command, words, message):
    done = command("check", *words)
    assert done.code == 2
    assert re.search(message, done.err, re.MULTILINE), done.err


def test_help_loads_nothing_heavy():
    code = """
        import contextlib, sys
        from fedagg.cli import main
        with contextlib.suppress(SystemExit):
            main(["check", "--help"])
        print(sorted({"torch", "flwr", "hydra", "omegaconf", "numpy", "pytest"} & set(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert "CLASS" in done.stdout


def test_the_checks_need_no_test_tools():
    code = "import sys, fedagg.testing; print(sorted({'pytest', '_pytest', 'hypothesis'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
