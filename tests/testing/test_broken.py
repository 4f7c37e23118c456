"""Every check catches a plug-in that breaks just this, and no other check minds."""

import pytest

from fedagg.testing import checks_of, examine
from fedagg.testing.common import EVERYBODY

from . import (
    broken_attacks,
    broken_manners,
    broken_pre_aggregators,
    broken_rules,
    broken_strategies,
    broken_weightings,
)

KINDS = [broken_manners, broken_rules, broken_pre_aggregators, broken_weightings, broken_attacks, broken_strategies]
SOUND = [plugin for kind in KINDS for plugin in kind.SOUND]
BROKEN = [pytest.param(make, broken, id=type(make()).__name__) for kind in KINDS for make, broken in kind.BROKEN]


@pytest.mark.parametrize("plugin", SOUND, ids=lambda plugin: type(plugin).__name__)
def test_a_sound_plugin_passes(plugin):
    assert {o.name: o.detail for o in examine(plugin) if o.failed} == {}


@pytest.mark.parametrize(("make", "broken"), BROKEN)
def test_a_broken_one_is_caught_and_not_blamed_for_more(make, broken):
    found = {o.name: o.detail for o in examine(make()) if o.failed}
    assert set(found) == broken, found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__.split("_")[-1])
def test_every_check_has_something_that_it_catches(kind):
    caught = {name for _, broken in kind.BROKEN for name in broken}
    everybody = {check.name for check in EVERYBODY}  # the same functions for all kinds
    own = {check.name for check in checks_of(kind.SOUND[0])} - everybody
    assert caught >= (everybody if kind is broken_manners else own)
