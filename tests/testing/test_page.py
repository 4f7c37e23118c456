"""docs/plugins.md: its examples do what it says, and its table has every check."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from fedagg.testing import checks_of, examine
from fedagg.testing.common import EVERYBODY

from . import broken_attacks, broken_pre_aggregators, broken_rules, broken_strategies, broken_weightings

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
BLOCKS = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if not block.startswith(" ")]


@pytest.fixture
def my_pkg(monkeypatch):
    """The module that the page writes; its names are taken up as they are defined, so none may be used twice."""
    module = ModuleType("my_pkg")
    monkeypatch.setitem(sys.modules, "my_pkg", module)
    for block in BLOCKS:
        exec(compile(block, "plugins.md", "exec"), module.__dict__)
    return module


def broken(plugin):
    return {outcome.name for outcome in examine(plugin) if outcome.failed}


def test_the_rule_breaks_what_the_page_says_and_the_cure_helps(my_pkg):
    assert broken(my_pkg.Agreeing(f=2)) == {"bounded"}
    shown = re.search(r"^  broken  bounded  (.*)$", PAGE, re.MULTILINE)
    (promise,) = [check.promise for check in checks_of(my_pkg.Agreeing(f=2)) if check.name == "bounded"]
    assert shown
    assert shown[1] == promise

    source = next(block for block in BLOCKS if "class Agreeing" in block)
    (cure,) = re.findall(r"```python\n( .*?)```", PAGE, re.DOTALL)
    exec(source.replace("        return weights\n", cure), my_pkg.__dict__)
    assert broken(my_pkg.Agreeing(f=2)) == set()


def test_the_weighting_and_the_attack_keep_their_promises(my_pkg):
    assert broken(my_pkg.Trusting()) == set()
    assert broken(my_pkg.Median()) == set()
    assert my_pkg.Median()(torch.tensor([[1.0], [2.0], [7.0]]), 2).tolist() == [[-2.0], [-2.0]]


def test_its_test_is_one_per_plugin_and_promise(my_pkg):
    ids = [parameter.id for parameter in my_pkg.test_contract.pytestmark[0].args[1]]
    assert "Krum-2-permutation" in ids
    assert "SignMajority-equal_rows" in ids


def test_the_table_has_every_check():
    everybody = [(check.name, check.promise) for check in EVERYBODY]
    kinds = [broken_rules, broken_pre_aggregators, broken_weightings, broken_attacks, broken_strategies]
    wanted = list(everybody)
    for kind in kinds:
        wanted += [pair for check in checks_of(kind.SOUND[0]) if (pair := (check.name, check.promise)) not in everybody]
    rows = re.findall(r"^\| [a-z -]* \| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE)
    assert [(name, f"{promise}.") for name, promise in rows] == wanted
