"""What authors call: objects in, one readable error out; exemptions; tests for pytest."""

import copy
from dataclasses import dataclass

import pytest
import torch
from flwr.serverapp.strategy import FedAvg, Krum

from fedagg import ConfigError, Strategy
from fedagg.attacks import ALIE, IPM
from fedagg.testing import (
    BrokenContract,
    BrokenPromise,
    check_attack,
    check_pre_aggregator,
    check_rule,
    check_strategy,
    check_weighting,
    checks_of,
    examine,
    parametrize_with_checks,
    rows,
)
from strategies import ByExamples, Median, TrimmedMean

from .broken_attacks import Poisoner, ScalesUp
from .broken_manners import SortsInPlace
from .broken_pre_aggregators import Halfway, Shrinks
from .broken_rules import Shortest, Signs
from .broken_strategies import CountsInSecret
from .broken_weightings import ByClaims, ByPlace
from .my_plugins import Half


@pytest.mark.parametrize(
    ("check", "sound", "broken", "name"),
    [
        (check_rule, Median(), Signs(), "equal_rows"),
        (check_pre_aggregator, Halfway(), Shrinks(), "equal_rows_stay"),
        (check_weighting, ByClaims(), ByPlace(), "follows_clients"),
        (check_attack, Poisoner(), ScalesUp(), "sends_own"),
        (check_strategy, Strategy(), CountsInSecret(), "resumes"),
    ],
)
def test_one_function_per_kind(check, sound, broken, name):
    check(sound)
    with pytest.raises(BrokenContract, match=f"breaks 1 promise:\n{name}: ") as caught:
        check(broken)
    assert isinstance(caught.value, AssertionError)
    assert [outcome.name for outcome in caught.value.outcomes] == [name]
    check(broken, exempt={name: "a test needs it"})


def test_all_broken_promises_are_listed_with_contract_finding_and_input():
    with pytest.raises(BrokenContract) as caught:
        check_rule(Half(f=1))
    text = str(caught.value)
    assert text.startswith("Half-1 breaks 3 promises:\nequal_rows: Clients that all send the same row get that row")
    assert "\nhull: " in text
    assert "\ntranslation: Moving all rows moves the result as far." in text
    first = [round(value, 4) for value in rows(0, 3, 3)[0].tolist()]
    halves = ", ".join(f"{value / 2:.6g}" for value in rows(0, 3, 3)[0].tolist())
    assert f"equal rows: [{halves}] instead of" in text
    assert "with rows(seed=0, n=3, d=3, scale=1.0, common=1.0) = [[" in text
    assert str(first[0])[:5] in text


def test_an_input_can_be_made_again_from_its_message():
    assert rows(3, 4, 2).dtype == torch.float64
    torch.testing.assert_close(rows(3, 4, 2, scale=1e-5, common=1.0), 1.0 + 1e-5 * (rows(3, 4, 2) - 1.0), rtol=0, atol=1e-15)
    assert torch.equal(rows(3, 4, 2), rows(3, 4, 2))
    assert not torch.equal(rows(3, 4, 2), rows(4, 4, 2))


def test_checks_leave_the_plugin_alone():
    rule = TrimmedMean(f=2)
    before = copy.deepcopy(vars(rule))
    check_rule(rule)
    assert vars(rule) == before


def test_stale_exemptions_are_told():
    with pytest.raises(BrokenContract, match=r"scale: stale exemption: it is kept on every input tried\. The .*: no idea"):
        check_rule(Median(), exempt={"scale": "no idea"})
    with pytest.raises(BrokenContract, match="state: stale exemption: Median does not promise this at all"):
        check_rule(Median(), exempt={"state": "it has none"})


@pytest.mark.parametrize("plugin", [Signs(), Shortest(), Shrinks(), ByPlace(), ScalesUp(), SortsInPlace()], ids=str)
def test_no_check_is_spared_by_the_exemption_of_another(plugin):
    broken = {outcome.name for outcome in examine(plugin) if outcome.failed}
    left = {outcome.name for outcome in examine(plugin, {"tag": "so"}) if outcome.result == "broken"}
    assert left == broken


@pytest.mark.parametrize(
    ("exempt", "message"),
    [
        ({"transaltion": "it moves"}, r"exempt: no check transaltion \(did you mean translation\?\)\. Checks: answers, "),
        ({"translation": ""}, "exempt: translation needs a reason, a sentence for whoever reads it; got ''"),
        ({"translation": "  "}, "exempt: translation needs a reason"),
        ({"translation": None}, "exempt: translation needs a reason.*got None"),
    ],
)
def test_impossible_exemptions(exempt, message):
    with pytest.raises(ConfigError, match=message):
        check_rule(Median(), exempt=exempt)
    with pytest.raises(ConfigError, match=message):
        parametrize_with_checks([(Median(), exempt)])


@pytest.mark.parametrize(
    ("check", "plugin", "message"),
    [
        (check_rule, Median, r"this checks a Rule; got the class Median; give an object, Median\(\.\.\.\)"),
        (check_rule, ALIE(), r"this checks a Rule; got ALIE\("),
        (check_attack, Median(), r"this checks a Attack; got Median\("),
        (check_strategy, Median(), r"this checks a Strategy; got Median\("),
        (examine, 3, "there are checks for a Rule, PreAggregator, Weighting, Attack or Strategy; got 3"),
    ],
)
def test_what_is_no_plugin(check, plugin, message):
    with pytest.raises(ConfigError, match=message):
        check(plugin)


def test_foreign_strategies_are_checked_too():
    check_strategy(FedAvg(fraction_evaluate=0.0))
    check_strategy(Krum(num_malicious_nodes=1, fraction_evaluate=0.0))


@pytest.mark.parametrize(
    "kind", [Median(), Halfway(), ByExamples(), ALIE(), Strategy()], ids=lambda plugin: type(plugin).__name__
)
def test_checks_have_distinct_names_and_say_what_is_promised(kind):
    checks = checks_of(kind)
    assert len({check.name for check in checks}) == len(checks)
    assert all(check.promise.endswith(".") for check in checks)


@dataclass(frozen=True)
class SaysItGivesSigns(Signs):
    exempt = {"equal_rows": "it gives signs", "scale": "at another setting"}  # noqa: RUF012


class SaysNothingKnown(Signs):
    exempt = {"equal_row": "it gives signs"}  # noqa: RUF012


def test_a_class_may_state_its_exemptions():
    check_rule(SaysItGivesSigns())
    outcomes = {outcome.name: outcome for outcome in examine(SaysItGivesSigns())}
    assert (outcomes["equal_rows"].result, outcomes["equal_rows"].detail) == ("exempt", "it gives signs")
    assert all(outcome.result == "kept" for name, outcome in outcomes.items() if name != "equal_rows")
    (found,) = [outcome for outcome in examine(SaysItGivesSigns(), {"equal_rows": "signs"}) if outcome.name == "equal_rows"]
    assert found.detail == "signs"
    with pytest.raises(ConfigError, match=r"exempt: no check equal_row \(did you mean equal_rows\?\)"):
        examine(SaysNothingKnown())


# For pytest


@parametrize_with_checks([TrimmedMean(f=2), IPM(), ByExamples(), (Signs(), {"equal_rows": "signs"}), SaysItGivesSigns()])
def test_contract(plugin, check):
    check(plugin)


def test_parameters_are_named_after_plugin_and_check():
    mark = parametrize_with_checks([TrimmedMean(f=2), (Signs(), {"equal_rows": "it gives signs"})]).mark
    parameters = {parameter.id: parameter for parameter in mark.args[1]}
    assert "TrimmedMean-2-permutation" in parameters
    assert "TrimmedMean-2-state" not in parameters  # it promises none
    (xfail,) = parameters["Signs-equal_rows"].marks
    assert xfail.name == "xfail"
    assert xfail.kwargs == {"reason": "it gives signs", "strict": True, "raises": BrokenPromise}
    assert not any(parameter.marks for name, parameter in parameters.items() if name != "Signs-equal_rows")
    plugin, check = parameters["Signs-equal_rows"].values
    with pytest.raises(BrokenPromise, match="Clients that all send the same row"):
        check(plugin)


def test_an_exemption_that_cannot_be_needed_is_refused():
    with pytest.raises(ConfigError, match="stale exemption: Median does not promise state at all"):
        parametrize_with_checks([(Median(), {"state": "it has none"})])
