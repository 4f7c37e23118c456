"""A model as flat vectors and as Flower arrays: nothing is lost, nothing is shared that must not be."""

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, RecordDict
from torch import nn

from fedagg.params import KINDS, Layout, ModelState, merge_buffers
from fedagg.resident import ResidentModel


def batch_norm_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 10))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(5, 3, bias=False)
        self.decode = nn.Linear(3, 5)
        self.decode.weight = nn.Parameter(torch.randn(5, 3))
        self.again = self.encode


def test_parameters_and_buffers_are_kept_apart() -> None:
    layout = Layout.of_model(batch_norm_net())
    # conv 4*9+4, batch norm 4+4, linear 144*10+10; running mean and variance 4+4; one counter
    assert (layout.size(), layout.size("float_buffers"), layout.size("int_buffers")) == (40 + 8 + 1450, 8, 1)


def test_frozen_weights_are_not_parameters() -> None:
    model = nn.Linear(3, 2)
    model.weight.requires_grad_(False)
    layout = Layout.of_model(model)
    assert (layout.size(), layout.size("float_buffers")) == (2, 6)


def test_tied_weights_count_once_and_stay_tied() -> None:
    model = Tied()
    layout = Layout.of_model(model)
    assert layout.size() == 15 + 15 + 5
    state = layout.gather(model)
    arrays = layout.record(state)
    np.testing.assert_array_equal(arrays["encode.weight"].numpy(), arrays["again.weight"].numpy())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gather_and_scatter_are_inverse(dtype: torch.dtype) -> None:
    model, other = batch_norm_net().to(dtype), batch_norm_net().to(dtype)
    model(torch.randn(3, 1, 8, 8, dtype=dtype))
    layout = Layout.of_model(model)
    layout.scatter(layout.gather(model), other)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
        assert tensor.dtype == other.state_dict()[name].dtype


def test_flower_reads_the_same_bytes_as_from_a_state_dict() -> None:
    model = batch_norm_net()
    layout = Layout.of_model(model)
    ours, theirs = layout.record(layout.gather(model)), ArrayRecord(model.state_dict())
    assert list(ours) == list(theirs)
    for name in theirs:
        assert ours[name].data == theirs[name].data, name
        assert (ours[name].dtype, ours[name].shape) == (theirs[name].dtype, theirs[name].shape), name
    assert ours.object_id == theirs.object_id


def test_reading_foreign_arrays_gives_the_same_state() -> None:
    model = batch_norm_net()
    layout = Layout.of_model(model)
    state, read = layout.gather(model), layout.read(ArrayRecord(model.state_dict()))
    assert all(torch.equal(getattr(state, kind), getattr(read, kind)) for kind in KINDS)


def test_our_own_record_is_read_without_a_copy_until_somebody_changes_it() -> None:
    model = nn.Linear(3, 2)
    layout = Layout.of_model(model)
    state = layout.gather(model)
    record = layout.record(state)
    assert layout.read(RecordDict({"arrays": record})["arrays"]) is state
    record["bias"] = Array(np.array([7.0, 8.0], dtype=np.float32))
    assert layout.read(record).params.tolist() == [*state.params[:6].tolist(), 7.0, 8.0]


def test_numpy_hands_out_copies() -> None:
    layout = Layout.of_model(nn.Linear(3, 2))
    state = ModelState(torch.zeros(8), torch.empty(0), torch.empty(0, dtype=torch.int64))
    layout.record(state)["bias"].numpy()[:] = 5
    assert not state.params.any()


def damaged(model: nn.Module, **changes: np.ndarray | None) -> ArrayRecord:
    arrays = ArrayRecord(model.state_dict())
    for name, value in changes.items():
        if value is None:
            del arrays[name]
        else:
            arrays[name] = Array(value)
    return arrays


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bias": None}, r"missing arrays \['bias'\]"),
        ({"extra": np.zeros(2, dtype=np.float32)}, r"unknown arrays \['extra'\]"),
        ({"bias": np.zeros(1, dtype=np.float32)}, r"array bias must have shape \[2\]; got \[1\]"),
        ({"bias": np.array(["a", "b"])}, "array bias must hold numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_named(changes: dict[str, np.ndarray | None], message: str) -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(ValueError, match=message):
        Layout.of_model(model).read(damaged(model, **changes))


class Masked(nn.Module):
    """Has a buffer that no flat vector can hold as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = batch_norm_net()
        self.register_buffer("mask", torch.tensor([True, False]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)[:, :2] * self.mask


def test_a_resident_model_trains_as_the_model_itself() -> None:
    torch.manual_seed(0)
    reference, start = Masked(), Masked()
    start.mask = torch.tensor([False, True])
    layout = Layout.of_model(reference)
    resident = ResidentModel(reference, torch.device("cpu"))
    resident.load(layout.gather(start))
    reference.load_state_dict(start.state_dict())
    x = torch.randn(6, 1, 8, 8)
    for net in (resident.module, reference):
        net.train()
        net(x).sum().backward()
        with torch.no_grad():
            for p in net.parameters():
                p -= 0.1 * p.grad
    stored, expected, base = layout.empty(), layout.gather(reference), layout.gather(start).params
    resident.store_update(base, stored.params, stored.float_buffers, stored.int_buffers)
    torch.testing.assert_close(stored.params, expected.params - base, rtol=0, atol=0)
    for kind in KINDS[1:]:
        torch.testing.assert_close(getattr(stored, kind), getattr(expected, kind), rtol=0, atol=0)
    assert stored.int_buffers.tolist() == [0, 1, 1]  # the mask that was loaded, one batch seen


def test_buffers_merge_as_weighted_mean_and_maximum() -> None:
    states = [ModelState(torch.zeros(1), torch.tensor([float(i), 10.0 * i]), torch.tensor([3 * i])) for i in range(3)]
    merged = merge_buffers(states, torch.tensor([1.0, 1.0, 2.0]))  # (0 + 1 + 2*2) / 4
    assert merged["float_buffers"].tolist() == [1.25, 12.5]
    assert merged["int_buffers"].tolist() == [6]
    assert merge_buffers(states, torch.zeros(3))["float_buffers"].tolist() == [1.0, 10.0]


def test_mixed_parameter_dtypes_are_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())
    with pytest.raises(ValueError, match="one dtype"):
        Layout.of_model(model)
