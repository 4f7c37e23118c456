"""The main paths once more on a GPU, where there is one. Convolutions there round their factors to ten bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedagg import Clients, LocalSGD, Population
from fedagg.clients.choice import resolve_device
from fedagg.clients.data import ResidentData, examples
from fedagg.data import Dataset
from fedagg.params import Layout
from tests.clients.conftest import Fit
from tests.clients.models import NAMES, model_and_twin
from tests.running import run_into

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
TOLERANCE = {"cnn": 3e-2, "channel dropout": 3e-2}


@pytest.mark.parametrize("executor", ["one_at_a_time", "batched"])
@pytest.mark.parametrize("name", NAMES)
def test_rows_are_those_of_the_cpu(fit: Fit, name: str, executor: str) -> None:
    model, _ = model_and_twin(name)
    local = LocalSGD(lr=0.1, batch_size=16, momentum=0.5)
    expected = fit("one_at_a_time", model, local)
    done = fit(executor, model, local, device="cuda")
    assert done.rows.device.type == "cpu"  # where the model is that they received
    distance = (done.rows - expected.rows).norm(dim=1) / expected.rows.norm(dim=1)
    assert float(distance.max()) < TOLERANCE.get(name, 1e-4)
    assert done.training.num_examples == expected.training.num_examples


def test_auto_batches_on_the_gpu_and_rows_stay_there(uneven: Population) -> None:
    assert resolve_device("auto") == torch.device("cuda", 0)
    model = model_and_twin("mlp")[0].cuda()
    clients = Clients(uneven, model, device="auto")
    assert (clients.engine.name, clients.engine.why) == ("batched", "auto: quicker on a GPU")
    state = Layout.of_model(model).gather(model)
    done = clients.fit(state, range(7), 1)
    assert done.block.updates.device == state.params.device == torch.device("cuda", 0)
    assert clients.test(state)["loss"] > 0


def test_data_lie_on_the_gpu_with_the_same_bits(uneven: Population) -> None:
    source = examples(uneven, torch.device("cuda", 0))
    assert isinstance(source, ResidentData)
    for client, (x, y) in enumerate(source(range(7))):
        expected_x, expected_y = uneven.train(client)
        assert torch.equal(x.cpu(), expected_x)
        assert torch.equal(y.cpu(), expected_y)


@pytest.mark.parametrize(
    "more",
    [
        ["attack=alie", "attack.fraction=0.34"],
        ["attack=label_flip", "attack.fraction=0.34", "strategy=krum"],
        ["attack=gaussian_noise", "attack.fraction=0.34", "strategy=trimmed_mean", "server_optimizer=adam"],
        ["strategy=median", "evaluation.clients=true", "participation=bernoulli", "engine.precision=bfloat16"],
        ["strategy=flwr_fedadam"],
        ["model._target_=tests.clients.test_choice.with_batch_norm", "strategy=multi_krum", "f=1"],
    ],
)
def test_whole_runs(tmp_path: Path, more: list[str]) -> None:
    result, done = run_into(tmp_path, "engine.device=cuda", *more)
    assert result.last("loss") > 0
    assert done.config["engine"]["device"] == "cuda:0"
    assert all(value.device.type == "cpu" for value in torch.load(tmp_path / "model.pt", weights_only=True).values())


def test_a_data_set_of_wide_unsigned_integers_stays_with_the_population(dataset: Dataset) -> None:
    x = (dataset.x_train * 1000).astype("uint16")
    data = Dataset("wide", x, dataset.y_train, x[:1], dataset.y_train[:1], 10, "made here")
    assert not isinstance(examples(Population(data, [[0, 1]]), torch.device("cuda", 0)), ResidentData)
