"""The server's own examples: what they would teach a client, and how a step does on them."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedagg import Clients, ConfigError, LocalGrid, LocalSGD, Population, Rule, Strategy, run
from fedagg.clients import TrustedExamples
from fedagg.data import IID, Dataset, Dirichlet
from fedagg.experiment import build
from fedagg.hydra_app import compose
from fedagg.params import Layout
from tests.running import SMALL


@pytest.fixture
def split(dataset: Dataset) -> Population:
    return Population.split(dataset, Dirichlet(0.5), num_clients=6, seed=3, trusted=100)


def test_the_server_keeps_examples_that_no_client_has(dataset: Dataset, split: Population) -> None:
    theirs = np.concatenate(list(split.indices))
    assert len(split.trusted) == len(set(split.trusted)) == 100
    assert sorted([*theirs, *split.trusted]) == list(range(len(dataset.y_train)))
    again = Population.split(dataset, IID(), num_clients=3, seed=3, trusted=100)
    assert np.array_equal(again.trusted, split.trusted)  # they depend on the seed alone
    assert not np.array_equal(Population.split(dataset, IID(), 3, seed=4, trusted=100).trusted, split.trusted)
    assert len(Population.split(dataset, IID(), 3, seed=3).trusted) == 0


def test_a_partition_sees_the_labels_of_what_is_left(dataset: Dataset, split: Population) -> None:
    counts = torch.bincount(torch.tensor(dataset.y_train[split.trusted]), minlength=10)
    everything = torch.bincount(torch.tensor(dataset.y_train), minlength=10)
    assert torch.equal(split.label_counts.sum(dim=0), everything - counts)


@pytest.mark.parametrize("trusted", [-1, 10**6])
def test_impossible_numbers(dataset: Dataset, trusted: int) -> None:
    with pytest.raises(
        ConfigError, match=f"at least 0 and less than the {len(dataset.y_train)} training samples; got {trusted}"
    ):
        Population.split(dataset, IID(), 3, trusted=trusted)


def test_the_root_update_is_that_of_plain_sgd(dataset: Dataset, split: Population, model: nn.Module) -> None:
    """With one batch an epoch the order of examples is no matter: three steps of full-batch SGD on the 100 examples."""
    clients = Clients(split, model, LocalSGD(epochs=3, batch_size=10_000, lr=0.5), seed=0)
    layout = Layout.of_model(model)
    state = layout.gather(model)
    x, y = dataset.features(dataset.x_train[split.trusted]), torch.tensor(dataset.y_train[split.trusted])
    weight, bias = (parameter.detach().clone().requires_grad_() for parameter in model.parameters())
    for _ in range(3):
        loss = functional.cross_entropy(x.flatten(1) @ weight.T + bias, y)
        for parameter, grad in zip((weight, bias), torch.autograd.grad(loss, (weight, bias)), strict=True):
            parameter.data -= 0.5 * grad
    moved = torch.cat([weight.detach().flatten(), bias.detach()]) - state.params
    trusted = TrustedExamples(clients)(state, 1)
    torch.testing.assert_close(trusted.root_update(), moved, rtol=1e-4, atol=1e-6)
    assert trusted.root_update() is trusted.root_update()  # trained once a round
    with torch.no_grad():
        after = functional.cross_entropy(x.flatten(1) @ weight.T + bias, y)
        before = functional.cross_entropy(model(x), y)
    assert trusted.loss(moved) == pytest.approx(float(after), rel=1e-5)
    assert trusted.loss(torch.zeros(layout.size())) == pytest.approx(float(before), rel=1e-5)


@pytest.mark.parametrize(("epochs", "steps"), [(1, 7), (2, 15)])
def test_the_server_makes_about_as_many_steps_as_a_client(
    dataset: Dataset, model: nn.Module, epochs: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1,437 - 100 examples over 6 clients are 222 or 223 each: 7 batches of 32 an epoch. The server's 100 are 4."""
    made: list[int] = []
    plain = LocalSGD.batches

    def batches(self: LocalSGD, m: int, generator: torch.Generator) -> list[Tensor]:
        made.append(len(plain(self, m, generator)) if m == 100 else 0)
        return plain(self, m, generator)

    population = Population.split(dataset, IID(), num_clients=6, seed=3, trusted=100)
    clients = Clients(population, model, LocalSGD(epochs=epochs), seed=0)
    trusted = TrustedExamples(clients)
    monkeypatch.setattr(LocalSGD, "batches", batches)
    trusted(Layout.of_model(model).gather(model), 1).root_update()
    assert abs(made[-1] - steps) <= 2  # the nearest number of whole epochs
    assert made[-1] == 4 * round(steps / 4)


def test_every_round_has_its_own_order_and_equal_rounds_agree(split: Population, model: nn.Module) -> None:
    clients = Clients(split, model, LocalSGD(), seed=0)
    state = Layout.of_model(model).gather(model)
    first, second = (TrustedExamples(clients)(state, round).root_update() for round in (1, 2))
    assert not torch.equal(first, second)
    assert torch.equal(first, TrustedExamples(clients)(state, 1).root_update())


def test_no_examples_no_trust(population: Population, model: nn.Module) -> None:
    with pytest.raises(ConfigError, match="holds no examples of its own; raise trusted"):
        TrustedExamples(Clients(population, model))


class Rooted(Rule):
    """Follows the server's own update, and asks for the loss of it."""

    needs = frozenset({"root_update", "loss"})
    seen: list[tuple[float, float]] = []  # noqa: RUF012

    def __call__(
        self, updates: Tensor, weights: Tensor | None = None, *, root_update: Tensor | None = None, loss: object = None
    ) -> Tensor:
        if root_update is None or not callable(loss):
            raise ValueError("Rooted needs root_update and loss")
        self.seen.append((loss(torch.zeros_like(root_update)), loss(root_update)))
        return root_update


def test_a_rule_is_given_what_it_needs(split: Population, model: nn.Module) -> None:
    clients = Clients(split, model, LocalSGD(lr=0.5), seed=0)
    Rooted.seen.clear()
    result = run(LocalGrid(clients), Strategy(Rooted(), trusted=TrustedExamples(clients)), model, rounds=15)
    assert result.last() > 0.75  # of the test set, from 100 examples
    assert all(after < before for before, after in Rooted.seen[:4])


def test_a_rule_without_what_it_needs_says_so_before_any_training() -> None:
    with pytest.raises(ConfigError, match=r"^Rooted needs root_update and loss$"):
        Strategy(Rooted()).check(6)


@pytest.mark.parametrize(("overrides", "trusted"), [([], 100), (["trusted=20"], 20), (["strategy=median"], 0)])
def test_the_command_line_keeps_examples_where_the_rule_needs_them(overrides: list[str], trusted: int) -> None:
    own = [] if overrides == ["strategy=median"] else ["strategy=mean", f"strategy.rule._target_={__name__}.Rooted"]
    experiment = build(compose([*SMALL, *own, *overrides]))
    assert experiment.cfg.trusted == trusted
    assert len(experiment.clients.population.trusted) == trusted
    assert (experiment.strategy.trusted is not None) == bool(trusted)  # type: ignore[union-attr]
