"""Federated Rank Learning: rankings, the vote, the mask, what they cost, and the server's half."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fedagg import Cohort, ConfigError
from fedagg.attacks import RankReversal
from fedagg.rankings import positions
from fedagg.server_optimizers import FedAvgM
from fedagg.testing import check_strategy
from strategies import FRL, NNM, Mean, Uniform
from strategies.protocols.frl import frl_mask, frl_rank, frl_vote, ranking_bits, traffic
from tests.resume.parts import KillAfter, Killed
from tests.running import run_into

SCORES = [[0.9, 0.1, 0.5, -0.3, 0.4, -0.8], [0.7, 0.2, 0.6, -0.1, -0.5, 0.3], [0.8, -0.2, 0.1, 0.4, 0.5, -0.6]]
RANKINGS = [[5, 3, 1, 4, 2, 0], [4, 3, 1, 5, 2, 0], [5, 1, 2, 3, 4, 0]]
INITIAL = [0.31, -0.25, 0.05, -0.4, 0.12, 0.38]
ELECTED = [0.38, -0.25, 0.31, 0.05, 0.12, -0.40]
LENET = [288, 18_432, 1_605_632, 1_280]


def slow_rank(scores: list[float], by_magnitude: bool = False) -> list[int]:
    return sorted(range(len(scores)), key=lambda edge: (abs(scores[edge]) if by_magnitude else scores[edge], edge))


def slow_vote(rankings: list[list[int]], initial: list[float]) -> list[float]:
    sums = [sum(ranking.index(edge) for ranking in rankings) for edge in range(len(initial))]
    new = [0.0] * len(initial)
    for value, edge in zip(sorted(initial), sorted(range(len(initial)), key=lambda edge: (sums[edge], edge)), strict=True):
        new[edge] = value
    return new


def slow_mask(scores: list[float], sparsity: float, by_magnitude: bool) -> list[bool]:
    out = set(slow_rank(scores, by_magnitude)[: int((1 - sparsity) * len(scores))])
    return [edge not in out for edge in range(len(scores))]


def test_worked_example() -> None:
    rankings = torch.stack([frl_rank(torch.tensor(scores)) for scores in SCORES])
    assert rankings.tolist() == RANKINGS
    assert positions(rankings).tolist() == [[5, 2, 4, 1, 3, 0], [5, 2, 4, 1, 0, 3], [5, 1, 2, 3, 4, 0]]
    elected = frl_vote(rankings, torch.tensor(INITIAL))
    assert elected.tolist() == pytest.approx(ELECTED)
    assert frl_mask(elected, 0.5).tolist() == [True, False, True, False, False, True]
    assert frl_rank(torch.tensor(SCORES[0]), "abs").tolist() == [1, 3, 4, 2, 5, 0]
    assert frl_mask(elected, 0.5, "signed").tolist() == [True, False, True, False, True, False]


@pytest.mark.parametrize("seed", range(20))
def test_against_plain_loops_with_ties(seed: int) -> None:
    draw = random.Random(seed)
    m, n = draw.randint(1, 30), draw.randint(1, 7)
    tied = [draw.choice([-1.0, -0.5, -0.0, 0.0, 0.5, 1.0]) for _ in range(m)]
    for by in ("signed", "abs"):
        assert frl_rank(torch.tensor(tied), by).tolist() == slow_rank(tied, by == "abs")
        for sparsity in (0.01, 0.3, 0.5, 0.77, 1.0):
            found = frl_mask(torch.tensor(tied), sparsity, by)
            assert found.tolist() == slow_mask(tied, sparsity, by == "abs")
    rankings = [draw.sample(range(m), m) for _ in range(n)]
    initial = [draw.uniform(-1, 1) for _ in range(m)]
    found = frl_vote(torch.tensor(rankings), torch.tensor(initial, dtype=torch.float64))
    assert found.tolist() == slow_vote(rankings, initial)
    backwards = frl_vote(torch.tensor(rankings[::-1]), torch.tensor(sorted(initial), dtype=torch.float64))
    assert torch.equal(found, backwards)  # neither the order of clients counts nor that of the initial scores


def test_shapes_and_dtypes() -> None:
    scores = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(frl_rank(scores), frl_rank(scores.flatten()))
    assert frl_rank(scores).dtype == torch.int64
    mask = frl_mask(scores, 0.5)
    assert (mask.shape, mask.dtype, int(mask.sum())) == (scores.shape, torch.bool, 12)
    rankings = frl_rank(scores)[None]
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert frl_vote(rankings, scores.flatten().to(dtype)).dtype == dtype
    assert torch.equal(frl_vote(rankings.int(), scores.flatten()), scores.flatten())  # one client gets what it wants
    half = frl_mask(scores.to(torch.bfloat16), 0.25)
    assert int(half.sum()) == 6


def test_what_is_left_out_is_truncated_as_floats_are() -> None:
    """(1 - 0.9) * 10 is a little below 1, and 0.4 * 10, as 1 - 0.6, exactly 4."""
    assert int(frl_mask(torch.arange(10.0), 0.9).sum()) == 10
    assert int(frl_mask(torch.arange(10.0), 0.6).sum()) == 6
    assert int(frl_mask(torch.arange(7.0), 0.5).sum()) == 4
    assert int(frl_mask(torch.arange(7.0), np.float32(0.5)).sum()) == 4


@pytest.mark.parametrize("sparsity", [0, -0.1, 1.01, float("nan"), True, "0.5"])
def test_sparsity(sparsity: float) -> None:
    with pytest.raises(ValueError, match=r"sparsity, the fraction of edges that is kept, must lie in \(0, 1\]; got"):
        frl_mask(torch.arange(4.0), sparsity)
    with pytest.raises(ValueError, match="must lie in"):
        FRL(sparsity=sparsity)


@pytest.mark.parametrize("mask_by", ["abs", "signed"])
def test_a_mask_of_scores_without_an_order(mask_by: str) -> None:
    with pytest.raises(ValueError, match="a mask needs scores that have an order; 2 of 4 are NaN"):
        frl_mask(torch.tensor([1.0, torch.nan, -1.0, torch.nan]), 0.5, mask_by)
    infinite = torch.tensor([1.0, torch.inf, -torch.inf, 2.0])  # these have one
    assert frl_mask(infinite, 0.5, mask_by).tolist() == [False, True, mask_by == "abs", mask_by == "signed"]


def test_unknown_orders() -> None:
    with pytest.raises(ValueError, match=r"rank_by must be signed or abs; got 'sined' \(did you mean signed\?\)"):
        frl_rank(torch.arange(3.0), "sined")
    with pytest.raises(ValueError, match="mask_by must be signed or abs; got 'score'"):
        frl_mask(torch.arange(3.0), 0.5, "score")
    with pytest.raises(ValueError, match="rank_by must be"):
        FRL(rank_by="up")
    with pytest.raises(ValueError, match="mask_by must be"):
        FRL(mask_by="up")


@pytest.mark.parametrize("wrong", [[0, 1, 1, 3], [1, 2, 3, 4], [-1, 0, 1, 2], [3, 3, 3, 3], [0.0, 1.0, 2.0, 3.0]])
def test_what_is_no_permutation_is_named(wrong: list[int]) -> None:
    good = torch.arange(4).to(torch.tensor(wrong).dtype)
    rows = torch.stack([good, good, torch.tensor(wrong)])
    named = 0 if rows.is_floating_point() else 2
    with pytest.raises(ValueError, match=rf"row {named} of the rankings is no permutation of 0 \.\. 3"):
        frl_vote(rows, torch.arange(4.0))


def test_shapes_that_do_not_fit() -> None:
    for rankings in (torch.arange(4), torch.zeros(0, 4, dtype=torch.int64), torch.arange(5)[None]):
        with pytest.raises(ValueError, match=r"rankings \[n >= 1, m\] and initial scores \[m\]; got"):
            frl_vote(rankings, torch.arange(4.0))


def test_sums_of_positions_are_exact() -> None:
    """513 of 1,024 see the last two of 65,536 edges the other way round. Their sums are just below 2^26 and differ by 2, where
    neighbours among float32 are 4 apart: added up as such they come out in the wrong order.
    """
    m, n = 2**16, 2**10
    ascending = torch.arange(m)
    exchanged = ascending.clone()
    exchanged[[m - 2, m - 1]] = exchanged[[m - 1, m - 2]]
    rankings = torch.cat([ascending.expand(n // 2 - 1, -1), exchanged.expand(n // 2 + 1, -1)])
    elected = frl_vote(rankings.int(), ascending.float())
    assert elected[-2:].tolist() == [m - 1, m - 2]
    assert torch.equal(elected[:-2], ascending[:-2].float())


def test_bits() -> None:
    assert ranking_bits([1]) == 0
    assert ranking_bits(np.array([288, 10])) == 288 * 9 + 10 * 4
    assert ranking_bits([2]) == 2
    assert ranking_bits([3, 4, 5]) == 3 * 2 + 4 * 2 + 5 * 3
    assert ranking_bits(LENET) == 288 * 9 + 18_432 * 15 + 1_605_632 * 21 + 1_280 * 11
    assert ranking_bits(LENET) / 8 / 2**20 == pytest.approx(4.054, abs=5e-4)
    assert ranking_bits(LENET) / (32 * sum(LENET)) - 1 == pytest.approx(-0.346, abs=5e-4)


def test_traffic() -> None:
    costs = traffic([4, 12], share=0.25)
    assert costs["FedAvg"] == (512, 512, 512)
    assert costs["FRL"] == (4 * 2 + 12 * 4, 56, 512)
    assert costs["SignSGD"] == (16, 16, 512)
    assert costs["top-k"] == (4 * (32 + 4), 512, None)
    assert traffic(np.array([4, 12]), share=0.25) == costs


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_one(share: float) -> None:
    with pytest.raises(ConfigError, match=r"share, the part of the parameters that top-k sends, must lie in \[0, 1\]; got"):
        traffic([4, 12], share)


def overlaps(mask_by: str) -> dict[int, float]:
    """The mask under attack against the one without: 20,000 edges, 25 rankings of a latent score plus noise of 1.5."""
    draw = torch.Generator().manual_seed(0)
    latent = torch.randn(20_000, generator=draw)
    rankings = torch.stack([frl_rank(latent + 1.5 * torch.randn(20_000, generator=draw)) for _ in range(25)])
    peace = frl_mask(frl_vote(rankings, latent), 0.5, mask_by)
    found = {0: 1.0}
    for attackers in (5, 8, 12, 15, 20, 25):
        attacked = torch.cat([RankReversal()(rankings[:attackers], f=attackers), rankings[attackers:]])
        mask = frl_mask(frl_vote(attacked, latent), 0.5, mask_by)
        found[attackers] = float((mask & peace).sum() / peace.sum())
    return found


@pytest.mark.parametrize(
    ("mask_by", "table"),
    [
        ("abs", [1.000, 0.723, 0.487, 0.532, 0.728, 0.870, 0.984]),
        ("signed", [1.000, 0.822, 0.618, 0.244, 0.151, 0.077, 0.000]),
    ],
)
def test_a_majority_that_reverses_hardly_changes_a_mask_by_magnitude(mask_by: str, table: list[float]) -> None:
    assert list(overlaps(mask_by).values()) == pytest.approx(table, abs=0.01)


# The strategy


def cohort(rankings: Tensor, params: Tensor, ids: list[int] | None = None, num_examples: float = 1.0) -> Cohort:
    n = len(rankings)
    return Cohort(
        1,
        ids or list(range(n)),
        torch.zeros(1, 1).expand(n, len(params)),
        params,
        torch.full((n,), num_examples),
        extras={"rankings": rankings},
    )


def test_the_contract() -> None:
    check_strategy(FRL())
    check_strategy(FRL(sparsity=0.3, mask_by="signed", rank_by="abs", cohort=3))


def test_it_elects() -> None:
    strategy = FRL()
    elected = strategy.aggregate(cohort(torch.tensor(RANKINGS).int(), torch.tensor(INITIAL)))
    assert elected.tolist() == pytest.approx(ELECTED)
    # before: edges 0, 3 and 5 count, then 0, 2 and 5
    assert strategy.round_metrics == {"mask_changed": pytest.approx(1 / 6)}


def test_a_round_without_a_vote_reports_none_and_a_resumed_run_writes_the_same(tmp_path: Path) -> None:
    """Nobody can be reached in round 3, the first after the checkpoint."""
    trace = tmp_path / "trace.csv"
    trace.write_text("1,1,1,1,1,1\n1,0,1,0,1,0\n0,0,0,0,0,0\n1,1,1,1,1,1\n")
    settings = ["strategy=frl", "local=edge_popup", "model=mlp_no_bias", "model.hidden=[8]", "rounds=4", "checkpoint.every=2"]
    settings += ["participation=trace", f"participation.file={trace}"]
    result, whole = run_into(tmp_path / "whole", *settings)
    assert [number for number, _ in result.series("mask_changed", "server")] == [1, 2, 4]
    with pytest.raises(Killed):
        run_into(tmp_path / "killed", *settings, watch=lambda _: [KillAfter(3)])
    _, resumed = run_into(tmp_path / "killed", *settings, resume=True)
    assert (resumed.path / "metrics.csv").read_bytes() == (whole.path / "metrics.csv").read_bytes()


def test_only_who_holds_the_scores_changes() -> None:
    """Over rounds, and through a checkpoint: the values are those of the start, to the bit."""
    initial, strategy = torch.randn(50, generator=torch.Generator().manual_seed(1)), FRL()
    scores = initial
    for seed in range(4):
        draw = torch.Generator().manual_seed(seed)
        rankings = torch.stack([torch.randperm(50, generator=draw) for _ in range(3)])
        resumed = FRL()
        resumed.load_state_dict(strategy.state_dict())
        expected = torch.tensor(slow_vote(rankings.tolist(), initial.tolist()))
        scores = strategy.aggregate(cohort(rankings, scores))
        assert torch.equal(scores, expected)
        assert torch.equal(resumed.aggregate(cohort(rankings, scores)), scores)
    assert torch.equal(scores.sort().values, initial.sort().values)
    elsewhere = strategy.aggregate(cohort(rankings, 2 * scores))  # whatever clients were sent
    assert torch.equal(elsewhere, scores)


def test_one_client_one_vote() -> None:
    rankings, params = torch.tensor(RANKINGS), torch.tensor(INITIAL)
    claims = cohort(rankings, params)
    claims.num_examples = torch.tensor([1.0, 1e9, 1.0])
    assert torch.equal(FRL().aggregate(claims), FRL().aggregate(cohort(rankings, params)))
    assert torch.equal(FRL().aggregate(cohort(rankings[[2, 0, 1]], params)), FRL().aggregate(cohort(rankings, params)))


@pytest.mark.parametrize(
    "part", [{"rule": Mean()}, {"weighting": Uniform()}, {"pre_aggregators": [NNM(f=1)]}, {"server_optimizer": FedAvgM()}]
)
def test_parts_that_would_have_no_effect(part: dict[str, object]) -> None:
    (name,) = part
    with pytest.raises(ConfigError, match=rf"FRL counts votes, one a client, so {name}=.* would have no effect; leave it out"):
        FRL(**part)


def test_without_rankings() -> None:
    bare = Cohort(1, [0], torch.zeros(1, 2), torch.zeros(2), torch.ones(1))
    with pytest.raises(
        ValueError, match=r"FRL needs the clients' rankings in extras\['rankings'\]; clients train with EdgePopup"
    ):
        FRL().aggregate(bare)


def test_it_can_be_pasted_back() -> None:
    strategy = FRL(sparsity=0.25, rank_by="abs", mask_by="signed", cohort=4, seed=3)
    assert repr(eval(repr(strategy))) == repr(strategy)
