"""fedagg: federated learning under attack. Which way of combining client updates survives, how well, and at what cost?

    >>> from fedagg import Adversary, Clients, LocalGrid, Strategy, run

Names below are loaded when they are first used, so that ``fedagg --help`` imports neither torch nor flwr.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Both are read when flwr and Ray are first imported; a value the user has set stays.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

__version__ = "0.1.0"

_HOME = {
    "Adversary": "fedagg.grid",
    "Attack": "fedagg.contracts",
    "Availability": "fedagg.grid",
    "Callback": "fedagg.loop",
    "Checkpoints": "fedagg.checkpoint",
    "Clients": "fedagg.clients",
    "ClientError": "fedagg.errors",
    "Cohort": "fedagg.cohort",
    "ConfigError": "fedagg.errors",
    "DatasetUnavailable": "fedagg.errors",
    "EdgePopup": "fedagg.clients",
    "Faults": "fedagg.grid",
    "FedaggError": "fedagg.errors",
    "LocalGrid": "fedagg.grid",
    "LocalSGD": "fedagg.clients",
    "Population": "fedagg.data",
    "PreAggregator": "fedagg.contracts",
    "RayGrid": "fedagg.grid.ray",
    "Rule": "fedagg.contracts",
    "Strategy": "fedagg.strategy",
    "Weighting": "fedagg.contracts",
    "load_study": "fedagg.study.table",
    "run": "fedagg.loop",
}

__all__ = [
    "Adversary",
    "Attack",
    "Availability",
    "Callback",
    "Checkpoints",
    "ClientError",
    "Clients",
    "Cohort",
    "ConfigError",
    "DatasetUnavailable",
    "EdgePopup",
    "Faults",
    "FedaggError",
    "LocalGrid",
    "LocalSGD",
    "Population",
    "PreAggregator",
    "RayGrid",
    "Rule",
    "Strategy",
    "Weighting",
    "__version__",
    "load_study",
    "run",
]

if TYPE_CHECKING:
    from fedagg.checkpoint import Checkpoints
    from fedagg.clients import Clients, EdgePopup, LocalSGD
    from fedagg.cohort import Cohort
    from fedagg.contracts import Attack, PreAggregator, Rule, Weighting
    from fedagg.data import Population
    from fedagg.errors import ClientError, ConfigError, DatasetUnavailable, FedaggError
    from fedagg.grid import Adversary, Availability, Faults, LocalGrid
    from fedagg.grid.ray import RayGrid
    from fedagg.loop import Callback, run
    from fedagg.strategy import Strategy
    from fedagg.study.table import load_study


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fedagg' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)
