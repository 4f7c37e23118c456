"""Aggregation rules of other libraries, by the name of ours that does the same: those that can be imported here.

They come without their dependencies: pip install --no-deps byzfl==0.0.11 torchjd==0.18.0 qpsolvers quadprog. Of byzfl only the
rules are imported; the package itself would import its experiments, with torchvision and seaborn. Flower's rules are those
of ``flwr.server.strategy.aggregate``, which take NumPy arrays.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from torch import Tensor

Call = Callable[[], object]


def peers(updates: Tensor, f: int, small_f: int) -> dict[str, dict[str, Call]]:
    """Return our rule -> library -> what to time. ``small_f`` is for rules that look at every subset."""
    found: dict[str, dict[str, Call]] = {}
    for library, calls in (("byzfl", _byzfl), ("torchjd", _torchjd), ("flwr", _flower)):
        if find_spec(library) is not None:
            for ours, call in calls(updates, f, small_f).items():
                found.setdefault(ours, {})[f"{library} {version(library)}"] = call
    return found


def _byzfl(updates: Tensor, f: int, small_f: int) -> dict[str, Call]:
    spec = find_spec("byzfl")
    package = ModuleType("byzfl")
    package.__path__ = list(spec.submodule_search_locations or []) if spec else []
    sys.modules.setdefault("byzfl", package)
    rules: Any = import_module("byzfl.aggregators.aggregators")
    before: Any = import_module("byzfl.aggregators.preaggregators")
    theirs = {
        "Mean": rules.Average(),
        "Median": rules.Median(),
        "TrimmedMean": rules.TrMean(f),
        "MeaMed": rules.Meamed(f),
        "Krum": rules.Krum(f),
        "MultiKrum": rules.MultiKrum(f),
        "GeometricMedian, 3 passes": rules.GeometricMedian(nu=0.1, T=3),
        "MDA": rules.MDA(small_f),
        "SMEA": rules.SMEA(small_f),
        "CAF": rules.CAF(f),
        "MoNNA": rules.MoNNA(f),
        "CenteredClip": rules.CenteredClipping(),
        "NNM": before.NNM(f),
        "Bucketing": before.Bucketing(s=2),
        "StaticClip": lambda rows: before.Clipping(c=100.0)(rows.clone()),  # it changes its input
        "ARC": lambda rows: before.ARC(f)(rows.clone()),  # so does this
    }
    return {ours: lambda rule=rule: rule(updates) for ours, rule in theirs.items()}


def _torchjd(updates: Tensor, f: int, small_f: int) -> dict[str, Call]:
    rules: Any = import_module("torchjd.aggregation")
    theirs = {
        "Mean": rules.Mean(),
        "TrimmedMean": rules.TrimmedMean(f),
        "Krum": rules.Krum(f),
        "MultiKrum": rules.Krum(f, len(updates) - f),
        "UPGrad": rules.UPGrad(),
    }
    return {ours: lambda rule=rule: rule(updates) for ours, rule in theirs.items()}


def _flower(updates: Tensor, f: int, small_f: int) -> dict[str, Call]:
    rules: Any = import_module("flwr.server.strategy.aggregate")
    results = [([row], 1) for row in updates.numpy()]
    n = len(results)
    return {
        "Mean": lambda: rules.aggregate(results),
        "Median": lambda: rules.aggregate_median(results),
        "TrimmedMean": lambda: rules.aggregate_trimmed_avg(results, f / n),
        "Krum": lambda: rules.aggregate_krum(results, f, 0),
        "MultiKrum": lambda: rules.aggregate_krum(results, f, n - f),
        "Bulyan": lambda: rules.aggregate_bulyan(list(results), f, rules.aggregate_krum, to_keep=0),  # it takes rows out
    }
