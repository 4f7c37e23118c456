"""Rules in two steps: over the instances of each task or the tasks of each group first, then over those."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from fedagg.report.measures import Floats
from fedagg.report.voting.ballots import MissingScore, settled


def borda_one_level(instances: Sequence[ArrayLike]) -> Floats:
    """Sum of ranks over all instances of all tasks, so that a task counts as often as it has instances.

    Args:
        instances: an array [models, instances] per task. Within an instance the worst model has rank 0, and ties share their
            average rank.

    Raises:
        ValueError: a missing score, or tasks with different numbers of models.
    """
    return settled(sum(_ranks(task).sum(axis=1) for task in _read("borda_one_level", instances)) + 0.0)


def borda_two_level(instances: Sequence[ArrayLike]) -> Floats:
    """Rank models within each task by their sums of ranks, then sum these ranks: tasks count alike, however large.

    Args:
        instances: as of :func:`borda_one_level`.

    Raises:
        ValueError: a missing score, or tasks with different numbers of models.
    """
    sums = [settled(_ranks(task).sum(axis=1)) for task in _read("borda_two_level", instances)]
    return settled(_ranks(np.stack(sums, axis=1)).sum(axis=1))


def two_step(
    rule: Callable[..., Floats],
    scores: ArrayLike,
    groups: Sequence[Sequence[int]],
    weights: ArrayLike | None = None,
    group_weights: ArrayLike | None = None,
) -> Floats:
    """Apply a score rule within each group of tasks, then to the table [models, groups] of what it found.

    Args:
        rule: any of the score rules, with its options set by ``functools.partial``.
        scores: [models, tasks]. A model without any score in a group has none there in the second step either.
        groups: lists of task indices; every task stands in one.
        weights: of the tasks, used in the first step.
        group_weights: used in the second.

    Raises:
        ValueError: groups that are no partition of the tasks, or what the rule cannot deal with.
    """
    table = np.asarray(scores, np.float64)
    if table.ndim != 2:
        raise ValueError(f"two_step needs scores [models, tasks]; got shape {table.shape}")
    groups = [list(group) for group in groups]
    if sorted(task for group in groups for task in group) != list(range(table.shape[1])) or not all(groups):
        raise ValueError(f"two_step needs groups in which each of {table.shape[1]} tasks stands once; got {groups}")
    w = np.ones(table.shape[1]) if weights is None else np.asarray(weights, np.float64)
    if w.shape != table.shape[1:]:
        raise ValueError(f"two_step needs a weight for each of {table.shape[1]} tasks; got shape {w.shape}")
    columns = []
    for group in groups:
        try:
            column = rule(table[:, group], w[group])
        except MissingScore as hole:
            raise MissingScore(hole.rule, hole.model, group[hole.task]) from None
        columns.append(np.where(np.isnan(table[:, group]).all(axis=1), np.nan, column))
    return rule(np.stack(columns, axis=1), group_weights)


def _ranks(task: Floats) -> Floats:
    return np.asarray(rankdata(task, axis=0), np.float64) - 1


def _read(rule: str, instances: Sequence[ArrayLike]) -> list[Floats]:
    tasks = [np.asarray(task, np.float64) for task in instances]
    if not tasks or any(task.ndim != 2 or 0 in task.shape for task in tasks) or len({len(task) for task in tasks}) > 1:
        shapes = [task.shape for task in tasks]
        raise ValueError(f"{rule} needs an array [models, instances] per task, all of the same models; got shapes {shapes}")
    for number, task in enumerate(tasks):
        if np.isnan(task).any():
            model, instance = np.argwhere(np.isnan(task))[0].tolist()
            raise ValueError(f"{rule} needs every score, but model {model} has none on instance {instance} of task {number}")
    return tasks
