"""Label flip: an attack on the data."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedagg.attacks import LabelFlip

from . import reference

X = torch.arange(5 * 4.0).view(5, 1, 2, 2)


@pytest.mark.parametrize(
    ("attack", "labels", "flipped"),
    [
        (LabelFlip(), [0, 1, 4, 5, 9], [9, 8, 5, 4, 0]),
        (LabelFlip(num_classes=3), [0, 1, 2, 2, 0], [2, 1, 0, 0, 2]),
        (LabelFlip(mapping="next"), [0, 1, 4, 8, 9], [1, 2, 5, 9, 0]),
        (LabelFlip(num_classes=2, mapping="next"), [0, 1, 1, 0, 0], [1, 0, 0, 1, 1]),
        (LabelFlip(mapping=(3, 8)), [3, 8, 0, 3, 9], [8, 8, 0, 8, 9]),
        (LabelFlip(mapping=[8, 3]), [3, 8, 0, 3, 9], [3, 3, 0, 3, 9]),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_mapping_by_hand(attack, labels, flipped, dtype):
    y = torch.tensor(labels, dtype=dtype)
    x2, y2 = attack.poison(X, y)
    assert y2.tolist() == flipped
    assert y2.dtype == dtype
    assert torch.equal(x2, X)
    assert y.tolist() == labels


def test_every_class_that_a_byte_can_name():
    y = torch.arange(256).to(torch.uint8)
    assert LabelFlip(num_classes=256, mapping="next").poison(torch.zeros(256), y)[1].tolist() == [*range(1, 256), 0]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.data())
def test_against_the_reference(data):
    c = data.draw(st.integers(2, 12))
    labels = data.draw(st.lists(st.integers(0, c - 1), max_size=20))
    pairs = st.permutations(range(c)).map(lambda order: tuple(order[:2]))
    mapping = data.draw(st.sampled_from(["reverse", "next"]) | pairs)
    _, y = LabelFlip(num_classes=c, mapping=mapping).poison(
        torch.zeros(len(labels), 2), torch.tensor(labels, dtype=torch.int64)
    )
    assert y.tolist() == reference.flip_labels(labels, c, mapping)


def test_new_tensors():
    x, y = X.clone(), torch.tensor([0, 1, 2, 3, 4])
    x2, y2 = LabelFlip().poison(x, y)
    x2.fill_(-1.0)
    y2.fill_(-1)
    assert torch.equal(x, X)
    assert y.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("labels", [[0, 3], [-1, 2]])
def test_labels_out_of_range(labels):
    with pytest.raises(ValueError, match=rf"labels in 0 .. 2; got labels from {min(labels)} to {max(labels)}"):
        LabelFlip(num_classes=3).poison(torch.zeros(2, 4), torch.tensor(labels))


def test_labels_that_are_no_integers():
    with pytest.raises(ValueError, match=r"integer labels; got torch\.float32"):
        LabelFlip(num_classes=3).poison(torch.zeros(2, 4), torch.tensor([0.5, 1.0]))


def test_a_list_from_a_config_is_a_pair():
    assert LabelFlip(mapping=[1, 2]) == LabelFlip(mapping=(1, 2))
    assert repr(LabelFlip(mapping=[1, 2])) == "LabelFlip(num_classes=10, mapping=(1, 2))"


def test_the_call_returns_what_the_clients_learnt():
    own = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(LabelFlip()(torch.zeros(4, 6), f=2, own=own), own)
