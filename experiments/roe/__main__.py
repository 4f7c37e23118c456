"""How many malicious clients does a vote survive, by proof and in fact? ``python -m experiments.roe`` (see README.md).

Writes table.csv and certified.png. Every learner is a federation of a few clients that runs FedAvg; a hash of the clients' ids
says which. Malicious clients join under ids of their choice, one a bucket, with examples enough to drown the others, and the
federations that they join are trained again.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from scipy import stats

from fedagg import LocalSGD, Population, Strategy, rng
from fedagg.certified import ByClient, Ensemble, buckets_of_clients
from fedagg.data import IID, Dataset, digits, fashion_mnist
from fedagg.models import logistic_regression, mlp
from fedagg.report.canvas import COLOURS, house_style
from strategies import ByExamples
from strategies.protocols.certified import dpa, finite_aggregation, run_off_election, spread_matrix

Array = npt.NDArray[Any]
Election = Callable[[Array], tuple[Array, Array]]  # logits [B, k, C] -> prediction [B], radius [B]
HERE = Path(__file__).parent
BROUGHT = 300  # examples of a malicious client
DATA: dict[str, dict[str, Any]] = {
    "digits": {"load": digits, "clients": 200, "groups": 50, "model": logistic_regression, "lr": 0.5, "tested": 359},
    "fashion_mnist": {"load": fashion_mnist, "clients": 1000, "groups": 50, "model": mlp, "lr": 0.1, "tested": 1000},
}


@dataclass(frozen=True)
class World:
    """One data set, shared out by one seed, and who votes.

    Args:
        data: a key of ``DATA``.
        d: readers of a bucket; 1 is DPA, more is Finite Aggregation with as many more learners.
        seed: of the partition, the buckets and the learners.
    """

    data: str
    d: int
    seed: int

    @cached_property
    def dataset(self) -> Dataset:
        return DATA[self.data]["load"]()

    @cached_property
    def honest(self) -> Population:
        return Population.split(self.dataset, IID(), DATA[self.data]["clients"], seed=self.seed)

    @property
    def learners(self) -> int:
        return int(DATA[self.data]["groups"]) * self.d

    @cached_property
    def spread(self) -> Array:
        shifts = rng.numpy_generator(self.seed, "shifts").choice(self.learners, self.d, replace=False)
        return spread_matrix(self.learners, [int(shift) for shift in shifts])

    @cached_property
    def tested(self) -> tuple[torch.Tensor, Array]:
        x, y = self.honest.test()
        return x[: DATA[self.data]["tested"]], y[: DATA[self.data]["tested"]].numpy()

    def ensemble(self, parts: Any) -> Ensemble:
        make = partial(DATA[self.data]["model"], self.dataset.input_shape, self.dataset.num_classes)
        local = LocalSGD(epochs=2, batch_size=16, lr=DATA[self.data]["lr"])
        return Ensemble(parts, make, local, rounds=10, strategy=fedavg, seed=self.seed)

    def parts(self, population: Population) -> ByClient:
        return ByClient(population, self.learners, self.spread, self.seed)

    @cached_property
    def brought(self) -> Array:
        """Rows of the training set that every malicious client brings, with other labels."""
        return rng.numpy_generator(self.seed, "brought").permutation(len(self.dataset.y_train))[:BROUGHT]

    def honest_logits(self, learners: range) -> Array:
        """Return what some learners think of the test points and of what is brought to attack, [B + m, len(learners), C]."""
        brought = self.dataset.features(self.dataset.x_train[self.brought])
        return self.ensemble(self.parts(self.honest)).logits(torch.cat([self.tested[0], brought]), learners)

    def poisoned_logits(self, learners: range, poisoned: tuple[bool, ...], wrong: Array) -> Array:
        """Return what some learners think of the test points once malicious clients have joined, [B, len(learners), C].

        Args:
            learners: which.
            poisoned: whether one has joined the first, second, ... bucket that a learner reads.
            wrong: [m], the labels of what it brings.
        """
        whole = self.parts(self.attacked(wrong))
        populations = {learner: whole.holding(self.members(whole, learner, poisoned)) for learner in learners}
        return self.ensemble(populations).logits(self.tested[0], learners)

    def members(self, whole: ByClient, learner: int, poisoned: tuple[bool, ...]) -> Array:
        """Return the clients of a learner: the honest ones, and those malicious ones that have joined."""
        items, buckets = whole.items(learner), np.flatnonzero((self.spread == learner).any(axis=1))
        joined = buckets[list(poisoned)]
        return items[(items < len(self.honest)) | np.isin(whole.buckets[items], joined)]

    def attacked(self, wrong: Array) -> Population:
        """Return the population with a malicious client in every bucket; its id is the first free one that is hashed there."""
        data, honest = self.dataset, self.honest
        extended = Dataset(
            data.name,
            np.concatenate([data.x_train, data.x_train[self.brought]]),
            np.concatenate([data.y_train, wrong]),
            data.x_test,
            data.y_test,
            data.num_classes,
            data.source,
            data.shift,
            data.scale,
        )
        buckets = buckets_of_clients(len(honest) + 40 * self.learners, self.learners, self.seed)[len(honest) :]
        newcomers = {int(np.argmax(buckets == bucket)) for bucket in range(self.learners)}
        brings = np.arange(len(data.y_train), len(extended.y_train))
        held = [*honest.indices, *(brings if i in newcomers else () for i in range(max(newcomers) + 1))]
        return Population(extended, held)


def fedavg(seed: int) -> Strategy:
    """Return what each federation runs."""
    return Strategy(weighting=ByExamples(), seed=seed)


def rivals(logits: Array, y: Array) -> Array:
    """Return for each example the wrong class that most learners take it for, ties to the larger sum of logits."""
    votes = (logits.argmax(axis=2)[:, :, None] == np.arange(logits.shape[2])).sum(axis=1) + 1e-6 * logits.sum(axis=1)
    votes[np.arange(len(y)), y] = -np.inf
    return votes.argmax(axis=1)


def in_pieces(pool: ProcessPoolExecutor, task: Callable[..., Array], world: World, *rest: Any) -> Array:
    """Call ``task`` for all learners, twenty at a time, and put their columns together."""
    pieces = [range(start, min(start + 20, world.learners)) for start in range(0, world.learners, 20)]
    done = [pool.submit(task, world, piece, *rest) for piece in pieces]
    return np.concatenate([piece.result() for piece in done], axis=1)


def attack(versions: dict[tuple[bool, ...], Array], spread: Array, y: Array, election: Election, most: int) -> list[float]:
    """Return the accuracy that is left with 0, 1, ... malicious clients, each in the bucket where it does most harm.

    Harm is lost accuracy, then lost radius, on the very points that accuracy is measured on: nobody knows more.
    """
    reads = [np.flatnonzero((spread == learner).any(axis=1)).tolist() for learner in range(len(spread))]
    taken: list[int] = []

    def voters(buckets: list[int]) -> Array:
        states = [tuple(bucket in buckets for bucket in mine) for mine in reads]
        return np.stack([versions[state][:, learner] for learner, state in enumerate(states)], axis=1)

    def harm(bucket: int) -> tuple[float, float]:
        prediction, radius = election(voters([*taken, bucket]))
        return float((prediction == y).mean()), float(radius.mean())

    left = [float((election(voters([]))[0] == y).mean())]
    for _ in range(most):
        taken.append(min((bucket for bucket in range(len(spread)) if bucket not in taken), key=harm))
        left.append(float((election(voters(taken))[0] == y).mean()))
    return np.minimum.accumulate(left).tolist()


def elections(world: World) -> dict[str, Election]:
    """Return the two elections that the learners of a world can hold."""
    y, classes, spread = world.tested[1], world.dataset.num_classes, world.spread
    if world.d == 1:
        most_votes = {"DPA": lambda logits: dpa(logits.argmax(axis=2), classes, y)}
        return most_votes | {"DPA+ROE": lambda logits: run_off_election(logits, None, y)}
    shared = {"FA": lambda logits: finite_aggregation(logits.argmax(axis=2), classes, spread, y)}
    return shared | {"FA+ROE": lambda logits: run_off_election(logits, spread, y)}


def one_seed(pool: ProcessPoolExecutor, data: str, seed: int, most: int) -> Iterable[tuple[str, str, list[float]]]:
    """Yield (election, what, accuracy with 0, 1, ..., most malicious clients)."""
    for d in (1, 2):
        world = World(data, d, seed)
        clean, brought = np.split(in_pieces(pool, World.honest_logits, world), [len(world.tested[1])])
        wrong = rivals(brought, world.dataset.y_train[world.brought])
        versions = {(False,) * d: clean}
        for poisoned in product((False, True), repeat=d):
            if any(poisoned):
                versions[poisoned] = in_pieces(pool, World.poisoned_logits, world, poisoned, wrong)
        for election, elect in elections(world).items():
            radius = elect(clean)[1]
            certified = [float((radius >= r).mean()) for r in range(most + 1)]
            left = attack(versions, world.spread, world.tested[1], elect, most)
            if any(fact < proof for fact, proof in zip(left, certified, strict=True)):
                raise AssertionError(f"{election}, seed {seed}: an attack did what was proved impossible")
            yield election, "certified", certified
            yield election, "attacked", left


def table(results: dict[tuple[str, str], list[list[float]]], data: str) -> list[dict[str, Any]]:
    """Return a row per election, quantity and number of malicious clients: mean and 95 % Student-t interval over seeds."""
    rows = []
    for (election, what), runs in results.items():
        for r, values in enumerate(np.array(runs).T):
            half = (
                stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else 0.0
            )
            mean = values.mean()
            rows.append(
                {"data": data, "election": election, "what": what, "malicious": r, "n": len(values)}
                | {"mean": float(mean), "low": float(mean - half), "high": float(mean + half)}
            )
    return rows


def draw(rows: list[dict[str, Any]], to: Path) -> None:
    """Draw accuracy against malicious clients: what is proved solid, what an attack left dashed."""
    names = list(dict.fromkeys(row["data"] for row in rows))
    with house_style():
        figure = Figure(figsize=(7.2, 3.3), layout="constrained")
        for axes, data in zip(np.atleast_1d(figure.subplots(1, len(names), sharey=True)), names, strict=True):
            for i, election in enumerate(dict.fromkeys(row["election"] for row in rows)):
                for what, dash in (("certified", "-"), ("attacked", (0, (4, 2)))):
                    mine = [row for row in rows if (row["data"], row["election"], row["what"]) == (data, election, what)]
                    x, mean = [row["malicious"] for row in mine], [100 * row["mean"] for row in mine]
                    axes.plot(x, mean, color=COLOURS[i], linestyle=dash, linewidth=1.3, label=f"{election}, {what}")
            axes.set(title=data, xlabel="malicious clients", ylim=(0, 100))
            axes.grid(True)
        figure.axes[0].set_ylabel("test accuracy in %")
        figure.axes[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=7)
        figure.savefig(to, dpi=200, metadata={"Software": None})


def main() -> None:
    """Run what is asked for, and write table and figure."""
    parser = argparse.ArgumentParser(prog="python -m experiments.roe", description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--most", type=int, default=25, help="malicious clients")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE)
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(asked.workers) as pool:
        for data in asked.data:
            results: dict[tuple[str, str], list[list[float]]] = {}
            for seed in range(asked.seeds):
                for election, what, values in one_seed(pool, data, seed, asked.most):
                    results.setdefault((election, what), []).append(values)
                    print(data, seed, election, what, [round(value, 3) for value in values[::5]], flush=True)
            rows += table(results, data)
    with (asked.out / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, asked.out / "certified.png")


if __name__ == "__main__":
    main()
