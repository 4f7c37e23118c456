"""Where clients run, and what the world does to them. All of them are Flower Grids, so any Flower strategy can use them.

LocalGrid     clients run in this process
RayGrid       clients run in processes of Ray's; in fedagg.grid.ray, because importing Ray takes a while
Adversary     a Grid around a Grid: Byzantine clients' replies are replaced
Availability  a Grid around a Grid: decides which clients can be reached in a round
Faults        a Grid around a Grid: replies get lost, come late, damaged or twice
Sanitize      a Grid around a Grid: replies that do not fit never reach the strategy

Bernoulli, Markov, Cyclic and Trace are patterns for ``Availability``; ClassBiased gives the first three their rates.
"""

from fedagg.grid.adversary import Adversary
from fedagg.grid.availability import Availability
from fedagg.grid.base import SimulationGrid, WorldGrid
from fedagg.grid.faults import Faults
from fedagg.grid.local import LocalGrid
from fedagg.grid.participation import Bernoulli, ClassBiased, Cyclic, Markov, Participation
from fedagg.grid.sanitize import Sanitize
from fedagg.grid.trace import Trace

__all__ = [
    "Adversary",
    "Availability",
    "Bernoulli",
    "ClassBiased",
    "Cyclic",
    "Faults",
    "LocalGrid",
    "Markov",
    "Participation",
    "Sanitize",
    "SimulationGrid",
    "Trace",
    "WorldGrid",
]
