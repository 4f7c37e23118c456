"""Certificates against the truth: every small electorate, and everything that poisoned models could do to it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from strategies.protocols.certified import dpa, finite_aggregation, run_off_election, spread_matrix
from tests.protocols.certified_reference import (
    Poisoned,
    all_ballots,
    electorates,
    plurality,
    run_off,
    strict_ballots,
    true_radii,
    vote,
)

slow = pytest.mark.slow


@pytest.mark.parametrize(("classes", "k"), [(2, 1), (2, 7), (2, 8), (3, 1), (3, 2), (3, 7), (3, 8), (3, 9), (4, 5), (5, 4)])
def test_dpa_is_the_true_radius(classes: int, k: int) -> None:
    ballots = [tuple(float(c == label) for c in range(classes)) for label in range(classes)]
    voters = electorates(ballots, k)
    prediction, radius = dpa([[vote(model) for model in models] for models in voters], classes)
    assert prediction.tolist() == [plurality(models) for models in voters]
    assert radius.tolist() == true_radii(voters, ballots, plurality).tolist()


@pytest.mark.parametrize(
    ("classes", "k", "loose"),
    [
        *[(2, k, 0) for k in range(1, 12)],
        *[(3, k, 0) for k in range(1, 6)],
        *[(3, 6, 9), (3, 7, 15), (3, 8, 11), (3, 9, 18)],
        *[(4, k, 0) for k in range(1, 4)],
        *[pytest.param(3, k, loose, marks=slow) for k, loose in [(10, 54), (11, 66)]],
        pytest.param(4, 4, 42, marks=slow),
    ],
)
def test_run_off_election_never_claims_too_much(classes: int, k: int, loose: int) -> None:
    """The certificate lets one model take part in both of the changes that it needs. Where none can, the truth is one more."""
    ballots = strict_ballots(classes)
    voters = electorates(ballots, k)
    prediction, radius = run_off_election(np.array(voters))
    beyond = true_radii(voters, ballots, run_off) - radius
    assert prediction.tolist() == [run_off(models) for models in voters]
    assert set(beyond) <= {0, 1}
    assert beyond.sum() == loose


@pytest.mark.parametrize("k", [1, 2, 3, 4, pytest.param(5, marks=slow)])
def test_run_off_election_never_claims_too_much_where_logits_tie(k: int) -> None:
    """A tie counts against the winner, though a model that has one may have voted for it."""
    ballots = all_ballots(3)
    voters = electorates(ballots, k)
    prediction, radius = run_off_election(np.array(voters))
    assert prediction.tolist() == [run_off(models) for models in voters]
    assert (radius >= 0).all()
    assert (radius <= true_radii(voters, ballots, run_off)).all()


IRREGULAR = [[0, 1], [1, 2], [5, 4], [3, 0], [6, 7], [7, 2], [0, 3]]  # seven buckets; learner 5 reads one, learner 0 three
SPREADS = [*(spread_matrix(8, shifts) for shifts in [(0, 1), (2, 0), (7, 6), (4, 0), (5, 2), (0, 1, 3)]), np.array(IRREGULAR)]
every_spread = pytest.mark.parametrize("spread", SPREADS, ids=lambda spread: "-".join(map(str, spread[0])))


@every_spread
def test_finite_aggregation_is_the_true_radius(spread: np.ndarray) -> None:
    ballots, kinds = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)], np.array(list(product(range(3), repeat=8)))
    prediction, radius = finite_aggregation(kinds, 3, spread)
    assert prediction.tolist() == [plurality([ballots[kind] for kind in models]) for models in kinds]
    beyond = Poisoned(ballots, 8, plurality).true_radii(kinds, spread) - radius
    assert not beyond.any()


@every_spread
@pytest.mark.parametrize("number", [5000, pytest.param(None, marks=slow)])
def test_finite_run_off_election_is_the_true_radius(spread: np.ndarray, number: int | None) -> None:
    """Of 6^8 electorates some, drawn at random; all of them in the slow twin."""
    ballots, everyone = strict_ballots(3), np.arange(6**8) if number is None else np.random.default_rng(0).choice(6**8, number)
    kinds = everyone[:, None] // 6 ** np.arange(8) % 6
    prediction, radius = run_off_election(np.array(ballots)[kinds], spread)
    poisoned = Poisoned(ballots, 8, run_off)
    assert (1 << prediction == poisoned.reach[poisoned.weights[kinds].sum(axis=1)]).all()
    beyond = poisoned.true_radii(kinds, spread) - radius
    assert not beyond.any()
