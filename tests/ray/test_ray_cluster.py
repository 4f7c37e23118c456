"""A cluster of two nodes on this machine, one of which goes away in the middle of a run."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import time

import torch
from ray.cluster_utils import Cluster

from fedagg import Clients, LocalGrid, LocalSGD, Population, Strategy, run
from fedagg.data import IID, digits
from fedagg.grid.ray import RayGrid, ray
from fedagg.loop import Callback
from fedagg.models import build, logistic_regression

torch.set_num_threads(1)
population = Population.split(digits(), IID(), num_clients=6, seed=0)
model = build(lambda: logistic_regression((1, 8, 8), 10), seed=0)
clients = Clients(population, model, LocalSGD(lr=0.1))
expected = run(LocalGrid(clients), Strategy(), model, rounds=5)

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
other = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()


class TakeANodeAway(Callback):
    def round_finished(self, done):
        if done.round == 2:
            assert len(grid._staff) == 2  # each node has room for one
            cluster.remove_node(other, allow_graceful=False)


grid = RayGrid(clients, workers=2, address=cluster.address)
result = run(grid, Strategy(), model, rounds=5, callbacks=[TakeANodeAway()])
assert result.rows == expected.rows
assert all(array.data == expected.arrays[name].data for name, array in result.arrays.items())
assert len(grid._staff) == 1, grid._staff

cluster.add_node(num_cpus=1)
deadline = time.monotonic() + 60
while len(grid._hire()) < 2 and time.monotonic() < deadline:
    time.sleep(0.2)
assert len(grid._staff) == 2, "no worker was started on the new node"
assert run(grid, Strategy(), model, rounds=5).rows == expected.rows
grid.close()
assert ray.is_initialized()  # the cluster was not ours to stop
ray.shutdown()
cluster.shutdown()
print("the same bits from", len(result.rows), "rows")
"""


@pytest.mark.timeout(300)
def test_a_lost_node_changes_nothing() -> None:
    """In a process of its own, since the tests' own Ray is another cluster."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same bits" in done.stdout
    assert "a Ray worker was lost" in done.stderr


def test_no_cluster_to_join() -> None:
    """Ray looks for its own processes; another test may be running some."""
    code = """
import ray._private.services as services
services._find_address_from_flag = lambda flag: set()
from fedagg.errors import ConfigError
from fedagg.grid.ray import RayGrid
from flwr.clientapp import ClientApp
try:
    RayGrid(ClientApp(), 2, address="auto").open()
except ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert "engine.address=auto: no Ray cluster can be joined" in done.stdout, done.stderr
