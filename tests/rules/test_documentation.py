"""What the documentation of the strategies shows is what happens."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import strategies

MODULES = ["strategies", *(found.name for found in pkgutil.walk_packages(strategies.__path__, "strategies."))]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", strategies.__all__)
def test_every_method_is_documented(name):
    method = getattr(strategies, name)
    text = inspect.getdoc(method)
    for part in ("Shapes:", "Bound:", "Cost:", "Example:", ">>> "):
        assert part in text, f"{name} lacks {part!r}"
    assert f"{name}(" in text
