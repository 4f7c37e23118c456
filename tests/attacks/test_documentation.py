"""What the documentation of the attacks shows is what happens."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

from fedagg import attacks

MODULES = ["fedagg.attacks", *(found.name for found in pkgutil.walk_packages(attacks.__path__, "fedagg.attacks."))]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", attacks.__all__)
def test_every_attack_is_documented(name):
    text = inspect.getdoc(getattr(attacks, name))
    for part in ("Shapes:", "Bound:", "Cost:", "Example:", ">>> "):
        assert part in text, f"{name} lacks {part!r}"
    assert f"{name}(" in text
