"""Where others differ, as docs/conformance.md has it: by ``variants``, and by the libraries themselves where they are."""

import math
import sys
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import pytest
import torch
from flwr.server.strategy.aggregate import aggregate_bulyan, aggregate_krum, aggregate_trimmed_avg
from flwr.serverapp.strategy import Bulyan, FedTrimmedAvg, Krum, MultiKrum

import strategies
from fedagg import attacks
from tests.flower.answers import EXAMINED, flower, one_round

from . import reference, reference_distance, reference_reputation, variants
from .checks import double
from .test_conformance import PAGE, X5, X7, XB, G, Z, loss, made, shown, tables

N, F = 7, 2  # of Z


def evaluated(formula):
    return eval(formula.strip("`"), {"n": N, "f": F})


# Krum

KRUMS = tables("### Krum and Multi-Krum")


@pytest.mark.parametrize("row", KRUMS, ids=lambda row: row["code"])
def test_krum(row):
    count, power = evaluated(row["other rows"]), int(row["power"])
    assert row["best row of `Z`"] == str(variants.krum_picks(Z, count, power, 1)[0])
    if row["in `Z`"] == "–":
        assert "`" not in row["Multi-Krum keeps"]
        return
    keep = evaluated(row["Multi-Krum keeps"])
    picks = variants.krum_picks(Z, count, power, keep)
    assert row["in `Z`"] == (shown(picks) if picks else "none: raises")


@pytest.mark.parametrize("row", KRUMS, ids=lambda row: row["code"])
def test_our_options_reproduce_it(row):
    names = {N - F - 2: "paper", N - F - 1: "byzfl"}
    if (count := evaluated(row["other rows"])) in names:
        rule = strategies.Krum(f=F, neighbours=names[count], power=int(row["power"]))
        rule(double(Z))
        assert row["best row of `Z`"] == str(rule.last_info["selected"].item())


# Bulyan

BULYANS = {
    "here; Flower, `flwr.server`": lambda: (reference_distance.bulyan_picks(XB, 1), reference_distance.bulyan(XB, 1)),
    "Flower, `flwr.serverapp`": lambda: variants.bulyan_one_shot(XB, 1),
    "Garfield": lambda: variants.bulyan_of_means(XB, 1),
    "krum": lambda: variants.bulyan_trimmed(XB, 1, 6),
    "krum, m = 1": lambda: variants.bulyan_trimmed(XB, 1, 1),
    "GAS, CRYPTO-KU": lambda: variants.bulyan_deviations(XB, 1),
    "FLPoison": lambda: variants.bulyan_unmapped(XB, 1),
}


def test_bulyan():
    assert [row["code"] for row in tables("### Bulyan")] == list(BULYANS)
    for row in tables("### Bulyan"):
        picks, result = BULYANS[row["code"]]()
        assert (row["rows of `XB`"], row["result"]) == ("–" if picks is None else shown(picks), shown(result))
    rule = strategies.Bulyan(f=1)
    assert shown(rule(double(XB)).tolist()) == tables("### Bulyan")[0]["result"]
    assert shown(rule.last_info["selected"].tolist()) == tables("### Bulyan")[0]["rows of `XB`"]


# Settings


@pytest.mark.parametrize("row", tables("### Settings under one name"), ids=lambda row: row["call"])
def test_settings(row):
    rule = made(row["call"])
    if isinstance(rule, strategies.CenteredClip):
        wanted = reference_reputation.centered_clip(X5, rule.tau, rule.L)
    else:
        wanted = reference_distance.geometric_median(X5, None, rule.nu, rule.T, rule.tol, rule.start)[0]
    assert row["on `X5`"] == shown(wanted) == shown(rule(double(X5)).tolist())


# Small inputs

SMALL = tables("### Small inputs on which they differ")
NAN = [[0.0], [1.0], [2.0], [3.0], [math.nan]]
SIGNS = [[1.0, 1.0], [1.0, 1.2], [1.2, 1.0], [10.0, 10.0]]
STEPS = [[1.0, 0.0], [0.5, 0.0], [0.0, 0.0], [-1.0, 0.0]]
CONFLICT = [[-0.004, 0.001, 0.001], [0.006, 0.001, 0.001]]
PAIRS = [[2.0, 4.0], [4.0, 1.0], [2.0, 0.0]]
SPREAD = [[0], [1], [3], [7], [20], [40]]
MODELS = [[10000.0], [10001.0], [10002.0], [10003.0], [10009.0]]
THEIRS = {  # where and call, as on the page -> what comes out there
    ("byzfl", "Krum(f=1)([[0], [1], [5]])"): lambda: variants.krum_argmin([[0.0], [1.0], [5.0]], 1),
    ("byzfl", "Krum(f=1)([[0], [1], [2], [3], [nan]])"): lambda: variants.krum_argmin(NAN, 3),
    ("byzfl", "CAF(f=0)(X5)"): lambda: variants.caf_by_power_step(X5, 0, [1.0, 0.0]),
    ("byzfl", "CAF(f=1)([[1], [1], [1]])"): lambda: variants.caf_by_power_step([[1.0]] * 3, 1, [1.0]),
    ("byzfl", "SMEA(f=1)([[2, 4], [4, 1], [2, 0]])"): lambda: one_of(
        variants.smea_by_power_step(PAIRS, 1, s) for s in ([1, 0], [0, 1], [3, 2])
    ),
    ("byzfl", "StaticClip(c=1)([[1e200]])"): lambda: variants.clip_by_squares([[1e200]], 1.0),
    ("byzfl", "CenteredClip()([[0], [nan]])"): lambda: variants.centered_clip_kept(
        [[[0.0], [math.nan]], [[0.5], [1.0]]], 100.0
    ),
    ("krum", "MoNNA(f=1)(X5)"): lambda: variants.monna_fewer(X5, 1, 0),
    ("krum", "MultiKrum(f=1)(X5)"): lambda: variants.krum_picks(X5, 2, 2, 5 - 2 * 1 - 3) or "raises",
    ("TorchJD", "UPGrad()([[-0.004, 0.001, 0.001], [0.006, 0.001, 0.001]])"): lambda: variants.upgrad_thresholded(CONFLICT),
    ("TorchJD", "Krum(f=2)([[0], [1], [3], [7], [20], [40]])"): lambda: SPREAD[variants.krum_picks(SPREAD, 2, 1, 1)[0]],
    ("Flower, FLPoison", "TrimmedMean(f=2)(X7)"): lambda: variants.trimmed_share(X7, 0.2),
    ("Flower", "MultiKrum(f=1)([[0], [1], [2], [3], [9]], [1, 1, 1, 1000, 1])"): lambda: variants.krum_weighted(
        [[0], [1], [2], [3], [9]], 2, 4, [1, 1, 1, 1000, 1]
    ),
    ("Flower", "Krum(f=2)([[0], [1], [5]])"): lambda: variants.krum_argmin([[0.0], [1.0], [5.0]], 1),
    ("Flower, `flwr.server`", "Krum(f=1)([[0], [1], [2], [3], [nan]])"): lambda: variants.krum_argmin(NAN, 2),
    ("Flower, `flwr.serverapp`", "Krum(f=1)([[10000], [10001], [10002], [10003], [10009]])"): lambda: variants.krum_of_gram(
        MODELS, 2
    ),
    ("Blades", "FLTrust(root_update=g)([[-1, 0], [-3, 0]])"): lambda: variants.fl_trust([[-1, 0], [-3, 0]], G, "divide"),
    ("FLPoison", "FLTrust(root_update=g)([[-1, 0], [-3, 0]])"): lambda: variants.fl_trust([[-1, 0], [-3, 0]], G, "mean"),
    ("Blades", "SignGuard(fraction=1)([[1, 1], [1, 1.2], [1.2, 1], [10, 10]])"): lambda: variants.sign_guard_clipped_first(
        SIGNS
    ),
    ("FLPoison", "SignGuard(fraction=1)([[1, 1], [1, -1], [-1, -1]])"): lambda: variants.sign_guard_by_density(
        [[1, 1], [1, -1], [-1, -1]]
    ),
    ("Blades, FLPoison", "DnC(f=1, b=1, T=20)([[9, 0, 0], [0, 9, 0], [0, 0, 9]])"): lambda: variants.dnc_strict(
        [[9, 0, 0], [0, 9, 0], [0, 0, 9]], 1, [[0], [1], [2]]
    ),
    ("authors", "FoolsGold()([[1, 0], [1, 0]])"): lambda: variants.fools_gold_divided([[1, 0], [1, 0]]),
    ("IBM FL", "Zeno(f=1, loss=loss)([[1, 0], [0.5, 0], [0, 0], [-1, 0]])"): lambda: variants.zeno_best(STEPS, 1, loss),
    ("epfml", "TrimmedMean(f=3)(X5)"): lambda: variants.trimmed_lowered(X5, 3),
    ("epfml", "MultiKrum(f=1, m=2, power=4)(X5)"): lambda: variants.krum_summed(X5, 2, 2),
    ("GAS, Garfield, NDSS21, ByzPy", "Median()(X7[:4])"): lambda: reference.median(X7[:4], even="lower"),
}


def one_of(results):
    """What chance decides."""
    *others, last = [shown(result) for result in results]
    return f"{', '.join(others)} or {last}"


def key(row):
    return row["where"], row["call"].strip("`")


def ours(call):
    """What the page's call gives here; its rows are made a tensor."""
    method, arguments = call.strip("`").rsplit(")(", 1)
    given = eval(f"({arguments[:-1]},)", {"X5": X5, "X7": X7, "nan": math.nan})
    try:
        return made(f"{method})")(*(double(rows) for rows in given)).tolist()
    except ValueError:
        return "raises"


def printed(value):
    if isinstance(value, str) or value is None:
        return str(value)
    return shown(value)


def test_every_line_has_its_variant():
    assert [key(row) for row in SMALL] == list(THEIRS)


@pytest.mark.parametrize("row", SMALL, ids=key)
def test_small_inputs(row):
    theirs = THEIRS[key(row)]()
    assert row["ours"] == printed(ours(row["call"]))
    assert row["theirs"] == (printed(theirs))
    assert row["ours"] != row["theirs"]


# Attacks

LAST = [0.1, -9.0, 5.0, -0.2]
OWN, FALLING = [[1.0, 2.0, 3.0, 4.0]], [[1.0, -4.0], [2.0, -3.0], [3.0, -2.0]]
HONEST, LONG = X5[:4], [[100.0 * x for x in row] for row in X5[:4]]
CGE = strategies.CGE(f=1)


def sent(attack, rows=HONEST, f=1, **context):
    return attack(double(rows), f, **context)[0].tolist()


def z_of(n, f):
    """ALIE's z, from what it sends beside honest rows of mean 0 and standard deviation 1."""
    h = n - f
    rows = double([[math.sqrt((h - 1) / 2)], [-math.sqrt((h - 1) / 2)], *[[0.0]] * (h - 2)])
    return attacks.ALIE()(rows, f)[0].item()


def gamma(attack, rows):
    attack(double(rows), 1)
    return float(attack.last_info["gamma"])


def ranges_of(attack, rows):
    """The least and the largest of many draws, to a tenth."""
    drawn = attack(double(rows), 2000)
    return [[round(float(x), 1) for x in pair] for pair in zip(drawn.amin(0), drawn.amax(0), strict=True)]


def cge(rows):
    return reference.mean([rows[i] for i in reference_distance.cge(rows, 1)])


def best_epsilon(search):
    attack = attacks.OptimalIPM(aggregator=CGE, search=search)
    attack(double(HONEST), 1)
    return float(attack.last_info["t"])


ATTACKS = [  # ours, theirs, line by line
    (lambda: z_of(50, 10), lambda: variants.z_as_probability(50, 10)),
    (lambda: z_of(25, 5), lambda: variants.z_of_all(25, 5)),
    (lambda: z_of(25, 5), lambda: 1.5),
    (lambda: z_of(25, 5), lambda: 0.21),
    (lambda: sent(attacks.ALIE(z=1.5)), lambda: variants.shifted(HONEST, 1.5, ddof=0)),
    (lambda: sent(attacks.ALIE(z=1.5)), lambda: variants.shifted(X5, 1.5, power=2)),
    (lambda: sent(attacks.SignFlip()), lambda: [-x for x in X5[4]]),
    (lambda: gamma(attacks.MinSum(), HONEST), lambda: variants.min_sum_least(HONEST)),
    (lambda: gamma(attacks.MinMax(dev="unit"), LONG), lambda: variants.min_max_halving(LONG)),
    (lambda: gamma(attacks.MinMax(dev="unit"), LONG), lambda: variants.min_max_bisected(LONG)),
    (lambda: ranges_of(attacks.FangTrimmedMean(), FALLING), lambda: variants.fang_masked_twice(FALLING)),
    (
        lambda: sent(attacks.Neurotoxin(ratio=0.5), [[0.0] * 4], own=double(OWN), last_delta=double(LAST)),
        lambda: variants.masked_signed(OWN[0], LAST, 0.5),
    ),
    (
        lambda: best_epsilon("grid"),
        lambda: variants.optimal_ipm_climbing(HONEST, 1, cge),
    ),
]


@pytest.mark.parametrize(
    ("row", "both"),
    list(zip(tables("## Attacks"), ATTACKS, strict=True)),
    ids=lambda x: x["where"] if isinstance(x, dict) else "",
)
def test_attacks(row, both):
    assert (row["ours"], row["theirs"]) == tuple(shown(value()) for value in both)
    assert row["ours"] != row["theirs"]


def test_our_options_reproduce_attacks():
    assert sent(attacks.ALIE(z=1.5, ddof=0)) == pytest.approx(variants.shifted(HONEST, 1.5, ddof=0))
    assert sent(attacks.SignFlip(of="own"), own=double(X5[4:])) == [-x for x in X5[4]]
    assert gamma(attacks.MinSum(bound="min"), HONEST) == pytest.approx(variants.min_sum_least(HONEST))
    assert gamma(attacks.MinMax(dev="unit", search="official"), LONG) == pytest.approx(
        variants.min_max_halving(LONG), abs=1e-4
    )
    assert best_epsilon("byzfl") == variants.optimal_ipm_climbing(HONEST, 1, cge)


# The libraries themselves


def after(strategy, rows, counts=None, **settings):
    """The parameters after a round in which clients send ``rows`` to a strategy of Flower's."""
    return one_round(strategy, rows, counts, **settings).arrays["theta"].numpy().tolist()


def legacy(aggregate, rows, *arguments, claims=None, **settings):
    """The same by a function of ``flwr.server``."""
    replies = [([np.array(row, dtype=float)], claim) for row, claim in zip(rows, claims or [1] * len(rows), strict=True)]
    return aggregate(replies, *arguments, **settings)[0].tolist()


def test_flower():
    three, five, claims = [[0.0], [1.0], [5.0]], [*NAN[:4], [9.0]], [1, 1, 1, 1000, 1]
    with flower("Krum counts max(1, n - f - 2) other rows, and asks for no number of clients"):
        assert after(Krum, Z, num_malicious_nodes=2) == legacy(aggregate_krum, Z, 2, 0) == Z[3]
        assert after(Krum, three, num_malicious_nodes=2) == legacy(aggregate_krum, three, 2, 0) == [0.0]
    with flower("a row of NaN wins"):
        assert math.isnan(legacy(aggregate_krum, NAN, 1, 0)[0])
    with flower("Multi-Krum weighs its picks by claimed examples"):
        wanted = pytest.approx(variants.krum_weighted(five, 2, 4, claims))
        assert after(MultiKrum, five, claims, num_malicious_nodes=1, num_nodes_to_select=4) == wanted
        assert legacy(aggregate_krum, five, 1, 4, claims=claims) == wanted
    with flower("distances are float32 differences of squared lengths"):
        assert after(Krum, MODELS, num_malicious_nodes=1) == variants.krum_of_gram(MODELS, 2)
    with flower("the trimmed mean cuts int(beta n) a side"):
        wanted = pytest.approx(variants.trimmed_share(X7, 0.2))
        assert after(FedTrimmedAvg, X7, beta=0.2) == wanted
        assert legacy(aggregate_trimmed_avg, X7, 0.2) == wanted
    with flower("there are two Bulyans"):
        assert legacy(aggregate_bulyan, XB, 1, aggregate_krum, to_keep=0) == pytest.approx(reference_distance.bulyan(XB, 1))
        assert after(Bulyan, XB, num_malicious_nodes=1) == pytest.approx(variants.bulyan_one_shot(XB, 1)[1])


def test_what_flower_loses_in_float32_is_kept_here():
    assert strategies.Krum(f=1)(torch.tensor(MODELS)).tolist() == [10001.0]


def test_the_page_speaks_of_the_flower_that_was_examined():
    assert f" Flower {EXAMINED}," in PAGE


def named(library, on_page):
    """Where ``library`` is, in the version that the page names; else the test is skipped."""
    spec = find_spec(library)
    if spec is None:
        pytest.skip(f"{library} is not installed")
    if f"{on_page} {version(library)}," not in PAGE:
        pytest.skip(f"the page does not speak of {library} {version(library)}")
    return list(spec.submodule_search_locations)


@pytest.fixture
def byzfl(monkeypatch):
    """byzfl's rules without the package around them, which imports its experiments."""
    package = ModuleType("byzfl")
    package.__path__ = named("byzfl", "byzfl")
    monkeypatch.setitem(sys.modules, "byzfl", package)
    return import_module("byzfl.aggregators.aggregators"), import_module("byzfl.aggregators.preaggregators")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_byzfl(byzfl):
    rules, before = byzfl
    assert rules.Krum(2)(np.array(Z, float)).tolist() == Z[variants.krum_picks(Z, 4, 2, 1)[0]]
    picks = variants.krum_picks(Z, 4, 2, 5)
    assert rules.MultiKrum(2)(np.array(Z, float)).tolist() == pytest.approx(reference.mean([Z[i] for i in picks]))
    assert rules.Krum(1)(np.array([[0.0], [1.0], [5.0]])).tolist() == [0.0]
    assert math.isnan(rules.Krum(1)(np.array(NAN)).item())
    assert rules.CAF(0)(np.array(X5)) is None
    assert rules.CAF(1)(np.ones((3, 1))) is None
    chances = {shown(rules.SMEA(1)(np.array(PAIRS)).tolist()) for _ in range(60)}
    assert chances <= {"[2, 2]", "[3, 0.5]", "[3, 2.5]"}
    assert before.Clipping(1.0)(np.array([[1e200]])).tolist() == variants.clip_by_squares([[1e200]], 1.0) == [[0.0]]
    clip = rules.CenteredClipping()
    clip(np.array([[0.0], [math.nan]]))
    assert math.isnan(clip(np.array([[0.5], [1.0]])).item())
    wanted = reference_distance.geometric_median(X5, None, 0.1, 3, 0.0, "zero")[0]
    assert rules.GeometricMedian()(np.array(X5)).tolist() == pytest.approx(wanted)


def test_torchjd():
    named("torchjd", "TorchJD")
    jd = import_module("torchjd.aggregation")
    assert jd.Krum(2)(double(Z)).tolist() == Z[variants.krum_picks(Z, 3, 1, 1)[0]]
    assert jd.Krum(2)(double(SPREAD)).tolist() == SPREAD[variants.krum_picks(SPREAD, 2, 1, 1)[0]]
    assert jd.UPGrad()(double(CONFLICT)).tolist() == pytest.approx(variants.upgrad_thresholded(CONFLICT))
