"""Partitioners of flwr-datasets, where it is installed, and what is said where it is not."""

import importlib.util
import re

import numpy as np
import pytest

from fedagg.data import Population
from fedagg.data.partitions import Dirichlet, FlwrPartitioner
from fedagg.errors import ConfigError
from tests.data.test_partitions import BALANCED, DIGITS, UNEVEN, counts_of

THERE = importlib.util.find_spec("flwr_datasets") is not None
needs_it = pytest.mark.skipif(not THERE, reason="flwr-datasets is not installed: pip install flwr-datasets")
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("UserWarning", "FutureWarning")]  # its own


def flwr(name, **arguments):
    return FlwrPartitioner({"_target_": f"flwr_datasets.partitioner.{name}", **arguments})


@needs_it
@pytest.mark.parametrize("labels", [DIGITS, UNEVEN], ids=["digits", "uneven"])
@pytest.mark.parametrize(("clients", "alpha", "min_size"), [(10, 0.5, 10), (20, 0.1, 0), (30, 5.0, 1), (7, 0.3, 20)])
@pytest.mark.parametrize("seed", [0, 42])
def test_our_dirichlet_is_theirs(labels, clients, alpha, min_size, seed):
    theirs = flwr("DirichletPartitioner", alpha=alpha, min_partition_size=min_size, self_balancing=False)
    for one, other in zip(Dirichlet(alpha, min_size)(labels, clients, seed), theirs(labels, clients, seed), strict=True):
        np.testing.assert_array_equal(one, other)


@needs_it
@pytest.mark.parametrize(
    "partition",
    [
        flwr("IidPartitioner"),
        flwr("LinearPartitioner"),
        flwr("DirichletPartitioner", alpha=0.5),
        flwr("PathologicalPartitioner", num_classes_per_partition=2, class_assignment_mode="deterministic"),
        flwr("SizePartitioner", partition_sizes=[1000, 300, 200, 100, 80, 50, 40, 20, 6, 1]),
        flwr("NaturalIdPartitioner"),
    ],
    ids=lambda partition: partition.partitioner["_target_"].rpartition(".")[2],
)
def test_rows_are_shared_out(partition):
    parts = partition(DIGITS, 10, 3)
    assert all(part.dtype == np.int64 for part in parts)
    assert sorted(np.concatenate(parts).tolist()) == list(range(1797))
    assert [part.tobytes() for part in parts] == [part.tobytes() for part in partition(DIGITS, 10, 3)]
    assert eval(repr(partition)) == partition


@needs_it
def test_arguments_may_be_functions_and_arrays():
    """Sizes as e^0 to e^4; and two labels a client, each label with two clients, ten rows each beforehand."""
    sizes = flwr("IdToSizeFncPartitioner", partition_id_to_size_fn={"_target_": "numpy.exp", "_partial_": True})
    assert [len(part) for part in sizes(np.repeat(np.arange(10), 50), 5, 0)] == [5, 15, 43, 117, 320]
    shares = {"num_unique_labels_per_partition": 2, "preassigned_num_samples_per_label": 10}
    drawn = flwr("DistributionPartitioner", distribution_array=[[1.0, 1.0]] * 10, **shares)
    assert [len(part) for part in drawn(BALANCED, 10, 0)] == [len(BALANCED) // 10] * 10


@needs_it
def test_it_gets_the_seed_of_the_run():
    partition = flwr("PathologicalPartitioner", num_classes_per_partition=2)
    first, other = (counts_of(BALANCED, partition(BALANCED, 10, seed)) for seed in (0, 1))
    assert ((first > 0).sum(axis=1) == 2).all()
    assert (first != other).any()
    fixed = flwr("PathologicalPartitioner", num_classes_per_partition=2, seed=5)
    assert (counts_of(BALANCED, fixed(BALANCED, 10, 0)) == counts_of(BALANCED, fixed(BALANCED, 10, 1))).all()


@needs_it
def test_empty_clients_come_with_their_own_setting(toy):
    allowed = flwr("DirichletPartitioner", alpha=0.01, min_partition_size=0)
    assert Population.split(toy, allowed, 30).summary()["empty_clients"] > 0


@needs_it
@pytest.mark.parametrize(
    ("partition", "says"),
    [
        (flwr("DirichletPartitioner"), "missing 1 required positional argument: 'alpha'"),
        (flwr("DirichletPartitioner", alpa=0.5), "unexpected keyword argument 'alpa'"),
        (flwr("DirichletPartitioner", alpha=-1), "alpha"),
        (flwr("DirichletPartitoner", alpha=1), "has no partitioner DirichletPartitoner (did you mean DirichletPartitioner?)"),
        (flwr("IidPartitioner", num_partitions=7), "makes 7 clients; population is 10"),
        (flwr("VerticalEvenPartitioner"), "divides columns"),
        (flwr("VerticalSizePartitioner", partition_sizes=[1, 1]), "divides columns"),
        (flwr("PathologicalPartitioner", num_classes_per_partition=12), "12"),
    ],
)
def test_what_they_refuse_is_an_error_of_the_config(partition, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        partition(DIGITS, 10, 0)


@pytest.mark.skipif(THERE, reason="flwr-datasets is installed")
def test_without_the_package_the_error_says_how_to_get_it():
    with pytest.raises(ConfigError, match=r"cannot be imported: No module named 'flwr_datasets'.*pip install flwr-datasets"):
        flwr("IidPartitioner")(DIGITS, 10, 0)


@pytest.mark.parametrize("partitioner", [None, {}, {"alpha": 1}, "IidPartitioner"])
def test_a_partitioner_has_a_name(partitioner):
    with pytest.raises(ConfigError, match=re.escape("{_target_:flwr_datasets.partitioner.IidPartitioner}")):
        FlwrPartitioner(partitioner)


def test_more_clients_than_samples_are_refused_before_anything_is_imported():
    with pytest.raises(ConfigError, match="13 clients, 12 samples"):
        flwr("IidPartitioner")(np.arange(12), 13, 0)
