"""Local training: what happens to the parameters between receiving and sending a model. One file an algorithm."""

from fedagg.clients.local.base import LocalTraining, Memory, Sent
from fedagg.clients.local.ditto import Ditto
from fedagg.clients.local.edge_popup import EdgePopup
from fedagg.clients.local.fedbn import FedBN
from fedagg.clients.local.feddyn import FedDyn
from fedagg.clients.local.fedprox import FedProx
from fedagg.clients.local.moon import Moon
from fedagg.clients.local.scaffold import Scaffold
from fedagg.clients.local.sgd import LocalSGD
from fedagg.clients.local.worker_momentum import WorkerMomentum

__all__ = [
    "Ditto",
    "EdgePopup",
    "FedBN",
    "FedDyn",
    "FedProx",
    "LocalSGD",
    "LocalTraining",
    "Memory",
    "Moon",
    "Scaffold",
    "Sent",
    "WorkerMomentum",
]
