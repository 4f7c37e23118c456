"""Servers that remember the last update of every client: FedVARP and MIFA, as strategies and as functions of the memory."""

from strategies.protocols.memory._steps import fedvarp_step, mifa_step
from strategies.protocols.memory.fedvarp import FedVARP
from strategies.protocols.memory.mifa import MIFA

__all__ = ["MIFA", "FedVARP", "fedvarp_step", "mifa_step"]
