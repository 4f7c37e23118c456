"""Who takes part when: patterns by which clients come and go, and the rates at which they do.

A pattern is a function of (seed, round, client) alone. It may be asked for any round first, and what a client does depends
neither on the rounds asked before nor on how many clients there are.

    Bernoulli     every round anew
    Markov        whoever is there tends to stay, whoever is away tends to stay away
    Cyclic        some rounds there, some away, over and over
    Trace         what a file says
    ClassBiased   rates for the first three that depend on what classes a client holds

All but the trace are those of Wang and Ji, "A Lightweight Method for Tackling Unknown Participation Statistics in Federated
Learning", ICLR 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedagg import rng
from fedagg.errors import ConfigError

Vector = Sequence[float] | Tensor | npt.NDArray[Any]


class Participation(Protocol):
    """Which clients can be reached in a round: ``available(round) -> bool [N]``, indexed by client id.

    One that knows how often has ``reachability`` [N], the share of rounds in the long run. One that remembers something from
    round to round has ``state_dict()`` and ``load_state_dict(state)`` for checkpoints.
    """

    def available(self, round: int) -> Tensor:
        """Return [N] bool, for a round from 1 up."""


@dataclass(frozen=True)
class Bernoulli:
    """Client i can be reached in any round with probability p_i, independently of other clients and rounds.

    Args:
        probabilities: [N] in (0, 1], or one number for all.
        seed: the run's seed.
        num_clients: N, where one number is given.

    Raises:
        ConfigError: naming the first client whose probability is impossible.

    Example:
        >>> Bernoulli([0.1, 1.0]).reachability
        tensor([0.1000, 1.0000], dtype=torch.float64)
    """

    probabilities: float | Vector
    seed: int = 0
    num_clients: int | None = None

    def __post_init__(self) -> None:
        _ = self.reachability

    @cached_property
    def reachability(self) -> Tensor:
        """[N], the p_i."""
        return _rates(self, self.probabilities, self.num_clients)

    def available(self, round: int) -> Tensor:
        """Return [N] bool."""
        return _uniform(self.seed, "availability", round, len(self.reachability)) < self.reachability


@dataclass
class Markov:
    """Client i comes and goes as a two-state chain that can be reached a share p_i of the time, in the long run.

    Away it comes back with probability a, there it leaves with probability a (1/p_i - 1); where that exceeds 1, both are
    divided by it. So the mean stay is 1 / (a (1/p_i - 1)) rounds. It begins there with probability p_i, and has made one step
    when round 1 begins.

    Args:
        probabilities: [N] in (0, 1], or one number for all.
        a: in (0, 1]; small means long stays and long absences.
        seed: the run's seed.
        num_clients: N, where one number is given.

    Cost: O(N) for the round after the last one asked for. For another one it looks back until every client's state is decided
        whatever it was before, which for a = 0.05 and N = 100,000 takes some 230 rounds, and goes back to round 1 at most.

    Example:
        >>> client = Markov([0.5], a=0.2)
        >>> "".join("x" if client.available(round) else "." for round in range(1, 41))
        '........xxx..........xxxxxx.xxxx........'
    """

    probabilities: float | Vector
    a: float = 0.05
    seed: int = 0
    num_clients: int | None = None
    _last: tuple[int, Tensor] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._comes, leaves = _transitions(self.reachability, self.a)
        self._stays = 1.0 - leaves

    @cached_property
    def reachability(self) -> Tensor:
        """[N], the p_i."""
        return _rates(self, self.probabilities, self.num_clients)

    def available(self, round: int) -> Tensor:
        """Return [N] bool."""
        n = len(self.reachability)
        there = torch.empty(n, dtype=torch.bool)
        known, before = self._last if self._last is not None and self._last[0] <= round else (0, None)
        undecided, reverse = torch.arange(n), torch.zeros(n, dtype=torch.bool)
        for step in range(round, known, -1):
            if not len(undecided):
                break
            draw = _uniform(self.seed, "markov", step, n)[undecided]
            from_away, from_there = draw < self._comes[undecided], draw < self._stays[undecided]  # there after it, coming so
            there[undecided] = from_away ^ reverse
            left = (from_away != from_there).nonzero().squeeze(1)
            undecided, reverse = undecided[left], (reverse ^ from_away)[left]
        if len(undecided):
            if before is None:
                before = _uniform(self.seed, "markov", 0, n) < self.reachability
            there[undecided] = before[undecided] ^ reverse
        self._last = round, there
        return there.clone()


@dataclass(frozen=True)
class Cyclic:
    """Client i can be reached for some rounds, then not for some, over and over; about ``length`` rounds make a cycle.

    It is there for max(1, round(length p_i)) rounds, halves to even, and away for max(1, length - that). At first it is away,
    for a number of rounds that is uniform on 0 .. away - 1.

    Args:
        probabilities: [N] in (0, 1], or one number for all.
        length: rounds in a cycle, >= 1.
        seed: the run's seed.
        num_clients: N, where one number is given.

    Example:
        >>> client = Cyclic([0.2], length=10)
        >>> "".join("x" if client.available(round) else "." for round in range(1, 41))
        '.....xx........xx........xx........xx...'
    """

    probabilities: float | Vector
    length: int = 100
    seed: int = 0
    num_clients: int | None = None

    def __post_init__(self) -> None:
        _ = self.reachability

    @cached_property
    def reachability(self) -> Tensor:
        """[N], the share of a cycle in which each client is there: p_i up to rounding, and below 1."""
        active, idle, _ = self._cycle
        return active.double() / (active + idle)

    @cached_property
    def _cycle(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return for each client the rounds there, the rounds away, and the rounds before it comes first; [N] int64 each."""
        p = _rates(self, self.probabilities, self.num_clients)
        active, idle = _lengths(p, self.length)
        return active, idle, (_uniform(self.seed, "cyclic", 0, len(p)) * idle).long()

    def available(self, round: int) -> Tensor:
        """Return [N] bool."""
        active, idle, first = self._cycle
        return (round - 1 - first) % (active + idle) < active


@dataclass(frozen=True)
class ClassBiased:
    """Rates that depend on what classes a client holds: ``class_biased_probabilities`` for one rho that all clients share.

    rho ~ Dirichlet(concentration on C classes), from the run's seed.

    Args:
        concentration: small makes a few classes decide who takes part.
        mean: of the rates before they are cut, if labels are spread evenly over all clients.
        floor: no rate is lower.

    Example:
        >>> ClassBiased(concentration=1e9)(torch.tensor([[5, 0], [0, 5], [0, 0]]), seed=0)
        tensor([0.1000, 0.1000, 0.0200], dtype=torch.float64)
    """

    concentration: float = 0.1
    mean: float = 0.1
    floor: float = 0.02

    def __post_init__(self) -> None:
        if not 0 < self.concentration < np.inf:
            raise ConfigError(f"ClassBiased needs a finite concentration > 0; got concentration={self.concentration}")
        _check_mean_and_floor(self.mean, self.floor)

    def __call__(self, label_counts: Tensor | npt.NDArray[Any], seed: int) -> Tensor:
        """Return p [N] for label_counts [N, C]."""
        classes = label_counts.shape[1]
        rho = rng.numpy_generator(seed, "rates").dirichlet(np.full(classes, float(self.concentration)))
        return class_biased_probabilities(label_counts, rho, self.mean, self.floor)


def class_biased_probabilities(
    label_counts: Tensor | npt.NDArray[Any], rho: Vector, mean: float = 0.1, floor: float = 0.02
) -> Tensor:
    """Return p_i = mean C <kappa_i, rho>, cut to [floor, 1], where kappa_i is the label distribution of client i.

    A client without samples gets the floor. The cut at 1 is ours: the authors' code fails there.

    Args:
        label_counts: [N, C] samples of each class.
        rho: [C] >= 0, how much each class counts; sums to 1.
        mean: > 0, what p_i is for a client with kappa_i uniform.
        floor: in (0, 1].

    Returns:
        [N] float64.

    Raises:
        ConfigError: on impossible arguments, naming them.
    """
    counts = torch.as_tensor(label_counts, dtype=torch.float64)
    weight = torch.as_tensor(rho, dtype=torch.float64)
    _check_mean_and_floor(mean, floor)
    if counts.ndim != 2 or weight.shape != counts.shape[1:] or not bool((weight >= 0).all()):
        raise ConfigError(
            "class-biased rates need label_counts [N, C] and rho [C] >= 0; "
            f"got {list(counts.shape)} and {list(weight.shape)}, lowest {float(weight.min()) if len(weight) else None}"
        )
    kappa = counts / counts.sum(dim=1, keepdim=True).clamp(min=1.0)
    return (mean * counts.shape[1] * (kappa @ weight)).clamp(floor, 1.0)


def markov_transition(p: float, a: float = 0.05) -> tuple[float, float]:
    """Return the probabilities (away -> there, there -> away) of a ``Markov`` client that is there a share p of the time.

    Example:
        >>> markov_transition(0.5)
        (0.05, 0.05)
    """
    comes, leaves = _transitions(_rates("markov_transition", [p], None), a)
    return float(comes), float(leaves)


def cyclic_lengths(p: float, length: int = 100) -> tuple[int, int]:
    """Return the rounds (there, away) in a cycle of a ``Cyclic`` client of rate p.

    Example:
        >>> cyclic_lengths(0.02), cyclic_lengths(1.0)
        ((2, 98), (100, 1))
    """
    active, idle = _lengths(_rates("cyclic_lengths", [p], None), length)
    return int(active), int(idle)


def _transitions(p: Tensor, a: float) -> tuple[Tensor, Tensor]:
    if not 0 < a <= 1:
        raise ConfigError(f"Markov needs a in (0, 1], the probability to come back; got a={a}")
    leaves = a * (1 / p - 1)
    over = leaves.clamp(min=1.0)
    return a / over, leaves / over


def _lengths(p: Tensor, length: int) -> tuple[Tensor, Tensor]:
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise ConfigError(f"Cyclic needs an integer length >= 1, the rounds in a cycle; got length={length}")
    active = (length * p).round().long().clamp(min=1)
    return active, (length - active).clamp(min=1)


def _check_mean_and_floor(mean: float, floor: float) -> None:
    if not (0 < mean < np.inf and 0 < floor <= 1):
        raise ConfigError(f"class-biased rates need a finite mean > 0 and a floor in (0, 1]; got mean={mean}, floor={floor}")


def _uniform(seed: int, purpose: str, round: int, n: int) -> Tensor:
    """Return [n] draws from [0, 1). torch fills a vector in order, so the first ones are the same for every n."""
    return torch.rand(n, dtype=torch.float64, generator=rng.generator(seed, purpose, round))


def _rates(who: object, probabilities: float | Vector, num_clients: int | None) -> Tensor:
    """Return [N] float64, checked."""
    name = who if isinstance(who, str) else type(who).__name__
    needs = f"{name} needs probabilities in (0, 1], one for each client, or one number for all and num_clients"
    try:
        p = torch.as_tensor(probabilities, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{needs}; got {probabilities!r}") from error
    if p.ndim > 1 or (p.ndim == 0 and num_clients is None):
        raise ConfigError(f"{needs}; got {'one number' if p.ndim == 0 else f'shape {list(p.shape)}'}, {num_clients=}")
    impossible = (~((p > 0) & (p <= 1))).nonzero()
    if len(impossible):
        where = f"{float(p[tuple(impossible[0])])}" + (f" for client {int(impossible[0])}" if p.ndim else "")
        raise ConfigError(f"{needs}; got {where}")
    if p.ndim and num_clients is not None and len(p) != num_clients:
        raise ConfigError(f"{needs}; got {len(p)} of them, {num_clients=}")
    return p.clone() if p.ndim else p.expand(num_clients or 1)
