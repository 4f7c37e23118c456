"""What docs/conformance.md says of our methods is so: its numbers, bounds, ties, weights, and what changes nothing."""

import inspect
import math
import re
from itertools import permutations
from pathlib import Path

import pytest
import torch

import strategies
from fedagg import PreAggregator, Rule

from . import properties, reference, reference_distance, reference_reputation, reference_subspace
from .checks import double, seeded

PAGE = (Path(__file__).parents[2] / "docs" / "conformance.md").read_text()


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def tables(heading):
    """The rows of all tables under a heading and its subheadings, as dicts."""
    level = len(heading.split()[0])
    section = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{level}}} |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section, f"no heading {heading!r}"
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", section.group(1), re.MULTILINE):
        names, _, *lines = table.splitlines()
        found += [dict(zip(cells(names), cells(line), strict=True)) for line in lines]
    return found


def shown(value):
    """A number or a list of numbers as the page prints it: whole, or to four digits."""
    if isinstance(value, float | int):
        return f"{value:.0f}" if abs(value % 1) < 1e-12 else f"{value:.4g}"
    return f"[{', '.join(shown(v) for v in value)}]"


INPUTS = {row["input"].strip("`"): eval(row["rows"]) for row in tables("# Conformance") if "rows" in row}
X5, X7, XB, Z = (INPUTS[name] for name in ("X5", "X7", "XB", "Z"))
G = [1.0, 0.0]
METHODS = sorted(name for name in strategies.__all__ if issubclass(getattr(strategies, name), Rule | PreAggregator))
DEFINED = tables("## What each method computes")
BEHAVIOUR = {row["method"].strip("`"): row for row in tables("## How each one behaves")}


def loss(step):
    return sum((float(x) - g) ** 2 for x, g in zip(step, G, strict=True))


def made(call):
    return eval(call.strip("`"), {**vars(strategies), "g": double(G), "loss": loss})


BY_REFERENCE = {  # method -> its result on XB, from the equations
    "Mean": lambda: reference.mean(XB),
    "Median": lambda: reference.median(XB),
    "TrimmedMean": lambda: reference.trimmed_mean(XB, 1),
    "MeaMed": lambda: reference_distance.mea_med(XB, 1),
    "Phocas": lambda: reference_distance.phocas(XB, 1),
    "Krum": lambda: reference.krum(XB, 1),
    "MultiKrum": lambda: reference.multi_krum(XB, 1),
    "Bulyan": lambda: reference_distance.bulyan(XB, 1),
    "GeometricMedian": lambda: reference_distance.geometric_median(XB, T=2000)[0],
    "Medoid": lambda: XB[reference_distance.first_least(reference_distance.medoid(XB))],
    "CGE": lambda: mean_of(reference_distance.cge(XB, 1)),
    "MoNNA": lambda: mean_of(reference_distance.monna(XB, 1)),
    "MDA": lambda: mean_of(reference_distance.mda(XB, 1)),
    "SMEA": lambda: mean_of(reference_distance.smea(XB, 1)[0]),
    "CAF": lambda: reference.mean(XB, reference_distance.caf(XB, 1)[0].tolist()),
    "DnC": lambda: reference_reputation.dnc(XB, 1, 1.0, [[0, 1]])[1],
    "GAS": lambda: reference_subspace.gas(XB, 1, reference.median, [[0], [1]])[1],
    "FlagAggregator": lambda: reference_subspace.flag(XB, 1, 0.0, 5, "svd")[1].tolist(),
    "UPGrad": lambda: reference.mean(XB, reference_subspace.upgrad_weights(XB).tolist()),
    "CenteredClip": lambda: reference_reputation.centered_clip(XB, 1.0),
    "SignMajority": lambda: [reference_reputation.sign(s) for s in reference_reputation.sign_sums(XB)],
    "RobustLearningRate": lambda: reference_reputation.robust_learning_rate(XB, 4),
    "FLTrust": lambda: reference_reputation.fl_trust(XB, G)[1],
    "FoolsGold": lambda: reference.mean(XB, shares(reference_reputation.fools_gold_alpha(XB))),
    "FLAME": lambda: reference_reputation.flame(XB)[1],
    "SignGuard": lambda: reference_reputation.sign_guard(XB, 0, 2)[1],
    "Zeno": lambda: reference_reputation.zeno(XB, 1, loss, 5e-4, 1.0)[1],
    "NNM": lambda: reference_distance.nnm(XB, 1)[-1],
    "Bucketing": lambda: reference_distance.buckets(XB, range(7), 7)[-1],
    "StaticClip": lambda: reference_distance.static_clip(XB, 1.0)[-1],
    "ARC": lambda: reference_distance.arc(XB, 1)[-1],
}


def mean_of(kept):
    return reference.mean([XB[i] for i in kept])


def shares(numbers):
    return [x / math.fsum(numbers) for x in numbers]


def name_of(row):
    return row["method"].strip("`").split("(")[0]


def test_every_method_is_on_the_page_once():
    assert sorted(name_of(row) for row in DEFINED) == METHODS
    assert sorted(BEHAVIOUR) == METHODS
    assert len(tables("## How each one behaves")) == len(METHODS)


@pytest.mark.parametrize("row", DEFINED, ids=name_of)
def test_what_it_computes(row):
    wanted = BY_REFERENCE[name_of(row)]()
    got = made(row["method"])(double(XB))
    assert row["on `XB`"] == shown(wanted)
    torch.testing.assert_close(got if got.ndim == 1 else got[-1], double(wanted), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("row", DEFINED, ids=name_of)
def test_cost_and_source_are_those_of_its_docstrings(row):
    method = getattr(strategies, name_of(row))
    costs = re.search(r"Cost: (.*?)\n    \w", inspect.getsource(method), re.DOTALL).group(1)
    assert [cost in costs for cost in re.findall(r"`(O\(.*?\))`", row["time"])] == [True]
    about = inspect.getmodule(method).__doc__
    for word in re.findall(r"\w\w[\w. ]*\w", row["source"].replace("et al.", "")):
        assert word.strip() in about, f"{word!r} is not in the docstring of {method.__module__}"


# How each one behaves

BEHAVES = pytest.mark.parametrize("name", METHODS)
ARGUMENTS = {
    "FLAME": {"lam": 0.0},
    "GAS": {"rule": strategies.Median()},
    "RobustLearningRate": {"theta": 0},
    "StaticClip": {"c": 1.0},
    "Bucketing": {"s": 2},
}


def build(name, f=1, **arguments):
    """The method with this f, if it has one."""
    method = getattr(strategies, name)
    if "f" in inspect.signature(method).parameters:
        arguments["f"] = f
    return method(**{**ARGUMENTS.get(name, {}), **arguments})


def call(method, rows, weights=None):
    if isinstance(method, PreAggregator):
        return method(rows)
    context = {"root_update": rows.new_ones(rows.shape[1]), "loss": lambda step: float((step - 1).square().sum())}
    return method(rows, weights, **{name: value for name, value in context.items() if name in method.needs})


def random_rows(n, d=3, seed=0):
    return torch.randn(n, d, generator=seeded(seed), dtype=torch.float64) + 1


def conditions(name):
    return re.findall(r"`([^`]* [<>]=? [^`]*)`", BEHAVIOUR[name]["bound"])


@BEHAVES
@pytest.mark.parametrize("f", [1, 2])
def test_bound(name, f):
    least = conditions(name)[0].removeprefix("n >= ")
    n = eval(re.sub(r"(\d)f", r"\1*f", least), {"f": f})
    assert call(build(name, f), random_rows(n)).isfinite().all()
    with pytest.raises(ValueError) as caught:
        call(build(name, f), random_rows(n - 1) if n > 1 else torch.zeros(0, 3))
    message = str(caught.value)
    assert name in message or name == "Mean"  # there the sum itself refuses
    assert f"n={n - 1}" in message
    assert ("f" in least) <= (f"f={f}" in message)


BROKEN = {  # another condition -> calls that break it, calls that just meet it
    "1 <= m <= n": ([lambda: run("MultiKrum", m=0), lambda: run("MultiKrum", m=8)], [lambda: run("MultiKrum", m=7)]),
    "nu > 0": ([lambda: run("GeometricMedian", nu=0.0)], [lambda: run("GeometricMedian", nu=1e-300)]),
    "T >= 1": ([lambda: run("GeometricMedian", T=0)], [lambda: run("GeometricMedian", T=1)]),
    "0 <= reference < n": (
        [lambda: run("MoNNA", reference=-1), lambda: run("MoNNA", reference=7)],
        [lambda: run("MoNNA", reference=6)],
    ),
    "C(n, f) <= max_subsets": (
        [lambda: run("MDA", max_subsets=6), lambda: run("SMEA", max_subsets=6)],
        [lambda: run("MDA", max_subsets=7), lambda: run("SMEA", max_subsets=7)],
    ),
    "floor(c f) < n": ([lambda: run("DnC", c=7.0)], [lambda: run("DnC", c=6.9)]),
    "1 <= r <= min(n, d)": (
        [lambda: run("FlagAggregator", r=0), lambda: run("FlagAggregator", r=3)],
        [lambda: run("FlagAggregator", r=2)],
    ),
    "tau > 0": ([lambda: run("CenteredClip", tau=0.0)], [lambda: run("CenteredClip", tau=1e-300)]),
    "L >= 1": ([lambda: run("CenteredClip", L=0)], [lambda: run("CenteredClip", L=1)]),
    "0 <= theta <= n": (
        [lambda: run("RobustLearningRate", theta=-1), lambda: run("RobustLearningRate", theta=8)],
        [lambda: run("RobustLearningRate", theta=7)],
    ),
    "s >= 1": ([lambda: run("Bucketing", s=0)], [lambda: run("Bucketing", s=1)]),
    "c > 0": ([lambda: run("StaticClip", c=0.0)], [lambda: run("StaticClip", c=1e-300)]),
}


def run(name, **arguments):
    return call(build(name, **arguments), double(XB))


def test_every_other_condition():
    assert {c for name in METHODS for c in conditions(name) if not c.startswith("n >= ")} == set(BROKEN)
    for breaks, meets in BROKEN.values():
        for broken in breaks:
            with pytest.raises(ValueError, match=r"needs .*; got "):
                broken()
        for met in meets:
            assert met().isfinite().all()


def test_what_else_must_be_given():
    for name, wanted in {"FLTrust": "a root update", "Zeno": "a loss"}.items():
        assert BEHAVIOUR[name]["bound"].endswith(wanted)
        with pytest.raises(ValueError, match=f"{name} needs"):
            build(name)(double(XB))
    assert BEHAVIOUR["GAS"]["bound"].endswith("that of `rule`")
    with pytest.raises(ValueError, match="Krum needs n >= 2f"):
        run("GAS", rule=strategies.Krum(f=3))
    rest = {re.sub(r"`[^`]*`|, | and ", "", row["bound"]) for row in BEHAVIOUR.values()}
    assert rest == {"", "a root update", "a loss", "that of "}


LINE = [[0.0], [1.0], [2.0]]
SQUARE = [[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]
HALVES = [[1.0, 1.0], [1.0, 1.0], [1.0, -1.0], [1.0, -1.0]]
FAR = [[-3.0], [-2.0], [0.0], [0.5], [2.0], [1000.0], [-1e6]]  # Bulyan picks the five first; -2 and 2 are as near to 0
TWO_LINES = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
EIGHT = [[1.0] * 8, [1.0] * 7 + [-1.0]]  # MeanShift puts features with more positive entries first
TIED = {  # method -> the cell, and an input on which ties decide, with who is selected or what comes out
    "MeaMed": ("smaller value", build("MeaMed"), LINE, [0.5]),
    "Phocas": ("smaller value", build("Phocas"), LINE, [0.5]),
    "Krum": ("lowest row", build("Krum", 0), SQUARE, {0}),
    "MultiKrum": ("lowest row", build("MultiKrum", 0, m=2), SQUARE, {0, 1}),
    "Bulyan": ("lowest row, then smaller value", build("Bulyan"), FAR, [-0.5]),
    "Medoid": ("lowest row", build("Medoid"), SQUARE, {0}),
    "CGE": ("lowest row", build("CGE"), SQUARE, {0, 1, 2}),
    "MoNNA": ("the reference, then lowest row", build("MoNNA", reference=1), LINE, {1, 0}),
    "MDA": ("first subset", build("MDA"), LINE, {0, 1}),
    "SMEA": ("first subset", build("SMEA"), LINE, {0, 1}),
    "GAS": ("lowest row", build("GAS"), LINE, {1, 0}),
    "SignMajority": ("0", build("SignMajority"), HALVES, [1.0, 0.0]),
    "RobustLearningRate": (
        "not turned",
        build("RobustLearningRate", theta=4),
        [[3.0], *LINE[1:], [-1.0], [5.0], [1.0]],
        [11 / 6],
    ),
    "SignGuard": ("first cluster", build("SignGuard", fraction=1), [[-x for x in row] for row in EIGHT] + EIGHT, {2, 3}),
    "DnC": ("lowest row", build("DnC"), [[0.0], [5.0], [5.0], [0.0], [0.0]], {0, 1, 3, 4}),
    "Zeno": ("lowest row", build("Zeno"), [[1.0], [1.0], [1.0]], {0, 1}),
    "NNM": ("itself, then lowest row", build("NNM"), LINE, [0.5, 0.5, 1.5]),
    "FlagAggregator": ("rounding decides", build("FlagAggregator", r=1), TWO_LINES, {(0.0, 2.0), (2.0, 0.0)}),
}


@BEHAVES
def test_ties(name):
    cell = BEHAVIOUR[name]["ties"]
    if cell == "none":
        assert name not in TIED
        return
    says, method, rows, wanted = TIED[name]
    assert cell == says
    if cell == "rounding decides":  # which of several goes by the order of equal rows
        orders = map(list, permutations(range(len(rows))))
        assert {tuple(call(method, double(rows)[order]).round(decimals=6).abs().tolist()) for order in orders} == wanted
        return
    got = call(method, double(rows)).flatten().tolist()
    assert wanted == (set(method.last_info["selected"].tolist()) if isinstance(wanted, set) else pytest.approx(got))


@pytest.mark.parametrize(
    "name", [name for name in METHODS if BEHAVIOUR[name]["ties"] in ("none", "smaller value", "0", "not turned")]
)
def test_where_no_row_wins_a_tie_the_order_of_equal_rows_does_not_matter(name):
    if name == "Bucketing":  # whose order is drawn
        return
    several = [[0, 1], [0, 1], [1, 0], [1, 1], [-1, 0], [0, -1], [-1, 1]]
    for rows, step in ((double(several), 397), (double(TWO_LINES), 5)):
        results = []
        for order in list(permutations(range(len(rows))))[::step]:
            result = call(build(name), rows[list(order)])
            results.append(result if result.ndim == 1 else result[torch.tensor(order).argsort()])
        for result in results:
            torch.testing.assert_close(result, results[0], rtol=1e-6, atol=1e-6)


@BEHAVES
def test_weights(name):
    method, cell = build(name), BEHAVIOUR[name]["weights"]
    if isinstance(method, PreAggregator):
        assert cell == "–"
        return
    assert cell == ("used" if method.uses_weights else "ignored")
    claims = torch.tensor([0.1, 0.4, 0.1, 0.1, 0.1, 0.1, 0.1], dtype=torch.float64)
    assert torch.equal(call(build(name), double(XB), claims), call(build(name), double(XB))) == (cell == "ignored")


def equal(weights, count):
    return sorted(weights.tolist()) == pytest.approx([0.0] * (len(weights) - count) + [1 / count] * count)


GIVEN = {
    "1 to one": lambda w: equal(w, 1),
    "1/m to m": lambda w: equal(w, 3),
    "1/(n - f) to n - f": lambda w: equal(w, 6),
    "1/k to k": lambda w: equal(w, int((w > 0).sum())),
    "at most 1/k to k": lambda w: float(w.max()) <= 1 / int((w > 0).sum()) + 1e-12 and w.unique().numel() > 2,
    "shares of 1": lambda w: float(w.sum()) == pytest.approx(1) and (w >= 0).all() and not equal(w, 6),
    "1/n or more": lambda w: float(w.min()) >= 1 / 7 - 1e-12 and float(w.sum()) > 1.1,
    "scaled trust": lambda w: float(w @ double(XB).norm(dim=1)) == pytest.approx(2**0.5) and w[-1] == 0,
}


@BEHAVES
def test_what_clients_get(name):
    cell = BEHAVIOUR[name]["clients get"]
    assert (cell == "–") == (not hasattr(getattr(strategies, name), "client_weights"))
    if cell != "–":
        method = build(name, **({"m": 3} if name == "MultiKrum" else {}))
        call(method, double(XB))
        assert GIVEN[cell](method.last_info["client_weights"])


@BEHAVES
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_rows_of_nan_and_infinity_are_refused_by_number(name, value):
    rows = double(XB)
    rows[2, 1] = rows[5, 0] = value
    with pytest.raises(ValueError, match=rf"{name} needs finite updates; rows \[2, 5\]"):
        call(build(name), rows)


@BEHAVES
def test_rows_that_are_too_long(name):
    rows = double(XB)
    rows[6] = torch.tensor([1e200, -1e200], dtype=torch.float64)
    method, cell = build(name), BEHAVIOUR[name]["too long"]
    if cell == "refused":
        with pytest.raises(ValueError, match=rf"{name} needs rows .*\[6\]"):
            call(method, rows)
        return
    result = call(method, rows)
    longest, weights = rows[:6].norm(dim=1).max(), method.last_info.get("client_weights")
    if cell == "used":
        assert result.abs().max() > 1e100
    elif cell == "clipped":
        assert 1 - 1e-9 <= result[6].norm() <= longest + 1e-9
    elif cell == "outvoted":
        assert result.abs().max() <= longest
        assert method.coordinatewise
    else:
        assert cell == "left out"
        assert 6 not in method.last_info["selected"] if weights is None else weights[6] == 0


@BEHAVES
def test_invariances(name):
    cell, method = BEHAVIOUR[name]["same for"], build(name)
    letters = set(re.findall(r"\b[PTSO]\b", cell))
    if isinstance(method, Rule):
        assert letters == {word[0].upper() for word in method.invariances}
        return
    for letter, holds in zip("TSO", list(properties.INVARIANCES.values())[1:], strict=True):
        rows = 3 * random_rows(7)
        if letter in letters:
            holds(method, rows)
        else:
            with pytest.raises(AssertionError):
                holds(method, rows)
    order = [3, 1, 6, 0, 2, 5, 4]
    moved = method.keeps_clients and torch.allclose(method(random_rows(7)[order]), method(random_rows(7))[order])
    assert moved == ("P" in letters)


def test_invariances_that_hang_on_a_setting():
    rows, turned = 3 * random_rows(7), properties.orthogonally_equivariant
    for name, cell, setting in (("FLAME", "O if lam = 0", {"lam": 0.5}), ("DnC", "O if b >= d", {"b": 1})):
        assert BEHAVIOUR[name]["same for"].endswith(cell)
        turned(build(name), rows)
        with pytest.raises(AssertionError):
            turned(build(name, **setting), rows)
    assert BEHAVIOUR["GAS"]["same for"].endswith("others as `rule`")
    for holds in (properties.translation_equivariant, properties.scale_equivariant):
        holds(build("GAS"), rows)
    with pytest.raises(AssertionError):
        properties.translation_equivariant(build("GAS", rule=build("CGE")), rows)
