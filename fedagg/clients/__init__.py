"""What a client does: receive a model, train it on its own data, send it back.

A client is a real Flower ``ClientApp`` (``client_app(clients)``). A Grid of ours that is handed ``Clients`` asks for a whole
cohort at once instead of message by message; one client at a time, the result is the same to the bit.

    local/       the definition of local training, one file an algorithm (``LocalSGD``, ``Scaffold``, ...)
    dropout.py   masks that depend on the client alone
    network.py   the model as a function of its parameters
    executor.py  who runs it: one client at a time
    batched.py   or many at once
    trial.py     whether these can be trained many at once
    choice.py    which of the two, on which device
    memory.py    what clients remember between rounds
    data.py      where examples come from
    training.py  one round of a cohort's training: who starts from what, and what each sends and remembers
    clients.py   ``Clients``: population + model + local training, for a whole cohort
    trusted.py   ``TrustedExamples``: the server as a client of its own
    app.py       the same clients as a Flower ``ClientApp``, one message at a time
"""

from fedagg.clients.app import client_app
from fedagg.clients.clients import Clients, Evaluation
from fedagg.clients.local import Ditto, EdgePopup, FedBN, FedDyn, FedProx, LocalSGD, Moon, Scaffold, WorkerMomentum
from fedagg.clients.training import Training
from fedagg.clients.trusted import TrustedExamples

__all__ = [
    "Clients",
    "Ditto",
    "EdgePopup",
    "Evaluation",
    "FedBN",
    "FedDyn",
    "FedProx",
    "LocalSGD",
    "Moon",
    "Scaffold",
    "Training",
    "TrustedExamples",
    "WorkerMomentum",
    "client_app",
]
