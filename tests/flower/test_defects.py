"""What Flower does that a simulator must know, and what we do instead. Small, offline, against the installed Flower.

A test named ``test_flower_...`` describes Flower as it was when it was examined. On any other version of Flower a difference
is reported (the test is skipped with the reason) instead of failed. What it says of ours holds on every version.
"""

import math
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    FedMedian,
    FedTrimmedAvg,
    Krum,
    MultiKrum,
)
from flwr.serverapp.strategy import Strategy as FlowerStrategy

import strategies
from fedagg import FedaggError, LocalGrid, Strategy, run
from fedagg.linalg import squared_distances
from tests.flower import answers
from tests.flower.answers import EXAMINED, Answer, all_of, answering, arrays_of, flower, one_round, theta

NAN = math.nan


# How the report works


def test_a_difference_is_a_failure_on_the_examined_version_and_a_report_on_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "version", lambda _: EXAMINED)
    with pytest.raises(AssertionError, match="moved"), flower("it stands still"):
        raise AssertionError("moved")
    monkeypatch.setattr(answers, "version", lambda _: "9.9.9")
    for change in (AssertionError("moved"), ValueError("moved"), pytest.fail.Exception("moved")):
        reported = pytest.raises(pytest.skip.Exception, match=r"Flower 9\.9\.9 may have mended this: it stands still .*moved")
        with reported, flower("it stands still"):
            raise change


# A1: the same seed samples other clients


def test_flower_samples_other_clients_under_the_same_seed() -> None:
    """Node ids come from the operating system, so seeds do not decide who is sampled. Ten of twenty, three times: equal
    cohorts have a chance of 3e-11."""

    def sampled() -> frozenset[int]:
        from flwr.proto.task_pb2 import Task
        from flwr.server.superlink.fleet.vce.vce_api import _register_nodes
        from flwr.server.superlink.linkstate import LinkStateFactory
        from flwr.server.superlink.linkstate.in_memory_linkstate import RunRecord
        from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID
        from flwr.supercore.object_store import ObjectStoreFactory
        from flwr.supercore.run import Run
        from flwr.superlink.federation import NoOpFederationManager
        from flwr.superlink.grid import InMemoryGrid

        random.seed(0)
        np.random.seed(0)
        states: Any = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory())
        simulated = Run.create_empty(run_id=1)
        simulated.primary_task_id, simulated.federation_id = 1, NOOP_FEDERATION_ID
        states.state().task_store[1] = Task(task_id=1, run_id=1)
        states.state().run_ids[1] = RunRecord(run=simulated)
        grid = InMemoryGrid(states)
        grid.set_run(simulated)
        partitions = _register_nodes(20, states)  # as its simulation engine does before a run
        messages = list(FedAvg(**all_of(10)).configure_train(1, arrays_of([0.0]), ConfigRecord(), grid))
        assert len(messages) == 10
        return frozenset(partitions[message.metadata.dst_node_id] for message in messages)

    with flower("sampling is not decided by the seed"):
        assert len({sampled(), sampled(), sampled()}) > 1


@pytest.mark.parametrize("make", [lambda: FedAvg(**all_of(10)), lambda: Strategy(cohort=10)], ids=["Flower's", "ours"])
def test_in_our_grid_the_seed_decides(make: Callable[[], FlowerStrategy]) -> None:
    def sampled(seed: int, state: int) -> tuple[float, ...]:
        random.seed(state)
        np.random.seed(state)
        strategy = make()
        if isinstance(strategy, Strategy):
            strategy.seed = seed
        rows = [np.eye(20)[client].tolist() for client in range(20)]
        return tuple(theta(run(answering(rows), strategy, arrays_of(np.zeros(20)), rounds=1, seed=seed)))

    cohort = sampled(0, state=0)
    assert sorted(cohort) == pytest.approx([0.0] * 10 + [0.1] * 10)
    assert sampled(0, state=1) == cohort != sampled(1, state=0)


# A5: fractions of the population are rounded down


def test_flower_rounds_cohorts_down() -> None:
    with flower("int(100 * 0.29) is 28"):
        settings = {"fraction_train": 0.29, "min_train_nodes": 1, "fraction_evaluate": 0.0}
        grid = answering([[0.0]] * 100)
        assert run(grid, FedAvg(**settings), arrays_of([0.0]), rounds=1).last("asked", "server") == 28


def test_our_cohorts_are_whole_numbers() -> None:
    assert one_round(Strategy(cohort=29), [[0.0]] * 100).last("asked", "server") == 29


# B1: Krum's bound


def test_flowers_krum_runs_where_it_cannot_hold() -> None:
    with flower("Krum does not check its bound"):
        assert theta(one_round(Krum, [[0.0], [0.2], [10.0], [10.0]], num_malicious_nodes=2)) == 10
        assert theta(one_round(Krum, [[0.0], [0.2], [10.0]], num_malicious_nodes=50)) < 1


@pytest.mark.parametrize(("n", "f"), [(4, 2), (3, 50)])
def test_our_krum_names_its_bound(n: int, f: int) -> None:
    with pytest.raises(FedaggError, match=rf"Krum needs n >= 2f \+ 3 \(Blanchard et al\. 2017\); got n={n}, f={f}"):
        one_round(Strategy(strategies.Krum(f=f)), [[0.0], [0.2], [10.0], [10.0]][:n])


# B2: Multi-Krum and claimed counts

PICKS = [[0.0], [0.1], [0.2], [0.3], [50.0]]
CLAIMS = [1, 1, 1, 10**9, 1]


def test_flowers_multikrum_weights_its_picks_by_claims() -> None:
    with flower("MultiKrum weights its picks by the counts that clients claim"):
        settings = {"num_malicious_nodes": 1, "num_nodes_to_select": 4}
        assert theta(one_round(MultiKrum, PICKS, CLAIMS, **settings)) == pytest.approx(0.3, abs=1e-6)
    with flower("MultiKrum takes more picks than clients"):
        settings = {"num_malicious_nodes": 1, "num_nodes_to_select": 9}
        assert theta(one_round(MultiKrum, PICKS, **settings)) == pytest.approx(10.12)


def test_our_multi_krum_does_not_look_at_claims() -> None:
    assert theta(one_round(Strategy(strategies.MultiKrum(f=1, m=4)), PICKS, CLAIMS)) == pytest.approx(0.15)
    with pytest.raises(FedaggError, match=r"MultiKrum needs 1 <= m <= n .*got n=5, f=1, m=9"):
        one_round(Strategy(strategies.MultiKrum(f=1, m=9)), PICKS)


# B3: distances between weights, in float32


@pytest.fixture(scope="module", name="close")
def _close() -> tuple[np.ndarray, np.ndarray]:
    """Weights of std 0.05 and ten models that differ from them by 10^-5, the first by a third of that. d = 200,000."""
    draw = np.random.default_rng(0)
    weights = draw.normal(0, 0.05, 200_000).astype(np.float32)
    spread = np.full((10, 1), 1e-5)
    spread[0] /= 3
    return weights, (weights + spread * draw.normal(size=(10, 200_000))).astype(np.float32)


def distances(rows: np.ndarray) -> np.ndarray:
    return np.array([[np.square(a - b).sum() for b in rows] for a in rows.astype(np.float64)])


def test_flowers_krum_loses_the_distances(close: tuple[np.ndarray, np.ndarray]) -> None:
    """True squared distances are 2e-5 to 4e-5 between vectors of squared length 500: float32 rounds by about as much."""
    _, models = close
    off = ~np.eye(10, dtype=bool)
    truth = distances(models)
    with flower("Krum subtracts squared lengths of weights in float32"):
        from flwr.serverapp.strategy.multikrum import compute_distances

        found = compute_distances([arrays_of(model) for model in models])
        assert (found[off] < 0).any()
        assert np.abs(found / np.where(off, truth, 1) - 1)[off].max() > 1
        assert (found.argmin(axis=1) != np.arange(10)).any()  # what it takes for the client itself


def test_our_krum_keeps_the_distances(close: tuple[np.ndarray, np.ndarray]) -> None:
    """Updates are rounded to float32, and the distances between them are right to 10^-5. The first client is the closest to
    all others by far: a third of the spread."""
    weights, models = close
    updates = torch.from_numpy(models) - torch.from_numpy(weights)
    np.testing.assert_allclose(squared_distances(updates).numpy(), distances(updates.numpy()), rtol=1e-5, atol=0)
    result = run(answering(models), Strategy(strategies.Krum(f=1)), arrays_of(weights), rounds=1)  # type: ignore[arg-type]
    np.testing.assert_allclose(result.arrays["theta"].numpy(), models[0], rtol=0, atol=1e-8)


# B5: rows that are not numbers

BROKEN = [[1.0], [2.0], [3.0], [4.0], [NAN]]


def test_flower_averages_what_is_not_a_number() -> None:
    with flower("FedAvg and FedMedian return NaN for one NaN row"):
        assert math.isnan(theta(one_round(FedAvg, BROKEN)))
        assert math.isnan(theta(one_round(FedMedian, BROKEN)))
    with flower("FedTrimmedAvg survives as many NaN rows as it cuts and no more"):
        assert theta(one_round(FedTrimmedAvg, BROKEN, beta=0.2)) == 3
        assert math.isnan(theta(one_round(FedTrimmedAvg, [*BROKEN[1:], [NAN]], beta=0.2)))


@pytest.mark.parametrize("bad", [NAN, math.inf, 1e30], ids=["NaN", "inf", "norm overflows"])
@pytest.mark.parametrize(
    ("rule", "expected"),
    [(strategies.Mean(), 2.5), (strategies.Median(), 2.5), (strategies.TrimmedMean(f=1), 2.5), (strategies.Krum(f=1), None)],
    ids=str,
)
def test_ours_drops_what_is_not_a_number_and_says_so(rule: Any, expected: float | None, bad: float) -> None:
    strategy = Strategy(rule)
    result = one_round(strategy, [*BROKEN[:4], [bad]])
    assert theta(result) == expected or (expected is None and theta(result) in (2, 3))
    assert (result.last("rejected", "server"), result.last("not_finite", "server")) == (1, 1)
    assert strategy.last_info["rejected"] == {4: "its model is not finite"}


# B6: who owns the messages


def held_replies(values: Sequence[float]) -> list[Message]:
    """Replies that somebody else still holds."""
    grid = answering([[value] for value in values])
    content = RecordDict({"arrays": arrays_of([0.0]), "config": ConfigRecord({"server-round": 1})})
    asked = [Message(content, dst_node_id=client, message_type="train") for client in range(len(values))]
    return list(grid.send_and_receive(asked))


@pytest.mark.parametrize("strategy", [FedMedian, FedTrimmedAvg])
def test_flower_empties_the_messages_it_is_given(strategy: type[FedAvg]) -> None:
    replies = held_replies([1.0, 2.0, 3.0])
    with flower("FedMedian and FedTrimmedAvg pop the arrays out of the replies"):
        strategy(**all_of(3)).aggregate_train(1, replies)
        assert [len(reply.content["arrays"]) for reply in replies] == [0, 0, 0]


@pytest.mark.parametrize("rule", [strategies.Mean(), strategies.Median(), strategies.TrimmedMean(f=1)], ids=str)
def test_ours_leaves_messages_as_they_are(rule: Any) -> None:
    replies, strategy = held_replies([1.0, 2.0, 3.0]), Strategy(rule)
    list(strategy.configure_train(1, arrays_of([0.0]), ConfigRecord(), answering([[0.0]] * 3)))
    assert strategy.aggregate_train(1, replies)[0] is not None
    assert [reply.content["arrays"]["theta"].numpy().tolist() for reply in replies] == [[1.0], [2.0], [3.0]]


def test_our_grid_keeps_what_a_client_holds_from_flowers_hands() -> None:
    """A client that answers with the same record every round would lose it in the first."""
    app, held = ClientApp(), {client: arrays_of([float(client)]) for client in range(3)}

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays = held[int(context.node_config["partition-id"])]
        return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message)

    result = run(LocalGrid(app, num_clients=3), FedMedian(**all_of(3)), arrays_of([9.0]), rounds=3)
    assert theta(result) == 1
    assert [held[client]["theta"].numpy().tolist() for client in range(3)] == [[0.0], [1.0], [2.0]]


# C1: claimed counts

ONES = [[1.0], [0.0], [1.0]]


def test_flowers_fedavg_believes_any_count() -> None:
    with flower("FedAvg believes any count"):
        assert theta(one_round(FedAvg, ONES, [1, 10**9, 1])) == pytest.approx(0, abs=1e-6)
        assert theta(one_round(FedAvg, ONES, [5.0, 5.0, -8.0])) == pytest.approx(-1.5)
        for count in (math.inf, NAN):
            assert math.isnan(theta(one_round(FedAvg, ONES, [1.0, 1.0, count])))
    with flower("FedAvg divides by zero where every count is zero"), pytest.raises(FedaggError, match="ZeroDivisionError"):
        one_round(FedAvg, ONES, [0, 0, 0])


@pytest.mark.parametrize("count", [-8.0, math.inf, NAN])
def test_ours_drops_a_client_that_claims_an_impossible_count(count: float) -> None:
    strategy = Strategy(weighting=strategies.ByExamples())
    result = one_round(strategy, ONES, [1.0, 3.0, count])
    assert theta(result) == 0.25
    assert result.last("rejected", "server") == 1
    assert strategy.last_info["rejected"] == {2: f"it claims {count} examples"}


def test_our_weighting_by_examples_caps_claims_and_stands_zeros() -> None:
    capped = Strategy(weighting=strategies.ByExamples(cap=2))
    assert theta(one_round(capped, ONES, [1, 10**9, 1])) == pytest.approx(0.5)
    with pytest.warns(UserWarning, match="every client of round 1 claims 0 examples; ByExamples uses 1/n"):
        result = one_round(Strategy(weighting=strategies.ByExamples()), ONES, [0, 0, 0])
    assert theta(result) == pytest.approx(2 / 3)


# C2: replies that do not fit the model

MALFORMED: dict[str, tuple[Answer, str]] = {
    "missing key": ({}, r"missing arrays \['theta'\]"),
    "extra key": ({"theta": [5.0, 5.0], "phi": [1.0]}, r"unknown arrays \['phi'\]"),
    "wrong shape": ([1.0, 2.0, 3.0], r"array theta must have shape \[2\]; got \[3\]"),
    "a shape that broadcasts": ([5.0], r"array theta must have shape \[2\]; got \[1\]"),
}


def test_one_malformed_client_ends_flowers_run() -> None:
    with flower("a client with other keys or another shape stops the run"):
        for case, cause in (
            ("missing key", "InconsistentMessageReplies"),
            ("extra key", "InconsistentMessageReplies"),
            ("wrong shape", "ValueError"),
        ):
            with pytest.raises(FedaggError, match=rf"FedAvg.aggregate_train failed in round 1: {cause}"):
                one_round(FedAvg, [[1.0, 2.0], MALFORMED[case][0]])
    with flower("a shape that broadcasts changes the model"):
        assert theta(one_round(FedAvg, [[1.0, 2.0], [5.0]])) == [3.0, 3.5]


@pytest.mark.parametrize("case", MALFORMED)
def test_ours_drops_one_malformed_client_and_names_it(case: str) -> None:
    answer, reason = MALFORMED[case]
    strategy = Strategy()
    result = one_round(strategy, [[1.0, 2.0], answer, [3.0, 4.0]])
    assert theta(result) == [2.0, 3.0]
    assert result.last("rejected", "server") == 1
    assert strategy.last_info["rejected"].keys() == {1}
    assert re.search(reason, strategy.last_info["rejected"][1])


# D1, D3: Flower's wrappers for differential privacy; ours has none to compare


def private(wrapper: type[Any], n: int, **settings: Any) -> Any:
    return wrapper(FedAvg(**all_of(n)), noise_multiplier=0.0, num_sampled_clients=n, **settings)


def test_flowers_adaptive_clipping_runs_away_from_the_norms() -> None:
    """Every update has norm 7 and is clipped, so the clipping norm should grow; it falls by exp(-0.2 * 0.5) a round."""
    with flower("adaptive clipping moves its norm away from the quantile it is to find"):
        wrapper = private(DifferentialPrivacyServerSideAdaptiveClipping, 4, initial_clipping_norm=1.0)
        for number in range(1, 21):
            grid = answering([[7.0]] * 4)
            asked = list(wrapper.configure_train(number, arrays_of([0.0]), ConfigRecord(), grid))
            wrapper.aggregate_train(number, list(grid.send_and_receive(asked)))
        assert wrapper.clipping_norm == pytest.approx(math.exp(-0.2 * 0.5 * 20))


def test_flowers_clipping_divides_by_the_norm_of_an_update_that_is_zero() -> None:
    with flower("clipping divides by the norm of a zero update"):
        for wrapper, name in (
            (DifferentialPrivacyServerSideFixedClipping, "clipping_norm"),
            (DifferentialPrivacyServerSideAdaptiveClipping, "initial_clipping_norm"),
        ):
            strategy = private(wrapper, 2, **{name: 1.0})
            with pytest.raises(FedaggError, match="aggregate_train failed in round 1: ZeroDivisionError"):
                run(answering([[1.0], [0.0]]), strategy, arrays_of([0.0]), rounds=1)
