"""GLUE, SuperGLUE and VALUE come out as the authors of Vote'n'Rank report them.

Tables (``leaderboards/*.csv``): github.com/PragmaticsLab/vote_and_rank, commit 74e3d97, ``tables/leaderboards - *.csv``, less
the columns of ranks, teams, links and published means. A cell such as 93.9/91.8 holds two metrics of one task, "-" none.
Winners: Rofin et al., "Vote'n'Rank: Revision of Benchmarking with Social Choice Theory", EACL 2023, and the notebooks there.
"""

import csv
from functools import cache
from pathlib import Path

import numpy as np

from fedagg.report.voting import (
    arithmetic_mean,
    baldwin,
    borda,
    condorcet,
    copeland,
    could_win,
    dowdall,
    elect,
    geometric_mean,
    minimax,
    optimality_gap,
    plurality,
    threshold,
)

SCORING = [arithmetic_mean, geometric_mean, optimality_gap, borda, dowdall, plurality, copeland, minimax]
NAMING = [condorcet, baldwin, threshold]
DIAGNOSTICS = ("AX", "AX-b", "AX-g")  # not part of a leaderboard's mean

ERNIE, ERNIE_3, CRAIG = "ERNIE", "ERNIE 3.0", "craig.starr"
STRUCTBERT, UDG = "StructBERT + CLEVER", "T5 + UDG, Single Model (Google Brain)"
HUMAN_GLUE, HUMAN_SUPERGLUE = "GLUE Human Baselines", "SuperGLUE Human Baselines"


@cache
def published(name: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Models that were measured on everything, their scores, and the weights: metrics of one task share its weight."""
    with (Path(__file__).parent / "leaderboards" / f"{name}.csv").open(newline="") as file:
        (_, *tasks), *rows = csv.reader(file)
    parts = [max(row[at].count("/") for row in rows) + 1 for at in range(1, len(tasks) + 1)]
    weights = [0 if task in DIAGNOSTICS else 1 / part for task, part in zip(tasks, parts, strict=True) for _ in range(part)]
    scores = {model: [float(number) for cell in row if cell != "-" for number in cell.split("/")] for model, *row in rows}
    whole = {model: row for model, row in scores.items() if len(row) == len(weights) and not np.isnan(row).any()}
    return list(whole), np.array(list(whole.values())), np.array(weights)


def winners(name: str) -> dict[str, list[str]]:
    models, scores, weights = published(name)
    scores, weights = scores[:, weights > 0], weights[weights > 0]  # diagnostic scores may be negative: no geometric mean
    found = {rule.__name__: elect(rule, scores, weights) for rule in SCORING}
    found |= {rule.__name__: rule(scores, weights) for rule in NAMING}
    return {rule: [models[winner] for winner in who] for rule, who in found.items()}


def prospective(name: str) -> list[str]:
    """Diagnostic sets are tasks like others here, as in the notebook."""
    models, scores, _ = published(name)
    return [models[i] for i in could_win(scores)]


def test_value() -> None:
    assert len(published("value")[0]) == 6
    assert winners("value") == {rule.__name__: [CRAIG] for rule in (*SCORING, *NAMING)}
    assert prospective("value") == [CRAIG, "DuKG", "HERO 1"]


def test_glue() -> None:
    assert len(published("glue")[0]) == 97
    others = {"threshold": [STRUCTBERT], "plurality": [ERNIE, HUMAN_GLUE]}
    assert winners("glue") == {rule.__name__: [ERNIE] for rule in (*SCORING, *NAMING)} | others
    assert prospective("glue") == [
        *(ERNIE, STRUCTBERT, "DeBERTa / TuringNLRv4", "DeBERTa + CLEVER", "MacALBERT + DKM", "ALBERT + DAAF + NAS"),
        *("T5", "MT-DNN-SMART", HUMAN_GLUE),
    ]


def test_superglue() -> None:
    assert len(published("superglue")[0]) == 22
    expected = {
        (ERNIE_3,): ["arithmetic_mean", "geometric_mean", "borda"],
        (HUMAN_SUPERGLUE,): ["dowdall", "plurality", "copeland"],
        (UDG,): ["threshold", "optimality_gap"],
        (ERNIE_3, HUMAN_SUPERGLUE): ["baldwin", "minimax"],
        (): ["condorcet"],
    }
    assert winners("superglue") == {rule: list(who) for who, rules in expected.items() for rule in rules}
    assert prospective("superglue") == [
        *(ERNIE_3, UDG, "DeBERTa / TuringNLRv4", HUMAN_SUPERGLUE, "T5", "AILabs Team, Transformers"),
        *("ADAPET (ALBERT) - few-shot", "Most Frequent Class", "CBoW", "WARP (ALBERT-XXL-V2) - Few-Shot (32 Examples)"),
    ]
