"""Published ways of combining client updates, each a plug-in exactly like one of your own.

Symbols, everywhere: ``n`` clients in the round, ``d`` parameters, ``f`` Byzantine clients tolerated. ``updates`` [n, d] holds
one row per client: what it sent minus the parameters it received.

    rule       (updates [n, d], weights [n] | None) -> delta [d]    Mean Median TrimmedMean MeaMed Phocas
                                                                    Krum MultiKrum Bulyan Medoid GeometricMedian
                                                                    MDA SMEA CAF CGE MoNNA
                                                                    CenteredClip SignMajority RobustLearningRate FLTrust
                                                                    FoolsGold FLAME DnC SignGuard Zeno GAS FlagAggregator
                                                                    UPGrad
    pre        updates [n, d] -> rows [n', d]                       NNM Bucketing StaticClip ARC
    weighting  cohort -> weights [n]                                ByExamples Uniform FedDisco FedNova QFedAvg TERM
                                                                    FedAU AverageAll KnownParticipation
    strategy   messages -> model, more than these                   FedDyn FedExP FedLAW FedVARP FRL MIFA SCAFFOLD

Three clients agree, the fourth lies. The mean follows it, the rules below do not:

    >>> import torch
    >>> from strategies import Mean, Median, TrimmedMean
    >>> updates = torch.tensor([[1.0, 2.0], [1.1, 2.2], [0.9, 1.8], [-1e6, 1e6]])
    >>> Mean()(updates)
    tensor([-249999.2500,  250001.5000])
    >>> Median()(updates)
    tensor([0.9500, 2.1000])
    >>> TrimmedMean(f=1)(updates)
    tensor([0.9500, 2.1000])

A rule that picks clients tells which: ``client_weights(updates)`` [n], zero for a client that was left out. Few rules use the
weights they are given, ``Mean`` first of all; the others ignore what clients claim about themselves.

    >>> from strategies import Krum
    >>> Krum(f=1).client_weights(torch.cat([updates, torch.tensor([[0.0, 2.0]])]))
    tensor([1., 0., 0., 0., 0.])

A setting that cannot work raises, and says which bound it breaks:

    >>> Krum(f=1)(updates)
    Traceback (most recent call last):
        ...
    ValueError: Krum needs n >= 2f + 3 (Blanchard et al. 2017); got n=4, f=1

``repr`` of a method pastes back into Python, ``str`` is its short tag in tables: ``TrimmedMean(f=1)`` and ``TrimmedMean-1``.
"""

from strategies.pre_aggregators.arc import ARC
from strategies.pre_aggregators.bucketing import Bucketing
from strategies.pre_aggregators.nnm import NNM
from strategies.pre_aggregators.static_clip import StaticClip
from strategies.protocols.feddyn import FedDyn
from strategies.protocols.fedexp import FedExP
from strategies.protocols.fedlaw import FedLAW
from strategies.protocols.frl import FRL
from strategies.protocols.memory.fedvarp import FedVARP
from strategies.protocols.memory.mifa import MIFA
from strategies.protocols.scaffold import SCAFFOLD
from strategies.rules.bulyan import Bulyan
from strategies.rules.caf import CAF
from strategies.rules.centered_clip import CenteredClip
from strategies.rules.cge import CGE
from strategies.rules.dnc import DnC
from strategies.rules.fl_trust import FLTrust
from strategies.rules.flag_aggregator import FlagAggregator
from strategies.rules.flame import FLAME
from strategies.rules.fools_gold import FoolsGold
from strategies.rules.gas import GAS
from strategies.rules.geometric_median import GeometricMedian
from strategies.rules.krum import Krum
from strategies.rules.mda import MDA
from strategies.rules.mea_med import MeaMed
from strategies.rules.mean import Mean
from strategies.rules.median import Median
from strategies.rules.medoid import Medoid
from strategies.rules.monna import MoNNA
from strategies.rules.multi_krum import MultiKrum
from strategies.rules.phocas import Phocas
from strategies.rules.robust_learning_rate import RobustLearningRate
from strategies.rules.sign_guard import SignGuard
from strategies.rules.sign_majority import SignMajority
from strategies.rules.smea import SMEA
from strategies.rules.trimmed_mean import TrimmedMean
from strategies.rules.upgrad import UPGrad
from strategies.rules.zeno import Zeno
from strategies.weightings.average_all import AverageAll
from strategies.weightings.by_examples import ByExamples
from strategies.weightings.fedau import FedAU
from strategies.weightings.feddisco import FedDisco
from strategies.weightings.fednova import FedNova
from strategies.weightings.known_participation import KnownParticipation
from strategies.weightings.q_fedavg import QFedAvg
from strategies.weightings.term import TERM
from strategies.weightings.uniform import Uniform

__all__ = [
    "ARC",
    "CAF",
    "CGE",
    "FLAME",
    "FRL",
    "GAS",
    "MDA",
    "MIFA",
    "NNM",
    "SCAFFOLD",
    "SMEA",
    "TERM",
    "AverageAll",
    "Bucketing",
    "Bulyan",
    "ByExamples",
    "CenteredClip",
    "DnC",
    "FLTrust",
    "FedAU",
    "FedDisco",
    "FedDyn",
    "FedExP",
    "FedLAW",
    "FedNova",
    "FedVARP",
    "FlagAggregator",
    "FoolsGold",
    "GeometricMedian",
    "KnownParticipation",
    "Krum",
    "MeaMed",
    "Mean",
    "Median",
    "Medoid",
    "MoNNA",
    "MultiKrum",
    "Phocas",
    "QFedAvg",
    "RobustLearningRate",
    "SignGuard",
    "SignMajority",
    "StaticClip",
    "TrimmedMean",
    "UPGrad",
    "Uniform",
    "Zeno",
]
