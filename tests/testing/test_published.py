"""Every published method keeps every promise that it does not have a reason not to make."""

import pytest

import fedagg.attacks
import strategies
from fedagg import PreAggregator, Rule, Strategy, Weighting
from fedagg.testing import check_strategy, examine
from fedagg.testing.command import build
from strategies import Median

from .published import PUBLISHED

NAMES = sorted({*strategies.__all__, *fedagg.attacks.__all__})
REQUIRED = {
    "GAS": ["rule={_target_: strategies.Median}"],
    "QFedAvg": ["q=2", "lr=0.1"],
    "RobustLearningRate": ["theta=3"],
    "StaticClip": ["c=1.0"],
    "TERM": ["t=1.0"],
}
AVAILABLE = [made for made in PUBLISHED if made.name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_every_method_is_in_the_table(name):
    assert name in {made.name for made in PUBLISHED}


@pytest.mark.parametrize("made", AVAILABLE, ids=str)
def test_it_keeps_its_promises(made):
    outcomes = examine(made.plugin)
    assert {o.name: o.detail for o in outcomes if o.failed} == {}
    assert {o.name for o in outcomes if o.result == "exempt"} == made.exempt


@pytest.mark.parametrize("name", sorted({made.name for made in AVAILABLE}))
def test_what_a_class_says_it_does_not_promise_shows_at_some_setting(name):
    rows = [made for made in AVAILABLE if made.name == name]
    assert set(getattr(rows[0].plugin, "exempt", ())) == {check for made in rows for check in made.exempt}


@pytest.mark.parametrize("name", [name for name in NAMES if not issubclass(getattr(strategies, name, object), Strategy)])
def test_the_command_meets_it_in_the_table_at_its_defaults(name):
    """What ``fedagg check NAME`` tries, with f=1 and values for what else is required."""
    package = "strategies" if name in strategies.__all__ else "fedagg.attacks"
    assert repr(build(f"{package}.{name}", REQUIRED.get(name, []))) in {repr(made.plugin) for made in AVAILABLE}


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
