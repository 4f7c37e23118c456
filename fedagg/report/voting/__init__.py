"""Leaderboards as elections: tasks vote, models stand, and rules of social choice count.

A table of scores [models, tasks] holds what every model scored on every task; **higher is better**, so negate a loss. A score
rule gives every model a number, again higher for better; an election gives the ascending list of its winners. ``weights``
[tasks] >= 0 say how much each task counts, 1 each by default. NaN is a missing score; a rule that has no use for a table with
holes says so. Scores are compared as they are: round them first if small differences mean nothing.

Sources: Rofin et al., "Vote'n'Rank: Revision of Benchmarking with Social Choice Theory", EACL 2023, for the rules; Colombo et
al., "What are the best systems? New perspectives on NLP benchmarking", NeurIPS 2022, for Borda over instances and Kemeny.

Example: the median never loses by much, and the mean of scores does not see it.
    >>> import numpy as np
    >>> scores = np.array([[97.0, 90.0, 10.0], [95.0, 89.0, 85.0], [96.0, 91.0, 11.0]])
    >>> borda(scores).tolist(), arithmetic_mean(scores).round(1).tolist()
    ([3.0, 2.0, 4.0], [65.7, 89.7, 66.0])
    >>> condorcet(scores)
    [2]
"""

from fedagg.report.voting.kemeny import kemeny, kemeny_cost, kemeny_heuristic, kemeny_places
from fedagg.report.voting.scores import (
    arithmetic_mean,
    borda,
    copeland,
    dowdall,
    geometric_mean,
    minimax,
    optimality_gap,
    plurality,
)
from fedagg.report.voting.steps import borda_one_level, borda_two_level, two_step
from fedagg.report.voting.winners import baldwin, condorcet, could_win, elect, threshold

__all__ = [
    "arithmetic_mean",
    "baldwin",
    "borda",
    "borda_one_level",
    "borda_two_level",
    "condorcet",
    "copeland",
    "could_win",
    "dowdall",
    "elect",
    "geometric_mean",
    "kemeny",
    "kemeny_cost",
    "kemeny_heuristic",
    "kemeny_places",
    "minimax",
    "optimality_gap",
    "plurality",
    "threshold",
    "two_step",
]
