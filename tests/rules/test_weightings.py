"""How much each client counts."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import strategies
from fedagg import Cohort
from strategies import ByExamples, Mean, Uniform

from . import properties


def cohort(counts, ids=None):
    n = len(counts)
    return Cohort(
        round=3,
        client_ids=ids or list(range(n)),
        updates=torch.arange(2.0 * n).view(n, 2),
        params=torch.zeros(2),
        num_examples=torch.tensor(counts, dtype=torch.float64),
    )


@pytest.mark.parametrize(
    ("weighting", "counts", "wanted"),
    [
        (ByExamples(), [10, 30, 60], [0.1, 0.3, 0.6]),
        (ByExamples(), [5], [1.0]),
        (ByExamples(), [0, 7, 0], [0.0, 1.0, 0.0]),
        (ByExamples(cap=20), [10, 30, 10**9], [0.2, 0.4, 0.4]),
        (ByExamples(cap=0.5), [1, 2], [0.5, 0.5]),
        (ByExamples(), [1e308, 1e308], [0.5, 0.5]),
        (Uniform(), [10, 30, 60, 10**9], [0.25, 0.25, 0.25, 0.25]),
    ],
    ids=str,
)
def test_value(weighting, counts, wanted):
    weights = weighting(cohort(counts))
    assert weights.dtype == torch.float64
    assert weights.tolist() == pytest.approx(wanted)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=8).filter(any))
def test_shares_of_the_examples(counts):
    weights = ByExamples()(cohort(counts)).tolist()
    assert weights == pytest.approx([count / sum(counts) for count in counts])
    assert math.fsum(weights) == pytest.approx(1.0, rel=1e-12)


def test_equal_counts_weigh_exactly_like_uniform():
    assert torch.equal(ByExamples()(cohort([3] * 7)), Uniform()(cohort([3] * 7)))


def test_nobody_has_examples():
    seen = cohort([0, 0, 0, 0])
    with pytest.warns(UserWarning, match="every client of round 3 claims 0 examples"):
        weights = ByExamples()(seen)
    assert weights.tolist() == [0.25] * 4
    assert not seen.num_examples.any()


@pytest.mark.parametrize("count", [-1.0, math.nan, math.inf])
def test_impossible_counts_name_the_client(count):
    with pytest.raises(ValueError, match=rf"counts >= 0; client 17 claims {count} examples"):
        ByExamples()(cohort([4.0, count, 5.0], ids=[2, 17, 30]))


@pytest.mark.parametrize("cap", [0, -3, math.nan])
def test_impossible_cap(cap):
    with pytest.raises(ValueError, match=f"cap > 0, or None for no cap; got cap={cap}"):
        ByExamples(cap=cap)


def test_with_the_mean_it_is_federated_averaging():
    seen = cohort([1, 3])
    assert Mean()(seen.updates, ByExamples()(seen)).tolist() == pytest.approx([0.25 * 0 + 0.75 * 2, 0.25 * 1 + 0.75 * 3])


@pytest.mark.parametrize("weighting", [ByExamples(), ByExamples(cap=3.5), Uniform()], ids=str)
def test_manners(weighting):
    seen = cohort([1, 2, 9])
    counts, updates = seen.num_examples.clone(), seen.updates.clone()
    with properties.global_generators_untouched():
        weighting(seen).fill_(7.0)
    assert torch.equal(seen.num_examples, counts)
    assert torch.equal(seen.updates, updates)
    assert eval(repr(weighting), {**vars(strategies)}) == weighting


def test_tags():
    assert [str(w) for w in (Uniform(), ByExamples(), ByExamples(cap=100))] == ["Uniform", "ByExamples", "ByExamples-cap=100"]
