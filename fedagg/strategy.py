"""The one adapter between Flower and what is aggregated: messages in, a new model out."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy as FlowerStrategy
from torch import Tensor

from fedagg import rng
from fedagg.clients.app import EXTRAS, NOT_FINITE, extras_record, metric_record, rankings_record
from fedagg.cohort import Cohort, Trusted
from fedagg.contracts import REPORTS, Payload, PreAggregator, Rule, Weighting
from fedagg.errors import ConfigError, refuses_number_of_rows
from fedagg.grid.base import known
from fedagg.linalg import weighted_sum
from fedagg.params import Layout, ModelState, State, merge_buffers
from fedagg.pipeline import Pipeline
from fedagg.rankings import frl_rank
from fedagg.replies import Reply, finite_mean, numbers, usable
from fedagg.rows import stack_rows
from fedagg.server_optimizers import ServerOptimizer, Step

logger = logging.getLogger(__name__)
AnyStrategy = FlowerStrategy  # ours, or any other that speaks Flower's message API


class WeightedSum(Rule):
    """The weighted sum of the rows: what a strategy without a rule of its own does."""

    associative = coordinatewise = uses_weights = True

    def __call__(self, updates: Tensor, weights: Tensor | None = None) -> Tensor:
        return weighted_sum(updates, weights)


class Strategy(FlowerStrategy):
    """A server strategy put together from parts. Runs in our Grids and, unchanged, in Flower's.

    A round is: choose clients, send the model, turn valid replies into a ``Cohort``, then
    ``pre_aggregators`` ([n, d] -> [n', d]), ``weighting`` (cohort -> w [n]), ``rule`` ((U, w) -> delta [d]) and
    ``server_optimizer`` ((params, delta) -> params). A method that is more than these overrides ``aggregate``, and of
    ``broadcast``, ``idle``, ``evaluated`` and the two of its state what else it needs.

    A reply is used only if its arrays have the right names and shapes, every float is finite and it claims a finite number of
    examples >= 0. What is dropped is counted and named in ``last_info["rejected"]``; rows that are not finite are also counted
    against ``f``. If nothing is left, or fewer rows than expected and than a part needs, model and parts stay as they were.
    Where the rule gives every client a weight, ``last_info["client_weights"]`` holds it by client id.

    Args:
        rule: combines the rows; None is the weighted sum.
        weighting: how much each client counts, for rules that use weights; None is 1/n.
        pre_aggregators: applied to the rows, in this order, before the rule.
        server_optimizer: moves the model; None adds the aggregate.
        cohort: clients asked per round; None asks all that can be reached.
        trusted: maps the model of a round and its number to what the server's own examples say, for rules that need it.
        evaluate_every: ask all clients to evaluate the model every so many rounds; 0 never.
        seed: the run's seed.

    Attributes:
        needs: what ``aggregate`` uses of a cohort, or the constructor of the experiment, that not every one has; see
            ``Weighting.needs``, and "model" and "proxy".
        collects: names of the vectors [d] that every client must send beside its model.
        client_half: name of the local training without which this makes no sense (it names this as its ``server_half``); ""
            goes with any.
        shared: names of settings that both halves have and that must agree.
        payload: what clients send and are sent. Where it is rankings, ``extras["rankings"]`` of a cohort holds them, [n, d]
            int32, one permutation for each layer; its ``updates`` are zeros, and ``layers`` says where layers lie.
        round_metrics: name -> value, recorded of the round beside what every strategy records. ``aggregate`` fills it; every
            round begins with none.
        client_metrics: name -> client id -> value, the same of single clients.
        reachability: [N], the probability with which each client takes part, where it is known and an oracle asks for it.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    collects: ClassVar[tuple[str, ...]] = ()
    client_half: ClassVar[str] = ""
    shared: ClassVar[tuple[str, ...]] = ()
    payload: ClassVar[Payload] = "updates"
    _only_read: ClassVar[tuple[str, ...]] = ("_layout", "_state", "trusted", "_trusted")  # by aggregate: a trial needs no copy

    def __init__(
        self,
        rule: Rule | None = None,
        weighting: Weighting | None = None,
        pre_aggregators: Sequence[PreAggregator] = (),
        server_optimizer: ServerOptimizer | None = None,
        *,
        cohort: int | None = None,
        trusted: Callable[[State, int], Trusted] | None = None,
        evaluate_every: int = 0,
        seed: int = 0,
    ) -> None:
        if cohort is not None and cohort < 1:
            raise ConfigError(f"cohort must be at least 1 client; got {cohort}")
        self.rule, self.weighting, self.pre_aggregators = rule or WeightedSum(), weighting, tuple(pre_aggregators)
        self.server_optimizer = server_optimizer or Step()
        self.cohort, self.trusted, self.evaluate_every, self.seed = cohort, trusted, evaluate_every, seed
        self.last_info: dict[str, Any] = {}
        self.round_metrics: dict[str, float] = {}
        self.client_metrics: dict[str, dict[int, float]] = {}
        mixing = [str(part) for part in self.pre_aggregators if not part.keeps_clients]
        if weighting is not None and mixing:
            raise ConfigError(
                f"weighting={weighting} speaks of clients, but {', '.join(mixing)} leaves no row that stands for one; "
                "use one or the other (strategy.weighting=null leaves out a strategy's own; strategy=mean is fedavg without)"
            )
        if weighting is not None and not self.rule.uses_weights:
            raise ConfigError(
                f"{self.rule} does not use weights, so weighting={weighting} would have no effect; leave it out, or take a "
                "rule that does: strategy=mean, geometric_median or robust_learning_rate (docs/weightings.md)"
            )
        self.reachability: Tensor | None = None
        self._layout: Layout | None = None
        self._state: State | None = None
        self._round = 0
        self._trusted: Trusted | None = None
        self._population: int | None = None
        self._expected = 0  # replies to a round in which all is well
        self._weights: Tensor | None = None
        self._kept = False  # whether some round kept the model; a warning the first time, on the record every time

    def __repr__(self) -> str:
        return (
            f"Strategy(rule={self.rule!r}, weighting={self.weighting!r}, pre_aggregators={list(self.pre_aggregators)!r}, "
            f"server_optimizer={self.server_optimizer!r}, cohort={self.cohort}, evaluate_every={self.evaluate_every}, "
            f"seed={self.seed})"
        )

    def aggregate(self, cohort: Cohort) -> Tensor:
        """Return the step [d] that the server optimizer takes. The hook for methods that are more than the parts."""
        weights = self._weights = None if self.weighting is None else self.weighting(cohort)
        return self._pipeline(cohort, weights)

    def broadcast(self) -> Mapping[str, Tensor]:
        """Return the vectors [L] that clients are sent beside the model in this round, by name."""
        return {}

    def idle(self, round: int) -> Tensor | None:
        """Return the step [d] of a round in which no reply can be used, or too few; None keeps the model."""
        return None

    def evaluated(self, params: Tensor) -> Tensor:
        """Return the parameters [d] that are measured, and left behind, where the current ones are ``params``."""
        return params

    def buffers(self, merged: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return ``float_buffers`` [b] and ``int_buffers`` [c] of the new model; over the clients they are ``merged``."""
        return merged

    @property
    def layers(self) -> list[slice]:
        """Where the parameters of each layer lie among the d; known from the first round on."""
        return [] if self._layout is None else self._layout.layers()

    @property
    def required(self) -> frozenset[str]:
        """What strategy and weighting need of a cohort."""
        return self.needs | getattr(self.weighting, "needs", frozenset())

    def defend(self, replies: Iterable[Message]) -> Tensor:
        """Return the step [d] that ``aggregate`` would make of these replies in the current round; nothing changes.

        This is what an attacker who knows the server can find out: everything but its random draws, since what draws by itself
        draws from an address of its own. Where no reply can be used it is the step of such a round.

        Raises:
            ValueError: the parts cannot do with these replies.
        """
        if self._state is None or self._layout is None:
            raise RuntimeError("defend was called before configure_train")
        rejected: dict[int, str] = {}
        params, required = self._state.params, self.required & REPORTS
        fitting = usable(self._layout, params, replies, self.collects, required, rejected, self.payload)
        trial = copy.deepcopy(self, {id(part): part for part in map(partial(getattr, self), self._only_read)})
        trial.seed = rng.derive(self.seed, "defence", self._round)
        if not fitting:
            step = trial.idle(self._round)
            return torch.zeros_like(params) if step is None else step
        with trial._pipeline.lowered(sum(reason == NOT_FINITE for reason in rejected.values())):
            return trial.aggregate(trial._cohort(self._round, self._state, fitting))

    def check(self, n: int) -> None:
        """Raise ``ConfigError`` if a cohort of ``n`` clients violates a bound of the rule or of a pre-aggregator."""
        self._pipeline.check(n, self.weighting is not None, self.trusted is not None)

    @property
    def _pipeline(self) -> Pipeline:
        return Pipeline(self.pre_aggregators, self.rule)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the parts that have any. A method with state of its own adds to it."""
        return {name: part.state_dict() for name, part in self._parts().items() if hasattr(part, "state_dict")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``."""
        parts = self._parts()
        for name, saved in state.items():
            if name in parts:
                parts[name].load_state_dict(saved)

    def _parts(self) -> dict[str, Any]:
        parts = {"rule": self.rule, "weighting": self.weighting, "server_optimizer": self.server_optimizer}
        return parts | {f"pre_aggregators.{i}": part for i, part in enumerate(self.pre_aggregators)}

    # Flower's four calls

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        """Choose the cohort from the seed tree and send it the model."""
        self._layout = self._layout or known(grid).layout or Layout.of_arrays(arrays)
        self._round, self._state = server_round, self._layout.read(arrays)
        self.round_metrics, self.client_metrics = {}, {}
        self._trusted = None if self.trusted is None else self.trusted(self._state, server_round)
        known_grid = known(grid)
        reachable, self._population = known_grid.get_node_ids(), known_grid.population
        chosen: Sequence[int] = reachable
        if self.cohort is not None and self.cohort < len(reachable):
            draw = rng.numpy_generator(self.seed, "sample", server_round)
            chosen = sorted(reachable[i] for i in draw.choice(len(reachable), self.cohort, replace=False))
        self._expected = self.cohort or len(chosen)
        return self._ask("train", server_round, arrays, config, chosen, self.broadcast())

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the new model and what the server knows about the round; no model if no reply can be used."""
        layout, state = self._layout, self._state
        if layout is None or state is None:
            raise RuntimeError("aggregate_train was called before configure_train")
        rejected: dict[int, str] = {}
        fitting = usable(layout, state.params, replies, self.collects, self.required & REPORTS, rejected, self.payload)
        self.last_info = {"rejected": rejected}
        not_finite = sum(reason == NOT_FINITE for reason in rejected.values())
        counts = {"clients": float(len(fitting)), "rejected": float(len(rejected)), "not_finite": float(not_finite)}
        if not fitting:
            return self._without_rows(server_round, counts, "no reply can be used")
        cohort = self._cohort(server_round, state, fitting)
        believed, pipeline = None, self._pipeline
        self.rule.last_info.pop("client_weights", None)
        early: tuple[Any, ...] = ()  # they go before the rule, which may refuse the rows
        if cohort.n < self._expected:
            early = (self.weighting, *self.pre_aggregators)
        unused = [(part, part.state_dict()) for part in early if hasattr(part, "state_dict")]
        try:
            if layout.size("float_buffers"):  # asked before the rule is called, which may advance its state
                with pipeline.prepared(self.seed, server_round, not_finite):
                    believed = self._believed(cohort)
            with pipeline.prepared(self.seed, server_round, not_finite):
                delta = self.aggregate(cohort)
        except ValueError as error:
            if cohort.n >= self._expected or not refuses_number_of_rows(error):  # it is the setting that is impossible
                raise
            for part, before in unused:
                part.load_state_dict(before)
            return self._without_rows(server_round, {**counts, "too_few": 1.0}, f"too few replies can be used: {error}")
        if not self.pre_aggregators and "client_weights" in self.rule.last_info:
            weights = self.rule.last_info["client_weights"].tolist()
            self.last_info["client_weights"] = dict(zip(cohort.client_ids, weights, strict=True))
        params = self.server_optimizer(state.params, delta)
        shares = next((given for given in (believed, self._weights) if given is not None), torch.ones(cohort.n))
        merged = self.buffers(merge_buffers([reply.state for reply in fitting], shares))
        means = {name: finite_mean(values.tolist()) for name, values in cohort.metrics.items()}
        return layout.record(ModelState(params, **merged)), metric_record({**counts, **means})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask every client to evaluate, in the rounds in which clients evaluate."""
        if not self.evaluate_every or server_round % self.evaluate_every:
            return []
        return self._ask("evaluate", server_round, self.evaluated_arrays(arrays), config, known(grid).client_ids)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Return the unweighted means of what the clients report: counts are claims."""
        values: dict[str, list[float]] = {}
        for reply in replies:
            for name, value in numbers(reply).items() if reply.has_content() else ():
                values.setdefault(name, []).append(value)
        means = {name: finite_mean(seen) for name, seen in values.items() if name != "num-examples"}
        return metric_record(means) if means else None

    def summary(self) -> None:
        """Log what the strategy is made of."""
        logger.info("%r", self)

    def evaluated_arrays(self, arrays: ArrayRecord) -> ArrayRecord:
        """Return the model that is measured where the current one is ``arrays``."""
        if type(self).evaluated is Strategy.evaluated:
            return arrays
        layout = self._layout or Layout.of_arrays(arrays)
        state = layout.read(arrays)
        return layout.record(ModelState(self.evaluated(state.params), state.float_buffers, state.int_buffers))

    def _ask(
        self,
        kind: str,
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        clients: Iterable[int],
        vectors: Mapping[str, Tensor] | None = None,
    ) -> list[Message]:
        if self.payload == "rankings":
            arrays = self._ranked(arrays)
        content = RecordDict({"arrays": arrays, "config": ConfigRecord({**config, "server-round": server_round})})
        if vectors:
            content[EXTRAS] = extras_record(vectors)
        return [Message(content, dst_node_id=client, message_type=kind) for client in clients]

    def _ranked(self, arrays: ArrayRecord) -> ArrayRecord:
        """Return how a model ranks the parameters of each layer."""
        layout = self._layout or Layout.of_arrays(arrays)
        params = layout.read(arrays).params
        return rankings_record(torch.cat([frl_rank(params[layer]) for layer in layout.layers()]), layout.sizes())

    def _cohort(self, server_round: int, state: State, fitting: list[Reply]) -> Cohort:
        names = sorted({name for reply in fitting for name in reply.metrics} - {"num-examples"})
        ids = [reply.client for reply in fitting]
        counts = [reply.label_counts for reply in fitting if reply.label_counts is not None]
        told = len(counts) == len(fitting) and len({len(of_client) for of_client in counts}) == 1
        return Cohort(
            round=server_round,
            client_ids=ids,
            updates=stack_rows([reply.row for reply in fitting])
            if self.payload == "updates"
            else fitting[0].row.expand(len(fitting), -1),
            params=state.params,
            num_examples=torch.tensor([reply.metrics["num-examples"] for reply in fitting], dtype=torch.float64),
            metrics={
                name: torch.tensor([reply.metrics.get(name, math.nan) for reply in fitting], dtype=torch.float64)
                for name in names
            },
            label_counts=torch.tensor(counts, dtype=torch.float64) if told else None,
            population=self._population,
            trusted=self._trusted,
            extras={name: torch.stack([reply.extras[name] for reply in fitting]) for name in fitting[0].extras},
            reachability=None if self.reachability is None else self.reachability[ids],
        )

    def _believed(self, cohort: Cohort) -> Tensor | None:
        """Return how much the rule trusts each client, [n], where it tells: their float buffers count as much."""
        client_weights = getattr(self.rule, "client_weights", None)
        if client_weights is None or self.pre_aggregators:  # a rule then sees mixtures of clients
            return None
        context = self._pipeline.context(cohort, cohort.n)
        if self.rule.uses_weights:
            context["weights"] = None if self.weighting is None else copy.deepcopy(self.weighting)(cohort)
        weights: Tensor = client_weights(cohort.updates, **context)
        return weights

    def _without_rows(
        self, server_round: int, counts: dict[str, float], reason: str
    ) -> tuple[ArrayRecord | None, MetricRecord]:
        """Return the model after a round without rows to combine, None where it stays."""
        step = self.idle(server_round)
        if step is None:
            level = logging.INFO if self._kept else logging.WARNING
            logger.log(level, "round %d: the model stays as it was, %s", server_round, reason)
            self._kept = True
            return None, metric_record(counts)
        layout, state = self._layout, self._state
        assert layout is not None
        assert state is not None
        params = self.server_optimizer(state.params, step)
        return layout.record(ModelState(params, state.float_buffers, state.int_buffers)), metric_record(counts)
