"""Attacks: what Byzantine clients send instead of an honest update. The mirror of the rules, one file per attack.

An attack maps what it may see to what it sends, ``attack(honest [h, d], f) -> [f, d]``, with h honest clients, f Byzantine
ones and d parameters. Updates are deltas, so the honest direction is their mean and "against" is its negative.

    >>> import torch
    >>> from fedagg.attacks import ALIE, IPM, SignFlip
    >>> honest = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.5, 1.5], [2.0, 2.0]])
    >>> SignFlip()(honest, f=1)
    tensor([[-1.6250, -1.6250]])
    >>> IPM(epsilon=0.4)(honest, f=2)
    tensor([[-0.6500, -0.6500],
            [-0.6500, -0.6500]])

========================================  ==========================================================
from statistics of honest updates         ALIE, IPM, MinMax, MinSum, SignFlip, FangTrimmedMean, Mimic
from the rule as well                     FangKrum, OptimalALIE, OptimalIPM
from earlier rounds                       FreeRider, Neurotoxin, ROP
from the client's own update, or nothing  GaussianNoise, ModelReplacement, NaNAttack
on the data, before the client trains     Backdoor, DBA, LabelFlip
on rankings, which FRL's clients send      RankReversal, Ranked (around an attack on updates)
========================================  ==========================================================

``knowledge`` says how much of the round an attack sees, and belongs beside every number it produces:

    >>> ALIE().knowledge, SignFlip(of="own").knowledge
    ('honest', 'own')

Further context goes by keyword (``own``, ``last_delta``, ``params``, ``round``, ``client_ids``); every attack takes all of it
and uses what it needs. An attack on the data has ``poison(x, y)`` as well, and sends what its client learnt from that data:

    >>> from fedagg.attacks import LabelFlip
    >>> LabelFlip(num_classes=3, mapping="next").poison(torch.zeros(3, 5), torch.tensor([0, 1, 2]))[1]
    tensor([1, 2, 0])

Attacks neither modify what they see nor touch a global random generator.
"""

from fedagg.attacks.alie import ALIE
from fedagg.attacks.backdoor import Backdoor
from fedagg.attacks.dba import DBA
from fedagg.attacks.fang_krum import FangKrum
from fedagg.attacks.fang_trimmed_mean import FangTrimmedMean
from fedagg.attacks.free_rider import FreeRider
from fedagg.attacks.gaussian_noise import GaussianNoise
from fedagg.attacks.ipm import IPM
from fedagg.attacks.label_flip import LabelFlip
from fedagg.attacks.mimic import Mimic
from fedagg.attacks.min_max import MinMax
from fedagg.attacks.min_sum import MinSum
from fedagg.attacks.model_replacement import ModelReplacement
from fedagg.attacks.nan_attack import NaNAttack
from fedagg.attacks.neurotoxin import Neurotoxin
from fedagg.attacks.optimal_alie import OptimalALIE
from fedagg.attacks.optimal_ipm import OptimalIPM
from fedagg.attacks.rank_reversal import RankReversal
from fedagg.attacks.ranked import Ranked
from fedagg.attacks.rop import ROP
from fedagg.attacks.sign_flip import SignFlip

__all__ = [
    "ALIE",
    "DBA",
    "IPM",
    "ROP",
    "Backdoor",
    "FangKrum",
    "FangTrimmedMean",
    "FreeRider",
    "GaussianNoise",
    "LabelFlip",
    "Mimic",
    "MinMax",
    "MinSum",
    "ModelReplacement",
    "NaNAttack",
    "Neurotoxin",
    "OptimalALIE",
    "OptimalIPM",
    "RankReversal",
    "Ranked",
    "SignFlip",
]
