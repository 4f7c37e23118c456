"""One row or more for every published method: arguments that make it, and the promises it has a reason not to make.

A method that is named in ``strategies.__all__`` or ``fedagg.attacks.__all__`` and has no row here fails a test. An exemption
that is no longer needed fails one too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import fedagg.attacks
import strategies

NOT_DRAWN = {"draws": "this setting draws nothing"}
SCALES = {"sends_own": "it scales or masks what its clients learnt"}
SIGNS = {"equal_rows": "it gives signs, not values"}


@dataclass(frozen=True)
class Made:
    """An object by the name of its class, made when it is asked for: a missing class fails one test and not all."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    exempt: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{key}={value}" for key, value in self.arguments.items())])

    @property
    def plugin(self) -> Any:
        package = strategies if self.name in strategies.__all__ else fedagg.attacks
        made = {key: value.plugin if isinstance(value, Made) else value for key, value in self.arguments.items()}
        return getattr(package, self.name)(**made)


def row(name: str, exempt: dict[str, str] | None = None, /, **arguments: Any) -> Made:
    return Made(name, arguments, exempt or {})


MEDIAN = row("Median")
AS_ITS_RULE = {"modest": "whether it can be translated and scaled depends on the rule inside"}
ONE_LONG = {"equal_rows": "rows are brought to length 1"}
CLOSE_COSINES = {
    "common_part": "cosines of rows that point almost the same way differ by less than float32 can tell",
}

PUBLISHED = [
    # rules: averages, by column
    row("Mean"),
    row("Median"),
    row("Median", even="lower"),
    row("TrimmedMean", f=2),
    row("TrimmedMean", {"modest": "with f = 0 it is the mean, which can be rotated"}, f=0),
    row("MeaMed", f=2),
    row("Phocas", f=2),
    # by distance
    row("Krum", f=2),
    row("Krum", f=2, neighbours="byzfl"),
    row("Krum", f=2, power=1),
    row("Krum", f=2, power=4),
    row("MultiKrum", f=2),
    row("MultiKrum", f=2, m=1),
    row("MultiKrum", f=2, m=3, neighbours="byzfl", power=1),
    row("Bulyan", f=1),
    row("Bulyan", {"modest": "from f = 3 on no two rows tie, and the order does not matter"}, f=3),
    row("GeometricMedian"),
    row("GeometricMedian", {"translation": "it starts at the origin and stops soon"}, nu=0.1, T=3, tol=0.0, start="zero"),
    row("Medoid"),
    row("MDA", f=2),
    row("SMEA", f=2),
    row("CAF", f=1),
    row("CGE", f=2),
    row("MoNNA", {"bounded": "it believes the row `reference`, which must be honest"}, f=2),
    # clipping, signs
    row("CenteredClip"),
    row("CenteredClip", {"equal_rows": "it moves by at most tau a pass"}, tau=1.0, L=3),
    row("SignMajority", SIGNS),
    row("RobustLearningRate", theta=3),
    # reputation, trust, clusters
    row("FLTrust", {"equal_rows": "rows get the length of the server's own update"}),
    row("FoolsGold", {"equal_rows": "clients that send the same are sybils to it", **CLOSE_COSINES}),
    row("FoolsGold", {"equal_rows": "clients that send the same are sybils to it", **CLOSE_COSINES}, memory=False),
    row(
        "FLAME",
        {
            "equal_rows": "it adds noise",
            "client_weights": "the call adds noise to the weighted rows",
            "orthogonal": "noise does not turn with the rows",
            **CLOSE_COSINES,
        },
    ),
    row("FLAME", {**NOT_DRAWN, **CLOSE_COSINES}, lam=0.0),
    row("DnC", {"draws": "with b >= d it looks at all coordinates"}, f=2),
    row(
        "DnC",
        {
            "bounded": "a row far out along coordinates that were not drawn is not seen",
            "orthogonal": "it draws coordinates, which a rotation mixes",
        },
        f=2,
        b=2,
    ),
    row("SignGuard"),
    row("Zeno", f=2),
    # splitting, subspaces
    row("GAS", {"draws": "with p >= d every coordinate is its own group", **AS_ITS_RULE}, f=2, rule=MEDIAN),
    row("GAS", AS_ITS_RULE, f=2, rule=MEDIAN, p=2),
    row("FlagAggregator", {**ONE_LONG, **NOT_DRAWN}),
    row("FlagAggregator", {**ONE_LONG, "orthogonal": "the start does not turn with the rows"}, start="random"),
    row("UPGrad"),
    # pre-aggregators, weightings
    row("NNM", f=2),
    row("Bucketing"),
    row("StaticClip", {"equal_rows_stay": "it shortens what is longer than c"}, c=1.0),
    row("ARC", f=2),
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
    row("Mimic", {"draws": "without a warm-up it draws nothing"}),
    row("Mimic", warmup=2),
    row("FangTrimmedMean"),
    row("FangKrum"),
    row("OptimalALIE"),
    row("OptimalALIE", aggregator=MEDIAN, search="byzfl"),
    row("OptimalIPM"),
    row("OptimalIPM", aggregator=MEDIAN),
    row("ROP"),
    row("FreeRider", {"draws": "with std = 0 it adds no noise"}),
    row("FreeRider", mode="last", std=0.1),
    row("Backdoor"),
    row("DBA"),
    row("DBA", SCALES, gamma=3.0),
    row("ModelReplacement"),
    row("ModelReplacement", gamma=5.0),
    row("ModelReplacement", SCALES, gamma=5.0, backdoor=row("Backdoor")),
    row("RankReversal"),
    row("RankReversal", pool=2),
    row("Ranked"),
    row("Ranked", attack=row("GaussianNoise")),
    row("Neurotoxin"),
    row("Neurotoxin", SCALES, backdoor=row("Backdoor")),
]
