"""Settings that cannot work raise, and the message says what was required, what was found, and who says so."""

import re

import numpy as np
import pytest
import torch

import strategies
from fedagg import PreAggregator, Rule
from strategies import Krum, Mean, Median, MultiKrum, TrimmedMean
from tests.testing.published import PUBLISHED


@pytest.mark.parametrize(
    ("rule", "n", "message"),
    [
        (TrimmedMean(f=2), 4, "n >= 2f + 1 (Yin et al. 2018); got n=4, f=2"),
        (TrimmedMean(f=0), 0, "n >= 2f + 1 (Yin et al. 2018); got n=0, f=0"),
        (TrimmedMean(f=-1), 4, "f >= 0 and n >= 2f + 1 (Yin et al. 2018); got n=4, f=-1"),
        (Krum(f=2), 4, "Krum needs n >= 2f + 3 (Blanchard et al. 2017); got n=4, f=2"),
        (Krum(f=2), 6, "n >= 2f + 3 (Blanchard et al. 2017); got n=6, f=2"),
        (Krum(f=1, neighbours="byzfl"), 4, "n >= 2f + 3 (Blanchard et al. 2017); got n=4, f=1"),
        (Krum(f=0), 0, "n >= 2f + 3 (Blanchard et al. 2017); got n=0, f=0"),
        (Krum(f=-1), 4, "f >= 0 and n >= 2f + 3 (Blanchard et al. 2017); got n=4, f=-1"),
        (MultiKrum(f=2), 6, "MultiKrum needs n >= 2f + 3 (Blanchard et al. 2017); got n=6, f=2"),
        (MultiKrum(f=1, m=0), 5, "1 <= m <= n (it averages m of the n rows); got n=5, f=1, m=0"),
        (MultiKrum(f=1, m=6), 5, "1 <= m <= n (it averages m of the n rows); got n=5, f=1, m=6"),
        (Mean(), 0, "n >= 1 rows; got n=0"),
        (Median(), 0, "Median needs n >= 1; got n=0"),
    ],
    ids=str,
)
def test_bound(rule, n, message):
    with pytest.raises(ValueError) as caught:
        rule(torch.zeros(n, 3))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "n"),
    [
        (TrimmedMean(f=2), 5),
        (TrimmedMean(f=0), 1),
        (Krum(f=2), 7),
        (Krum(f=0), 3),
        (MultiKrum(f=2, m=7), 7),
        (Mean(), 1),
        (Median(), 1),
    ],
    ids=str,
)
def test_the_bound_itself_is_allowed(rule, n):
    assert rule(torch.ones(n, 3)).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Median(even="upper"), "Median needs even in ['midpoint', 'lower']; got 'upper'"),
        (lambda: Krum(f=1, neighbours="all"), "Krum needs neighbours in ['paper', 'byzfl']; got 'all'"),
        (lambda: Krum(f=1, power=3), "Krum needs power in [1, 2, 4]; got 3"),
        (lambda: MultiKrum(f=1, power=0), "MultiKrum needs power in [1, 2, 4]; got 0"),
    ],
)
def test_constructor(build, message):
    with pytest.raises(ValueError) as caught:
        build()
    assert message in str(caught.value)


def test_weights_of_the_wrong_length_raise():
    with pytest.raises(ValueError, match=r"\[4\], one for each row; got \[3\]"):
        Mean()(torch.zeros(4, 2), torch.ones(3))


@pytest.mark.parametrize("rule", [Krum(f=1), MultiKrum(f=1, m=3)], ids=str)
def test_rows_whose_distances_overflow_are_never_picked(rule):
    updates = torch.randn(7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    updates[2] = 1e200
    weights = rule.client_weights(updates)
    assert weights[2] == 0
    with pytest.raises(ValueError, match="fewer than 7 rows"):
        MultiKrum(f=1, m=7)(updates)
    with pytest.raises(ValueError, match="fewer than"):
        rule(1e200 * updates[[0, 1, 3, 4, 5, 6]])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: strategies.TrimmedMean(1.0), "TrimmedMean needs an integer f; got f=1.0"),
        (lambda: strategies.Krum("1"), "Krum needs an integer f; got f='1'"),
        (lambda: strategies.MDA(f=True), "MDA needs an integer f; got f=True"),
        (lambda: strategies.MultiKrum(1, m=2.0), "MultiKrum needs an integer m, or None; got m=2.0"),
        (lambda: strategies.Bucketing(1.5), "Bucketing needs an integer s; got s=1.5"),
        (lambda: strategies.GAS(1, strategies.Median(), p=2.5), "GAS needs an integer p; got p=2.5"),
        (lambda: strategies.CenteredClip(L=1.5), "CenteredClip needs an integer L; got L=1.5"),
    ],
)
def test_what_is_no_integer_is_refused_by_name(make, said):
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        make()


def test_integers_of_numpy_are_integers():
    assert repr(strategies.MultiKrum(np.int64(1), m=np.int32(2))) == repr(strategies.MultiKrum(1, m=2))


MADE = [made.plugin for made in PUBLISHED if made.name in strategies.__all__]
ROW_WISE = [plugin for plugin in MADE if isinstance(plugin, Rule | PreAggregator)]


@pytest.mark.parametrize("plugin", ROW_WISE, ids=str)
def test_rows_of_another_shape_or_kind_are_refused(plugin):
    for updates in (torch.ones(7), torch.ones(7, 2, 2), torch.ones(7, 2, dtype=torch.int64)):
        context = {"root_update": torch.ones(2), "loss": float} if isinstance(plugin, Rule) else {}
        found = re.escape(f"got {updates.dtype} of shape {list(updates.shape)}")
        with pytest.raises(ValueError, match=rf"^{type(plugin).__name__} needs updates \[n, d\] of floating-point.*{found}"):
            plugin(updates, **{name: context[name] for name in context if name in plugin.needs})
