"""Every published method keeps every promise that it does not have a reason not to make."""

import pytest

import fedagg.attacks
import strategies
from fedagg import PreAggregator, Rule, Strategy, Weighting
from fedagg.testing import check_strategy, examine
from strategies import Median

from .published import PUBLISHED

NAMES = sorted({*strategies.__all__, *fedagg.attacks.__all__})
AVAILABLE = [made for made in PUBLISHED if made.name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_every_method_is_in_the_table(name):
    assert name in {made.name for made in PUBLISHED}


@pytest.mark.parametrize("made", AVAILABLE, ids=str)
def test_it_keeps_its_promises(made):
    assert {o.name: o.detail for o in examine(made.plugin, made.exempt) if o.failed} == {}


@pytest.mark.parametrize("name", sorted({made.name for made in AVAILABLE if made.name in strategies.__all__}))
def test_a_strategy_made_of_it_keeps_its_promises(name):
    plugin = next(made.plugin for made in AVAILABLE if made.name == name)
    if isinstance(plugin, Rule):
        check_strategy(Strategy(plugin))
    elif isinstance(plugin, PreAggregator):
        check_strategy(Strategy(Median(), pre_aggregators=[plugin]))
    elif isinstance(plugin, Weighting):
        check_strategy(Strategy(weighting=plugin))
    elif isinstance(plugin, Strategy):
        check_strategy(plugin)
