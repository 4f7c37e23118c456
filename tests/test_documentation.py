"""What the documentation shows is what happens: docstrings, the README's Python, its commands as far as their config."""

import doctest
import importlib
import inspect
import pkgutil
import re
import shlex
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import fedagg
import strategies
from fedagg import attacks
from fedagg.data.fashion import DEBIAN_FOLDER
from fedagg.experiment import build
from fedagg.hydra_app import compose

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


MODULES = [
    found.name
    for package in (fedagg, strategies)
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if "configs" not in found.name
]


@pytest.mark.parametrize("name", [*MODULES, "strategies"])
def test_docstring_examples_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize(("package", "name"), [(p, name) for p in (strategies, attacks) for name in p.__all__])
def test_every_method_says_what_one_must_know(package: object, name: str) -> None:
    text = inspect.getdoc(getattr(package, name)) or ""
    for part in ("Shapes:", "Bound:", "Cost:", "Example:", ">>> ", f"{name}("):
        assert part in text, f"{name} lacks {part!r}"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_python_blocks_run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    namespace: dict[str, object] = {"__name__": "readme"}
    monkeypatch.setitem(sys.modules, "readme", type(sys)("readme"))  # dataclasses look their module up
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)
    accuracies = [float(line) for line in capsys.readouterr().out.split()]
    assert len(accuracies) == 2
    assert accuracies[0] > accuracies[1]  # ours under attack, and Flower's owned by the same attackers
    assert "Agreeing" in namespace


@pytest.mark.parametrize("page", ["certified", "frl", "voting"])
def test_python_blocks_of_a_page_run(page: str) -> None:
    namespace: dict[str, object] = {}
    found = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / f"{page}.md").read_text(), re.DOTALL)
    assert found
    for block in found:
        exec(compile(block, f"{page}.md", "exec"), namespace)


@pytest.mark.parametrize("command", [line for block in blocks("bash") for line in block.splitlines() if "fedagg run" in line])
def test_commands_compose(command: str) -> None:
    overrides = [word for word in shlex.split(command)[2:] if word != "-m"]
    cfg = compose([override.split(",")[0] for override in overrides])
    if cfg.data._target_.endswith("fashion_mnist") and not Path(DEBIAN_FOLDER).exists():
        pytest.skip("needs the full data: apt-get install dataset-fashion-mnist")
    assert build(cfg).f >= 0


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_commands_of_pages_can_be_typed(page: Path) -> None:
    """A word of ``fedagg run`` is a setting or an option; words that explain stand behind a #."""
    for line in re.findall(r"^ *(fedagg run .*[^\\])$", page.read_text(), re.MULTILINE):
        words = shlex.split(line, comments=True)[1:]
        prose = [word for before, word in pairwise(words) if not (before.startswith("--") or "=" in word or word[0] in "-~")]
        assert not prose, line


def test_every_key_of_the_table_exists() -> None:
    table = re.search(r"\| key \| meaning \|\n(.*?)\n\n", README, re.DOTALL)
    assert table
    keys = {key for row in table.group(1).splitlines() for key in re.findall(r"`([\w.]+)`", row.split("|")[1])}
    cfg = compose(["engine=ray"])  # which has what the other engines have, and more
    known = {key for key in keys - {"hydra.run.dir"} if OmegaConf.select(cfg, key, default="absent") != "absent"}
    assert known == keys - {"hydra.run.dir"}


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "experiments").glob("**/*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"
