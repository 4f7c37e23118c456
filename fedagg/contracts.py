"""What a plug-in implements: one small class, called with tensors, that knows nothing of Flower, rounds or files.

Symbols are the field's: ``n`` clients in the round, ``h`` of them honest, ``d`` parameters, ``f`` Byzantine clients. Updates
are deltas: what a client sent minus the parameters it received. A plug-in never modifies its inputs, keeps dtype and device,
never touches a global random generator, and raises ``ValueError`` naming the bound where a setting is impossible; where it is
the number of rows that is refused, and only there, the message has ``n=`` and that number.

State, where a plug-in has any, lives in ``state_dict()``, ``load_state_dict(state)`` and ``reset()``; a plug-in without
state has none of the three. A random plug-in has an attribute ``generator``; while it is None the engine lends it one from
the seed tree.
"""

from __future__ import annotations

import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from numbers import Integral
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from fedagg.linalg import weighted_sum

if TYPE_CHECKING:
    from torch import Tensor

    from fedagg.cohort import Cohort

REPORTS = frozenset({"label_counts", "loss_before", "a_norm"})  # what clients say of themselves where a method needs it
Knowledge = Literal["own", "corrupted", "honest", "aggregator", "history"]
Payload = Literal["updates", "rankings"]  # what clients send: what they changed, or how they rank the parameters of each layer


class _Named:
    """``repr()`` pastes back (a dataclass gives it); ``str()`` is the short tag of tables and test ids.

    ``exempt`` names checks of ``fedagg.testing`` whose promise is not made, or not at every setting, each with the reason.
    """

    exempt: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __str__(self) -> str:
        parts = [type(self).__name__]
        for field in getattr(self, "__dataclass_fields__", {}).values():
            value = getattr(self, field.name)
            if field.repr and field.default is dataclasses.MISSING:
                parts.append(str(value))
            elif field.repr and value != field.default:
                parts.append(f"{field.name}={value}")
        return "-".join(parts)

    @cached_property
    def last_info(self) -> dict[str, Any]:
        """Diagnostics of the last call (selected, scores, clipped, ...). Nothing computes from them."""
        return {}


class Rule(_Named, ABC):
    """Combine the rows of a round: ``rule(updates [n, d], weights [n] | None) -> delta [d]``.

    A rule that gives every client a weight defines ``client_weights(updates [n, d]) -> [n]`` (``client_weights(updates,
    weights)`` if it uses weights) and inherits the call, which is those weights times the rows. Any other rule defines the
    call. ``client_weights`` changes no state.

    Class attributes state facts for checks, documentation and the engine:
        associative: a weighted sum that may be added up in parts.
        coordinatewise: each coordinate depends on its own column only, so column blocks may be processed apart.
        uses_weights: the ``weights`` argument has an effect.
        random: draws from ``self.generator``.
        follows_clients: the row at some place is a certain client's, so every row must stand for one. Goes without saying
            where it needs "client_ids".
        invariances: which of "permutation", "translation", "scale", "orthogonal" hold.
        needs: what else of the cohort the call and ``client_weights`` take by keyword. "client_ids": the client behind each
            row, ascending. "root_update" [d] and "loss" ([d] -> float, at the parameters plus that step) come from examples
            that the server holds itself. Called without them, a rule raises ``ValueError`` or does as its class says.
    """

    associative: ClassVar[bool] = False
    coordinatewise: ClassVar[bool] = False
    uses_weights: ClassVar[bool] = False
    random: ClassVar[bool] = False
    follows_clients: ClassVar[bool] = False
    invariances: ClassVar[frozenset[str]] = frozenset()
    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        check_integers(self)

    def __call__(self, updates: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the aggregate [d] of ``updates`` [n, d]."""
        client_weights = getattr(self, "client_weights", None)
        if client_weights is None:
            raise NotImplementedError(f"{type(self).__name__} must define __call__ or client_weights")
        return self.combine(updates, client_weights(updates, weights) if self.uses_weights else client_weights(updates))

    def combine(self, updates: Tensor, client_weights: Tensor) -> Tensor:
        """Return ``client_weights`` [n] times the rows of ``updates`` [n, d], and note the weights in ``last_info``."""
        self.last_info["client_weights"] = client_weights
        return weighted_sum(updates, client_weights)


class PreAggregator(_Named, ABC):
    """Transform the rows before a rule sees them: ``pre(updates [n, d]) -> [n', d]``.

    Class attributes:
        keeps_clients: n' = n, and row i of the result stands for the client of row i, so that it may still be weighted.
        random: draws from ``self.generator``.
    """

    keeps_clients: ClassVar[bool] = True
    random: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_integers(self)

    @abstractmethod
    def __call__(self, updates: Tensor) -> Tensor:
        """Return the mixed rows [n', d]."""


class Weighting(_Named, ABC):
    """Decide how much each client counts: ``weighting(cohort) -> w [n]``, applied as they are, not renormalised.

    Class attribute:
        needs: what it uses of a cohort that not every one has, so that the engine sees to it: "label_counts", the metrics
            "loss_before" (mean loss of the received model on the client's examples) and "a_norm" (how its steps add up
            gradients), and "reachability", which only an oracle may know.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def __call__(self, cohort: Cohort) -> Tensor:
        """Return one coefficient per row of ``cohort.updates``."""


class Attack(_Named, ABC):
    """What the Byzantine clients of a round send: ``attack(honest [h, d], f) -> [f, d]``.

    ``knowledge`` states what the attack uses, and what ``Adversary`` shows it:

        "own"         its own data and update: row i of the result depends on ``own[i]`` and on none of the other attackers'
                      rows; those of ``honest`` are NaN, only their number is right
        "corrupted"   as ``honest``, the honest updates of the corrupted clients
        "honest"      all honest updates of the round
        "aggregator"  the same, and the rule: an attribute ``aggregator``, [n, d] -> [d], lent by the engine while it is None
        "history"     the same, and the aggregate of the round before; nobody else may remember ``params``, whose change it is

    An attack on the data defines ``poison(x, y) -> (x, y)``: the training data of one Byzantine client, before it trains. Its
    call then returns ``own`` unchanged. Where attackers share the work (``distributed``) it is ``poison(x, y, attacker=k)``
    for the k-th of them. A backdoor also has ``trigger(x) -> x``, which stamps test examples, and ``target``, the class that
    stamped examples are to be given. Where ``poison`` or ``trigger`` is None there is none.

    An attack on rankings has "rankings" among its ``payloads``: it is called for each layer apart, with rankings [h, m] int64
    of its m edges (``own`` alike, ``params`` [m] the ranking that clients received), and returns rankings. If ``recruits``, so
    many Byzantine clients of the population train in a round in which one of them takes part, to be seen by the attack.

    An attack whose formulas need the size of the cohort takes a keyword ``n: int | None = None`` beside those below: it may be
    shown less than the cohort, and then h + f is not its size. None is a cohort of h + f.
    """

    knowledge: ClassVar[Knowledge] = "honest"
    payloads: ClassVar[frozenset[Payload]] = frozenset({"updates"})
    recruits: int = 0
    random: ClassVar[bool] = False
    distributed: ClassVar[bool] = False

    @abstractmethod
    def __call__(
        self,
        honest: Tensor,
        f: int,
        *,
        own: Tensor | None = None,
        last_delta: Tensor | None = None,
        params: Tensor | None = None,
        round: int = 0,
        client_ids: Sequence[int] | None = None,
    ) -> Tensor:
        """Return the rows of the ``f`` Byzantine clients.

        Args:
            honest: [h, d], the updates the attacker may see; of knowledge "honest" and above all honest ones.
            f: how many rows to make; 0 gives [0, d].
            own: [f, d], what the Byzantine clients would have sent had they been honest.
            last_delta: [d], the last aggregated update; None in the first round.
            params: [d], the parameters the clients received.
            round: the number of the round, from 1.
            client_ids: the ids behind the rows of ``honest``.
        """


def cohort_size(attack: Attack, n: int) -> dict[str, Any]:
    """Return ``n`` as the keyword that the call of ``attack`` takes, if it takes one."""
    return {"n": n} if "n" in inspect.signature(attack.__call__).parameters else {}


def private_generator(source: torch.Generator | None) -> torch.Generator:
    """Return ``source``, or a fresh generator with seed 0: what a direct call of a random plug-in draws from."""
    return torch.Generator().manual_seed(0) if source is None else source


def check_rows(plugin: object, updates: Tensor) -> tuple[int, int]:
    """Return n and d of ``updates``; ``ValueError`` unless they are [n, d] of floating-point numbers."""
    if updates.ndim != 2 or not updates.is_floating_point():
        found = f"{updates.dtype} of shape {list(updates.shape)}"
        raise ValueError(f"{type(plugin).__name__} needs updates [n, d] of floating-point numbers; got {found}")
    return updates.shape[0], updates.shape[1]


def check_integers(plugin: object) -> None:
    """Make ``int`` of the fields of a dataclass that are said to be; ``ValueError`` where one is no integer."""
    for field in dataclasses.fields(plugin) if dataclasses.is_dataclass(plugin) else ():
        value = getattr(plugin, field.name)
        optional = field.type in ("int | None", int | None)
        if field.type not in ("int", int) and (not optional or value is None):
            continue
        if isinstance(value, bool) or not isinstance(value, Integral):
            wanted = f"an integer {field.name}{', or None' if optional else ''}"
            raise ValueError(f"{type(plugin).__name__} needs {wanted}; got {field.name}={value!r}")
        object.__setattr__(plugin, field.name, int(value))


def check_attack_input(honest: Tensor, f: int) -> None:
    """Raise ``ValueError`` unless there are f >= 0 rows to make and at least one row to look at."""
    if f < 0:
        raise ValueError(f"an attack makes f >= 0 rows; got f={f}")
    if honest.ndim != 2 or honest.shape[0] == 0:
        raise ValueError(f"an attack needs honest updates of shape [h >= 1, d]; got {list(honest.shape)}")
