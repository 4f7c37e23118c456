"""Rules that trust some clients more than others: values, references, fallbacks, state, and what they cannot do."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from strategies import FLTrust, FoolsGold, Zeno

from . import properties, reference
from . import reference_reputation as slow
from .checks import double, holds_anyhow, refuses_what_is_no_update, same, seeded
from .test_against_reference import normal_rows
from .test_golden import X5, X7, close, matrix
from .test_properties import matrices

F5 = [[1, 0, 0.2], [0, 1, 0.1], [-0.5, 0.3, 1], [2, 2, 2], [2, 2.01, 2]]
often = settings(max_examples=80, deadline=None, derandomize=True)
quickly = settings(max_examples=15, deadline=None, derandomize=True)
any_rows = given(n=st.integers(1, 8), d=st.integers(1, 6), seed=st.integers(0, 10_000))


def square_loss(step):
    """The squared distance to a model at (1, 1, ...), of a tensor or a list."""
    return sum((float(x) - 1.0) ** 2 for x in step)


# FLTrust


def test_fl_trust_values():
    rule = FLTrust()
    close(rule(matrix(X5), root_update=double([1.0, 1.0])), [0.975017, 0.975017])
    close(rule.last_info["trust"], [0.948683, 0.948683, 1, 1, 0])
    assert "fallback" not in rule.last_info


@often
@any_rows
def test_fl_trust(n, d, seed):
    *rows, root = normal_rows(n + 1, d, seed)
    rows[0] = [0.0] * d if seed % 3 == 0 else rows[0]
    rule = FLTrust()
    trust, wanted = slow.fl_trust(rows, root)
    same(rule(double(rows), root_update=double(root)), wanted)
    same(rule.last_info["trust"], trust)
    weights = rule.client_weights(double(rows), root_update=double(root))
    if any(trust):
        same(weights @ double(rows), wanted)
    assert ("fallback" in rule.last_info) == (not any(trust))


def test_where_nobody_is_trusted_the_root_update_is_the_result():
    root = double([1.0, 0.0])
    rule = FLTrust(root_update=root)
    for rows in ([[-1.0, 0.0], [0.0, 0.0], [0.0, 5.0]], [[0.0, 0.0]]):
        result = rule(double(rows))
        assert torch.equal(result, root)
        assert result.data_ptr() != root.data_ptr()
        assert rule.last_info["client_weights"].tolist() == [0.0] * len(rows)
        assert "root update" in rule.last_info["fallback"]
    rule(double([[1.0, 0.0]]))
    assert "fallback" not in rule.last_info
    assert FLTrust(root_update=torch.zeros(2))(torch.ones(3, 2)).tolist() == [0.0, 0.0]


def test_the_root_update_of_a_call_wins_and_may_be_made_on_demand():
    updates = matrix(X5)
    wanted = FLTrust()(updates, root_update=double([1.0, 1.0]))
    assert torch.equal(FLTrust(root_update=double([-1.0, 3.0]))(updates, root_update=double([1.0, 1.0])), wanted)
    assert torch.equal(FLTrust(root_update=lambda: double([1.0, 1.0]))(updates), wanted)


@quickly
@given(updates=matrices())
def test_fl_trust_properties(updates):
    root = torch.ones(updates.shape[1], dtype=torch.float64)
    rule = lambda rows, weights=None: FLTrust()(rows, weights, root_update=root)  # noqa: E731
    holds_anyhow(rule, updates)
    properties.permutation_invariant(rule, updates)
    properties.close(rule(1e-3 * updates), rule(updates))  # lengths do not count
    turn = torch.linalg.qr(torch.randn(len(root), len(root), generator=seeded(1)).double()).Q
    properties.close(FLTrust()(updates @ turn, root_update=root @ turn), rule(updates) @ turn)
    far = torch.cat([updates, 1e30 * updates[:20], -1e30 * updates[:20]])
    assert rule(far).norm() <= root.norm() * (1 + 1e-12)


# FoolsGold


@pytest.mark.parametrize(("rows", "alpha"), [(F5, [1, 1, 1, 0, 0]), (X7, [0, 1, 1, 1, 0, 0.605316, 0.605316])])
def test_fools_gold_values(rows, alpha):
    rule = FoolsGold()
    result = rule(matrix(rows))
    close(rule.last_info["alpha"], alpha)
    close(result, reference.mean(rows, [a / sum(alpha) for a in alpha]))
    assert slow.fools_gold_alpha(rows) == pytest.approx(alpha, abs=1e-5)


@often
@given(n=st.integers(1, 7), d=st.integers(2, 6), seed=st.integers(0, 10_000), rounds=st.integers(1, 4))
def test_fools_gold_remembers_clients_and_not_rows(n, d, seed, rounds):
    """Cohorts differ from round to round; what counts is the sum of what a client sent."""
    rule, sums = FoolsGold(), {}
    for number in range(rounds):
        ids = [3 * i + (i + number) % 3 for i in range(n)]
        rows = normal_rows(n, d, seed + number)
        for client, row in zip(ids, rows, strict=True):
            sums[client] = [a + b for a, b in zip(sums.get(client, [0.0] * d), row, strict=True)]
        alpha = slow.fools_gold_alpha([sums[client] for client in ids])
        weights = rule.client_weights(double(rows), client_ids=ids)  # before the call, and without effect on it
        result = rule(double(rows), client_ids=ids)
        same(rule.last_info["alpha"], alpha, 1e-7)
        same(result, reference.mean(rows, [a / sum(alpha) for a in alpha]), 1e-7)
        assert torch.equal(weights, rule.last_info["client_weights"])
    history = rule.state_dict()["history"]
    assert set(history) == set(sums)
    for client, total in sums.items():
        same(history[client], total)


def test_fools_gold_without_memory_has_no_past():
    rule = FoolsGold(memory=False)
    first = rule(matrix(F5))
    rule(matrix(F5).flip(0))
    assert torch.equal(rule(matrix(F5)), first)
    assert rule.state_dict() == {"history": {}}


def test_row_numbers_stand_in_for_client_ids():
    rule = FoolsGold()
    rule(matrix(F5))
    assert sorted(rule.state_dict()["history"]) == [0, 1, 2, 3, 4]


def test_what_the_weighted_rows_are_divided_by():
    results = {divide_by: FoolsGold(divide_by=divide_by)(matrix(F5)) for divide_by in ("alpha", "n", "one")}
    close(results["one"], [0.5, 1.3, 1.3])
    close(results["n"], [0.5 / 5, 1.3 / 5, 1.3 / 5])
    close(results["alpha"], [0.5 / 3, 1.3 / 3, 1.3 / 3])


@pytest.mark.parametrize("n", [2, 5, 33])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_that_all_point_one_way_come_to_nothing(n, dtype):
    """Also in float32, where their cosines are 1 only up to rounding."""
    row = torch.randn(1000, generator=seeded(2), dtype=dtype)
    rule = FoolsGold()
    assert not rule(torch.linspace(1, 3, n, dtype=dtype)[:, None] * row).any()
    rule = FoolsGold()
    assert not rule(row.repeat(n, 1)).any()
    assert rule.last_info["client_weights"].tolist() == [0.0] * n
    assert "all rows point the same way" in rule.last_info["fallback"]
    rule(torch.eye(n, 1000, dtype=dtype), client_ids=range(100, 100 + n))
    assert "fallback" not in rule.last_info


def test_one_client_alone_and_a_row_of_zeros_are_no_sybils():
    assert FoolsGold()(double([[3.0, -4.0]])).tolist() == [3.0, -4.0]
    rule = FoolsGold()
    rule(double([[0.0, 0.0], [1.0, 0.0], [1.0, 1e-9]]))
    close(rule.last_info["alpha"], [1, 0, 0])


def test_the_history_is_nobody_elses():
    updates = matrix(F5)
    rule = FoolsGold()
    result = rule(updates)
    result.fill_(9.0)
    updates.fill_(9.0)
    state = rule.state_dict()
    assert state["history"][1].tolist() == [0, 1, 0.1]
    other = FoolsGold()
    other.load_state_dict(state)
    state["history"][1].fill_(9.0)
    assert torch.equal(other(matrix(X7)[:5]), rule(matrix(X7)[:5]))
    rule.reset()
    assert rule.state_dict() == {"history": {}}


def test_the_history_of_a_client_does_not_keep_its_cohort_in_memory():
    rule = FoolsGold()
    rule(torch.randn(50, 8, generator=seeded(0)))
    assert rule._history[7].untyped_storage().nbytes() == 8 * 4


def test_a_refused_round_leaves_the_history_as_it_was():
    rule = FoolsGold()
    refuses_what_is_no_update(rule)
    assert rule.state_dict() == {"history": {}}


def test_a_client_whose_sum_overflows_loses_its_weight():
    rule = FoolsGold()
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3e38, 3e38]])
    for _ in range(2):
        result = rule(rows)
    assert result.tolist() == [0.5, 0.5]


def test_honest_clients_with_alike_data_look_like_sybils():
    """A limit that the class states: of honest rows close to each other hardly any keeps its weight."""
    honest = 1 + 0.01 * torch.randn(8, 50, generator=seeded(0), dtype=torch.float64)
    attacker = -5 * torch.eye(1, 50, dtype=torch.float64)
    rule = FoolsGold()
    rule(torch.cat([honest, attacker]))
    assert rule.last_info["alpha"][-1] == 1
    assert rule.last_info["alpha"][:-1].max() < 0.01


@quickly
@given(updates=matrices())
def test_fools_gold_properties(updates):
    assert FoolsGold.invariances == {"permutation", "scale", "orthogonal"}
    rule = lambda rows, weights=None: FoolsGold()(rows, weights)  # noqa: E731
    holds_anyhow(rule, updates)
    for invariance in FoolsGold.invariances:
        properties.INVARIANCES[invariance](rule, updates)


# Zeno


@often
@given(n=st.integers(1, 7), f=st.integers(0, 6), d=st.integers(1, 4), seed=st.integers(0, 10_000))
def test_zeno(n, f, d, seed):
    assume(n > f)
    rows = [[float(round(2 * x)) for x in row] for row in normal_rows(n, d, seed)]  # small integers, so that scores tie
    for rho, gamma in ((0.0, 1.0), (0.25, 0.5)):
        rule = Zeno(f=f, rho=rho, gamma=gamma, loss=square_loss)
        scores, wanted = slow.zeno(rows, f, square_loss, rho, gamma)
        same(rule(double(rows)), wanted)
        same(rule.last_info["scores"], scores)
        properties.client_weights_agree(rule, double(rows))


def test_zeno_stands_more_liars_than_honest_clients():
    rows = double([[1.0, 1.0], [0.5, 1.0], [-9.0, -9.0], [-9.0, -9.0], [-9.0, -9.0]])
    assert Zeno(f=3)(rows, loss=square_loss).tolist() == [0.75, 1.0]


def test_the_loss_of_a_call_wins():
    rows = double([[1.0], [-1.0]])
    assert Zeno(f=1, loss=lambda step: -square_loss(step))(rows, loss=square_loss).tolist() == [1.0]


def test_a_row_whose_loss_is_not_finite_is_never_averaged():
    def loss(step):
        return float("nan") if step[0] > 5 else -float("inf") if step[0] < -5 else square_loss(step)

    rule = Zeno(f=2, loss=loss)
    assert rule(double([[9.0], [1.0], [-9.0], [2.0]])).tolist() == [1.5]
    with pytest.raises(ValueError, match="Zeno needs n - f rows with a finite loss; got f=1, "):
        Zeno(f=1, loss=loss)(double([[9.0], [1.0], [-9.0], [2.0]]))


@quickly
@given(updates=matrices())
def test_zeno_properties(updates):
    rule = Zeno(f=2, loss=lambda step: float((step.double() - 1).square().sum()))
    holds_anyhow(rule, updates)
    properties.permutation_invariant(rule, updates)
    properties.repr_pastes_back(rule)


# Settings


ONE = torch.ones(3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FLTrust()(torch.ones(2, 3)), "FLTrust needs root_update"),
        (lambda: FLTrust()(torch.ones(2, 3), root_update=torch.ones(4)), "finite root_update of shape [d=3]; got [4]"),
        (lambda: FLTrust()(torch.ones(2, 3), root_update=ONE / 0), "finite root_update"),
        (lambda: FLTrust()(torch.ones(0, 3), root_update=ONE), "FLTrust needs n >= 1; got n=0"),
        (lambda: FoolsGold(divide_by="sum"), "divide_by in ['alpha', 'n', 'one']; got 'sum'"),
        (lambda: FoolsGold()(torch.ones(2, 3), client_ids=[1]), "a client id for each; got n=2, client_ids=[1]"),
        (lambda: FoolsGold()(torch.ones(2, 3), client_ids=[1, 1]), "a client id for each; got n=2, client_ids=[1, 1]"),
        (lambda: FoolsGold()(torch.ones(0, 3)), "FoolsGold needs n >= 1 rows and a client id for each; got n=0"),
        (lambda: Zeno(f=2, loss=square_loss)(torch.ones(2, 3)), "n >= f + 1 (Xie et al. 2019); got n=2, f=2"),
        (lambda: Zeno(f=-1, loss=square_loss)(torch.ones(2, 3)), "f >= 0 and n >= f + 1 (Xie et al. 2019); got n=2, f=-1"),
        (lambda: Zeno(f=1)(torch.ones(2, 3)), "Zeno needs loss"),
        (lambda: Zeno(f=1, gamma=0), "rho >= 0 and gamma > 0; got rho=0.0005, gamma=0"),
    ],
)
def test_bounds(make, message):
    with pytest.raises(ValueError) as caught:
        make()
    assert message in str(caught.value)


def test_a_history_of_another_model_is_refused():
    rule = FoolsGold()
    rule(matrix(X5))
    with pytest.raises(ValueError, match="histories of 2 coordinates, the updates have 3"):
        rule(matrix(X7))


def test_rows_that_are_no_updates_are_refused_by_number():
    refuses_what_is_no_update(FLTrust(root_update=torch.ones(3)))
    refuses_what_is_no_update(Zeno(f=2, loss=square_loss))


def test_tags():
    rules = (FLTrust(root_update=ONE), FoolsGold(memory=False), Zeno(f=2, rho=0.1))
    assert [str(rule) for rule in rules] == ["FLTrust", "FoolsGold-memory=False", "Zeno-2-rho=0.1"]
    assert repr(FLTrust(root_update=ONE)) == "FLTrust()"
    assert [set(rule.needs) for rule in rules] == [{"root_update"}, {"client_ids"}, {"loss"}]


@pytest.mark.parametrize(("dtype", "short"), [(torch.float16, 1e-7), (torch.float32, 1e-45)])
def test_fltrust_does_not_trust_a_row_too_short_to_be_stretched(dtype, short):
    """Like a row of zeros: the other one, which points where g does, is all that counts."""
    root = torch.tensor([10.0, 5.0], dtype=dtype)
    rule = FLTrust()
    result = rule(torch.stack([root, torch.full_like(root, short)]), root_update=root)
    torch.testing.assert_close(result, root)
    assert rule.last_info["trust"].tolist() == pytest.approx([1, 0])
