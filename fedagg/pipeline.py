"""From the rows of a round to one step: the pre-aggregators in their order, then the rule."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedagg import rng
from fedagg.cohort import Cohort, Trusted
from fedagg.contracts import PreAggregator, Rule
from fedagg.errors import ConfigError


@dataclass(frozen=True)
class Pipeline:
    """What a strategy does with the rows of a round.

    Args:
        pre_aggregators: [n, d] -> [n', d], applied in this order.
        rule: ([n', d], weights) -> [d].
    """

    pre_aggregators: tuple[PreAggregator, ...]
    rule: Rule

    def __call__(self, cohort: Cohort, weights: Tensor | None = None) -> Tensor:
        """Return the step [d]."""
        rows = cohort.updates
        for pre_aggregator in self.pre_aggregators:
            rows = pre_aggregator(rows)
        return self.rule(rows, weights, **self.context(cohort, len(rows)))

    def context(self, cohort: Cohort, rows: int) -> dict[str, Any]:
        """Return what else the rule needs of ``cohort``, of whose clients ``rows`` rows are left, as far as it is there."""
        if any(_follows_clients(part) for part in _with_inner(self.rule)):
            if mixing := ", ".join(str(part) for part in self.pre_aggregators if not part.keeps_clients):
                raise ValueError(f"{self.rule} follows clients, but {mixing} leaves no row that stands for one")
            if rows != cohort.n:
                raise ValueError(f"{self.rule} follows clients, but {cohort.n} of them became {rows} rows before it saw them")
        context: dict[str, Any] = {}
        if "client_ids" in self.rule.needs:
            context["client_ids"] = cohort.client_ids
        if cohort.trusted is not None and "root_update" in self.rule.needs:
            context["root_update"] = cohort.trusted.root_update()
        if cohort.trusted is not None and "loss" in self.rule.needs:
            context["loss"] = cohort.trusted.loss
        return context

    def check(self, n: int, weights: bool, trusted: bool) -> None:
        """Raise ``ConfigError`` if a cohort of ``n`` clients violates a bound.

        Args:
            n: clients.
            weights: whether the rule will be given weights.
            trusted: whether the server has examples of its own.
        """
        rows = torch.randn(n, max(8, n), generator=torch.Generator().manual_seed(0))
        own = Trusted(lambda: rows[0], lambda step: float(step.square().sum())) if trusted else None
        cohort = Cohort(1, range(n), rows, torch.zeros(rows.shape[1]), torch.ones(n), trusted=own)
        try:
            copy.deepcopy(self)(cohort, torch.full((n,), 1.0 / n) if weights else None)
        except TypeError as error:
            raise ConfigError(f"{self.rule!r} cannot be called: {error}") from error
        except ValueError as error:
            raise ConfigError(f"{error}{self._advice(str(error), n)}") from error

    def _advice(self, refusal: str, clients: int) -> str:
        """Return what a refusal leaves unsaid: that rows are not clients, and what helps where they are too few for f."""
        found = re.search(r"got n=(\d+)", refusal)
        rows = int(found[1]) if found else clients
        mixing = ", ".join(str(part) for part in self.pre_aggregators if not part.keeps_clients)
        mixed = f" ({clients} clients became {rows} rows in {mixing})" if rows != clients and mixing else ""
        asked = re.search(r"n >(=?) (\d*)f(?: \+ (\d+))?.*, f=(\d+)", refusal)
        short = asked and rows < int(asked[2] or 1) * int(asked[4]) + int(asked[3] or 0) + (not asked[1])
        return mixed + (". Lower f (or attack.fraction) or raise cohort" if short else "")

    @contextmanager
    def prepared(self, seed: int, round: int, found_out: int) -> Iterator[None]:
        """For one round: random parts draw from the seed tree, and ``f`` is lower by the attackers already ``found_out``."""
        with ExitStack() as stack:
            for place, part in enumerate((self.rule, *self.pre_aggregators)):
                stack.enter_context(rng.lend_generator(part, rng.generator(seed, "rule", round, place)))
            stack.enter_context(self.lowered(found_out))
            yield

    @contextmanager
    def lowered(self, found_out: int) -> Iterator[None]:
        """For a while ``f`` is lower by the attackers already ``found_out``."""
        with ExitStack() as stack:
            for part in (self.rule, *self.pre_aggregators) if found_out else ():
                for inner in _with_inner(part):
                    f = getattr(inner, "f", None)
                    if isinstance(f, int):
                        stack.callback(object.__setattr__, inner, "f", f)
                        object.__setattr__(inner, "f", max(0, f - found_out))
            yield


def _follows_clients(part: Any) -> bool:
    return isinstance(part, Rule) and (part.follows_clients or "client_ids" in part.needs)


def _with_inner(part: Any) -> Iterator[Any]:
    """Yield a rule or pre-aggregator, and those it is built around."""
    yield part
    for field in dataclasses.fields(part) if dataclasses.is_dataclass(part) else ():
        value = getattr(part, field.name)
        if isinstance(value, Rule | PreAggregator):
            yield from _with_inner(value)
