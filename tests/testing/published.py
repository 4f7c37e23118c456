"""One row or more for every published method: arguments that make it, and the promises that it does not make with them.

A method that is named in ``strategies.__all__`` or ``fedagg.attacks.__all__`` and has no row here fails a test. So does a row
that does not name just what is exempted with it: what a class says of itself holds at some of its settings only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import fedagg.attacks
import strategies


@dataclass(frozen=True)
class Made:
    """An object by the name of its class, made when it is asked for: a missing class fails one test and not all."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    exempt: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{key}={value}" for key, value in self.arguments.items())])

    @property
    def plugin(self) -> Any:
        package = strategies if self.name in strategies.__all__ else fedagg.attacks
        made = {key: value.plugin if isinstance(value, Made) else value for key, value in self.arguments.items()}
        return getattr(package, self.name)(**made)


def row(name: str, *exempt: str, **arguments: Any) -> Made:
    return Made(name, arguments, frozenset(exempt))


MEDIAN = row("Median")
BY_F = ("TrimmedMean", "MeaMed", "Phocas", "Krum", "MultiKrum", "Bulyan", "MDA", "SMEA", "CAF", "CGE", "Zeno", "NNM", "ARC")

PUBLISHED = [
    *(row(name, f=f) for name in BY_F for f in (0, 1, 2)),
    # rules: averages, by column
    row("Mean"),
    row("Median"),
    row("Median", even="lower"),
    # by distance
    row("Krum", f=2, neighbours="byzfl"),
    row("Krum", f=2, power=1),
    row("Krum", f=2, power=4),
    row("MultiKrum", f=2, m=1),
    row("MultiKrum", f=2, m=3, neighbours="byzfl", power=1),
    row("Bulyan", "modest", f=3),
    row("GeometricMedian"),
    row("GeometricMedian", "translation", nu=0.1, T=3, tol=0.0, start="zero"),
    row("Medoid"),
    row("MoNNA", f=0),
    *(row("MoNNA", "bounded", f=f) for f in (1, 2)),
    # clipping, signs
    row("CenteredClip"),
    row("CenteredClip", "equal_rows", tau=1.0, L=3),
    row("SignMajority", "equal_rows"),
    row("RobustLearningRate", theta=3),
    # reputation, trust, clusters
    row("FLTrust", "equal_rows"),
    row("FoolsGold", "equal_rows", "common_part"),
    row("FoolsGold", "equal_rows", "common_part", memory=False),
    row("FLAME", "equal_rows", "client_weights", "orthogonal", "common_part"),
    row("FLAME", "draws", "common_part", lam=0.0),
    *(row("DnC", "draws", f=f) for f in (0, 1, 2)),
    row("DnC", "bounded", "orthogonal", f=2, b=2),
    row("SignGuard"),
    # splitting, subspaces
    row("GAS", "draws", f=0, rule=MEDIAN),
    *(row("GAS", "draws", "modest", f=f, rule=MEDIAN) for f in (1, 2)),
    row("GAS", "modest", f=2, rule=MEDIAN, p=2),
    row("FlagAggregator", "equal_rows", "draws"),
    row("FlagAggregator", "equal_rows", "orthogonal", start="random"),
    row("UPGrad"),
    # pre-aggregators, weightings
    row("Bucketing"),
    row("StaticClip", "equal_rows_stay", c=1.0),
    row("ByExamples"),
    row("ByExamples", cap=5),
    row("Uniform"),
    row("AverageAll"),
    row("KnownParticipation"),
    row("KnownParticipation", probabilities=[0.5] * 200),
    row("FedAU"),
    row("FedAU", cutoff=None),
    row("FedDisco"),
    row("FedDisco", metric="l2", target=(1.0, 2.0, 3.0), normalize=True),
    row("FedNova"),
    row("FedNova", base=row("FedDisco")),
    row("FedNova", base=row("FedAU")),
    row("QFedAvg", q=2, lr=0.1),
    row("QFedAvg", q=1, lr=0.1, loss_cap=1.0, weight_cap=0.5),
    row("TERM", t=1.0),
    row("TERM", t=-1.0, base=row("FedNova"), weight_cap=0.5),
    # strategies
    row("FedDyn"),
    row("FedExP"),
    row("FedLAW"),
    row("FedVARP"),
    row("MIFA"),
    row("MIFA", initialise="wait"),
    row("FRL"),
    row("FRL", sparsity=0.3, mask_by="signed"),
    row("SCAFFOLD"),
    # attacks
    row("SignFlip"),
    row("SignFlip", of="own"),
    row("GaussianNoise"),
    row("GaussianNoise", std=0.5, add=True),
    row("LabelFlip"),
    row("LabelFlip", num_classes=3),
    row("LabelFlip", mapping=(3, 5)),
    row("ALIE"),
    row("ALIE", z=1.5, sign=-1, formula="n", ddof=0),
    row("IPM"),
    row("NaNAttack"),
    row("NaNAttack", kind="inf"),
    row("NaNAttack", kind="huge"),
    row("MinMax"),
    row("MinMax", dev="unit", search="official"),
    row("MinSum"),
    row("MinSum", dev="sign", bound="min"),
    row("Mimic", "draws"),
    row("Mimic", warmup=2),
    row("FangTrimmedMean"),
    row("FangKrum"),
    row("OptimalALIE"),
    row("OptimalALIE", aggregator=MEDIAN, search="byzfl"),
    row("OptimalIPM"),
    row("OptimalIPM", aggregator=MEDIAN),
    row("ROP"),
    row("FreeRider", "draws"),
    row("FreeRider", mode="last", std=0.1),
    row("Backdoor"),
    row("DBA"),
    row("DBA", "sends_own", gamma=3.0),
    row("ModelReplacement"),
    row("ModelReplacement", gamma=5.0),
    row("ModelReplacement", "sends_own", gamma=5.0, backdoor=row("Backdoor")),
    row("RankReversal"),
    row("RankReversal", pool=2),
    row("Ranked"),
    row("Ranked", attack=row("GaussianNoise")),
    row("Neurotoxin"),
    row("Neurotoxin", "sends_own", backdoor=row("Backdoor")),
]
