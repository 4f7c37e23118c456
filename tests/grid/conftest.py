"""What tests of the world share."""

import pytest

from fedagg import LocalGrid, Population
from tests.faults import EVERYBODY, Ask, Canned


@pytest.fixture
def examples(population: Population) -> list[int]:
    return [len(population.indices[client]) for client in EVERYBODY]


@pytest.fixture
def canned(grid: LocalGrid, ask: Ask) -> Canned:
    return Canned(grid, ask(EVERYBODY))
