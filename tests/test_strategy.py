"""The adapter: messages in, a cohort for the parts, a new model out; and what it does with replies it cannot use."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from torch import Tensor, nn

from fedagg import Cohort, ConfigError, PreAggregator, Rule, Strategy, Weighting
from fedagg.params import KINDS, Layout, ModelState
from fedagg.server_optimizers import Step, TorchOptimizer
from strategies import ByExamples, Krum, Mean, Median, MultiKrum, TrimmedMean, Uniform
from tests.messages import reply, vector_model


class Nodes(Grid):
    """A Grid that only has node ids."""

    def __init__(self, ids: Iterable[int]) -> None:
        self.ids = list(ids)

    def get_node_ids(self) -> Iterable[int]:
        return self.ids

    set_run = run = create_message = push_messages = pull_messages = send_and_receive = None  # type: ignore[assignment]


Nodes.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]


def arrays_of(params: Tensor) -> ArrayRecord:
    layout = Layout.of_model(vector_model(len(params)))
    empty = layout.empty()
    return layout.record(ModelState(params, empty.float_buffers, empty.int_buffers))


def one_round(
    strategy: Strategy, rows: list[list[float] | None], counts: list[float] | None = None, start: float = 0.0
) -> tuple[Tensor | None, dict[str, float]]:
    """Let clients 0, 1, ... answer with ``start + row`` (None: an error) and return the new parameters and the metrics."""
    d = max(len(row) for row in rows if row is not None)
    sent = arrays_of(torch.full((d,), start))
    messages = list(strategy.configure_train(1, sent, ConfigRecord(), Nodes(range(len(rows)))))
    replies = []
    for i, (message, row) in enumerate(zip(messages, rows, strict=True)):
        message.metadata.__dict__["_message_id"] = str(i)
        if row is None:
            replies.append(Message(Error(0, "no power"), reply_to=message))
        else:
            replies.append(reply(message, start + torch.tensor(row), **{"num-examples": counts[i] if counts else 1}))
    new, metrics = strategy.aggregate_train(1, replies)
    params = None if new is None else torch.from_numpy(new["theta"].numpy())
    return params, dict(metrics or {})


def test_without_parts_it_is_the_plain_mean() -> None:
    params, _ = one_round(Strategy(), [[0.0, 3.0], [1.0, 6.0], [2.0, 9.0]], start=10.0)
    assert params is not None
    assert params.tolist() == [11.0, 16.0]


def test_weighting_by_examples() -> None:
    params, _ = one_round(Strategy(Mean(), ByExamples()), [[0.0], [4.0]], counts=[1, 3])
    assert params is not None
    assert params.tolist() == [3.0]


def test_robust_rules_ignore_claimed_counts() -> None:
    rows: list[list[float] | None] = [[0.0], [0.1], [0.2], [0.3], [0.9]]
    honest, _ = one_round(Strategy(MultiKrum(f=1, m=4)), rows, counts=[1, 1, 1, 1, 1])
    lied, _ = one_round(Strategy(MultiKrum(f=1, m=4)), rows, counts=[1, 1, 1, 1, 1e9])
    assert honest is not None
    assert torch.equal(honest, lied)
    assert honest.item() == pytest.approx(0.15)


def test_pre_aggregators_come_before_the_rule_in_their_order() -> None:
    @dataclass(frozen=True)
    class Add(PreAggregator):
        amount: float

        def __call__(self, updates: Tensor) -> Tensor:
            return updates + self.amount

    @dataclass(frozen=True)
    class Double(PreAggregator):
        def __call__(self, updates: Tensor) -> Tensor:
            return 2 * updates

    params, _ = one_round(Strategy(Mean(), pre_aggregators=[Add(1.0), Double()]), [[1.0], [3.0]])
    assert params is not None
    assert params.tolist() == [6.0]


def test_an_overridden_aggregate_decides() -> None:
    class Last(Strategy):
        def aggregate(self, cohort: Cohort) -> Tensor:
            return cohort.updates[-1]

    params, _ = one_round(Last(), [[1.0], [3.0]], start=1.0)
    assert params is not None
    assert params.tolist() == [4.0]


def test_a_cohort_holds_what_is_known() -> None:
    seen: list[Cohort] = []

    class Look(Weighting):
        def __call__(self, cohort: Cohort) -> Tensor:
            seen.append(cohort)
            return torch.ones(cohort.n)

    one_round(Strategy(Mean(), Look()), [[1.0, 2.0], [3.0, 4.0]], counts=[5, 7], start=1.0)
    cohort = seen[0]
    assert len(seen) == 1  # asked once a round, or a weighting with state would count a round twice
    assert (cohort.round, list(cohort.client_ids), cohort.population, cohort.n) == (1, [0, 1], 2, 2)
    assert cohort.updates.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert cohort.params.tolist() == [1.0, 1.0]
    assert cohort.num_examples.tolist() == [5.0, 7.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30])
def test_rows_that_are_not_finite_are_dropped_and_counted_against_f(bad: float) -> None:
    """Six clients with f = 1: without the bad row five are left, which Krum(f=1) would take, and f is 0."""
    seen = []

    class Spy(Median):
        def __call__(self, updates: Tensor, weights: Tensor | None = None) -> Tensor:
            seen.append((len(updates), rule.f))
            return super().__call__(updates, weights)

    rule = Spy()
    object.__setattr__(rule, "f", 1)
    params, metrics = one_round(Strategy(rule), [[1.0], [2.0], [3.0], [bad]])
    assert params is not None
    assert params.tolist() == [2.0]
    assert seen == [(3, 0)]
    assert rule.f == 1  # as it was
    assert (metrics["clients"], metrics["rejected"], metrics["not_finite"]) == (3, 1, 1)


def test_a_bound_still_holds_after_bad_rows_are_gone() -> None:
    rows: list[list[float] | None] = [[1.0], [1.1], [1.2], [1.3], [math.nan]]
    params, _ = one_round(Strategy(Krum(f=1)), rows)  # n = 4, f = 0: fine, where n = 4, f = 1 would not be
    assert params is not None
    assert params.item() in [pytest.approx(x) for x in (1.1, 1.2)]


def test_nothing_usable_keeps_the_model_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    params, metrics = one_round(Strategy(Median()), [[math.nan], None])
    assert params is None
    assert metrics["clients"] == 0
    assert "no reply can be used" in caplog.text


def test_replies_that_do_not_fit_are_dropped_and_named() -> None:
    strategy = Strategy()
    sent = arrays_of(torch.zeros(2))
    messages = list(strategy.configure_train(1, sent, ConfigRecord(), Nodes(range(6))))
    for i, message in enumerate(messages):
        message.metadata.__dict__["_message_id"] = str(i)

    def answer(i: int, arrays: dict[str, np.ndarray], **metrics: float) -> Message:
        record = ArrayRecord({name: Array(value) for name, value in arrays.items()})
        content = RecordDict({"arrays": record, "metrics": MetricRecord({"num-examples": 1, **metrics})})
        return Message(content, reply_to=messages[i])

    replies = [
        answer(0, {"theta": np.array([1, 3], dtype=np.float32)}),
        answer(1, {"theta": np.array([9], dtype=np.float32)}),  # would broadcast
        answer(2, {"phi": np.array([9, 9], dtype=np.float32)}),
        answer(3, {"theta": np.array([9, 9], dtype=np.float32)}, **{"num-examples": -8}),
        answer(4, {"theta": np.array([9, 9], dtype=np.float32)}, **{"num-examples": math.inf}),
        Message(RecordDict({"metrics": MetricRecord({"num-examples": 1})}), reply_to=messages[5]),
    ]
    new, metrics = strategy.aggregate_train(1, replies)
    assert new is not None
    assert new["theta"].numpy().tolist() == [1.0, 3.0]
    assert metrics is not None
    assert metrics["rejected"] == 5
    why = strategy.last_info["rejected"]
    assert "must have shape [2]; got [1]" in why[1]
    assert "missing arrays ['theta']" in why[2]
    assert why[3] == "it claims -8.0 examples"
    assert why[4] == "it claims inf examples"
    assert "exactly one ArrayRecord; got 0" in why[5]


def test_replies_are_put_in_order_of_client_id() -> None:
    class First(Strategy):
        def aggregate(self, cohort: Cohort) -> Tensor:
            return cohort.updates[0]

    strategy = First()
    messages = list(strategy.configure_train(1, arrays_of(torch.zeros(1)), ConfigRecord(), Nodes([4, 2, 9])))
    assert [message.metadata.dst_node_id for message in messages] == [2, 4, 9]
    for i, message in enumerate(messages):
        message.metadata.__dict__["_message_id"] = str(i)
    replies = [reply(message, torch.tensor([float(message.metadata.dst_node_id)])) for message in reversed(messages)]
    new, _ = strategy.aggregate_train(1, replies)
    assert new is not None
    assert new["theta"].numpy().tolist() == [2.0]


def test_sampling_depends_on_seed_and_round_only() -> None:
    def sampled(seed: int, round: int, ids: Iterable[int] = range(50)) -> list[int]:
        strategy = Strategy(cohort=10, seed=seed)
        messages = strategy.configure_train(round, arrays_of(torch.zeros(1)), ConfigRecord(), Nodes(ids))
        return [message.metadata.dst_node_id for message in messages]

    assert sampled(0, 1) == sampled(0, 1, reversed(range(50)))
    assert sampled(0, 1) != sampled(0, 2)
    assert sampled(0, 1) != sampled(1, 1)
    assert sorted(set(sampled(0, 1))) == sampled(0, 1)
    assert len(sampled(0, 1)) == 10
    assert sampled(0, 1, range(4)) == [0, 1, 2, 3]  # no more can be reached


def test_every_client_is_sampled_equally_often() -> None:
    """2,000 rounds of 10 in 50: a count is Binomial(2000, 0.2), sd 17.9. The 50 counts all lie within 4.5 sd with probability
    0.9997, so a false alarm has rate 3e-4; the seed is fixed."""
    strategy = Strategy(cohort=10, seed=0)
    counts = np.zeros(50)
    for round in range(1, 2001):
        for message in strategy.configure_train(round, arrays_of(torch.zeros(1)), ConfigRecord(), Nodes(range(50))):
            counts[message.metadata.dst_node_id] += 1
    assert np.abs(counts - 400).max() < 4.5 * 17.9


def test_a_server_optimizer_moves_the_model() -> None:
    params, _ = one_round(Strategy(server_optimizer=Step(lr=0.5)), [[2.0], [4.0]], start=1.0)
    assert params is not None
    assert params.tolist() == [2.5]


@pytest.mark.parametrize("name", ["SGD", "Adam", "Adagrad"])
def test_torch_optimizers_are_fed_the_negated_delta(name: str) -> None:
    """Against the optimizer driven by hand, through a save and a load in the middle."""
    make = getattr(torch.optim, name)
    deltas = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    by_hand = nn.Parameter(torch.ones(5))
    optimizer = make([by_hand], lr=0.1)
    ours = TorchOptimizer(lambda params: make(params, lr=0.1))
    params = torch.ones(5)
    for step, delta in enumerate(deltas):
        by_hand.grad = -delta
        optimizer.step()
        if step == 3:
            saved = ours.state_dict()
            ours = TorchOptimizer(lambda params: make(params, lr=0.1))
            ours.load_state_dict(saved)
        params = ours(params, delta)
        assert torch.equal(params, by_hand.detach())


def test_buffers_follow_the_clients_the_rule_trusts() -> None:
    model = nn.BatchNorm1d(2)
    layout = Layout.of_model(model)
    start = layout.gather(model)
    states = [
        ModelState(start.params + value, torch.full((4,), 100.0 * value), torch.tensor([steps]))
        for value, steps in ((0.0, 3), (0.1, 9), (0.15, 4), (0.3, 5), (5.0, 6))
    ]
    for rule, floats in ((Krum(f=1), 10.0), (TrimmedMean(f=1), 111.0)):  # Krum picks 0.1, else the mean
        strategy = Strategy(rule)
        messages = list(strategy.configure_train(1, layout.record(start), ConfigRecord(), Nodes(range(5))))
        replies = []
        for i, (message, state) in enumerate(zip(messages, states, strict=True)):
            message.metadata.__dict__["_message_id"] = str(i)
            content = RecordDict({"arrays": layout.record(state), "metrics": MetricRecord({"num-examples": 1})})
            replies.append(Message(content, reply_to=message))
        before = [state.clone() for state in states]
        new, _ = strategy.aggregate_train(1, replies)
        assert new is not None
        merged = layout.read(new)
        np.testing.assert_allclose(merged.float_buffers, floats, rtol=1e-6)
        assert merged.int_buffers.tolist() == [9]
        for state, old in zip(states, before, strict=True):  # the caller's replies stay as they were
            assert all(torch.equal(getattr(state, kind), getattr(old, kind)) for kind in KINDS)


def test_reported_numbers_are_plain_means_over_finite_values() -> None:
    strategy = Strategy()
    messages = list(strategy.configure_train(1, arrays_of(torch.zeros(1)), ConfigRecord(), Nodes(range(3))))
    replies = []
    for i, (message, loss) in enumerate(zip(messages, (1.0, 3.0, math.nan), strict=True)):
        message.metadata.__dict__["_message_id"] = str(i)
        replies.append(reply(message, torch.zeros(1), loss=loss, **{"num-examples": 10**i}))
    _, metrics = strategy.aggregate_train(1, replies)
    assert metrics is not None
    assert metrics["loss"] == 2.0


@pytest.mark.parametrize(
    ("rule", "n", "message"),
    [
        (Krum(f=2), 6, r"Krum needs n >= 2f \+ 3 \(Blanchard et al. 2017\); got n=6, f=2"),
        (TrimmedMean(f=3), 6, r"n=6, f=3"),
    ],
)
def test_check_finds_an_impossible_f_before_any_training(rule: Rule, n: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Strategy(rule).check(n)
    Strategy(replace(rule, f=1)).check(n)  # type: ignore[type-var]


def test_combinations_without_a_meaning_are_refused() -> None:
    with pytest.raises(ConfigError, match="does not use weights"):
        Strategy(Median(), Uniform())
    with pytest.raises(ConfigError, match="cohort must be at least 1"):
        Strategy(cohort=0)


def test_repr_pastes_back() -> None:
    strategy = Strategy(TrimmedMean(f=2), cohort=7, seed=3)
    assert repr(eval(repr(strategy), {**globals(), **locals()})) == repr(strategy)
