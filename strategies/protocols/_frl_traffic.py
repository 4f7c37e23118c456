"""What one client and one round cost on the wire, by method: Federated Rank Learning beside what it is compared with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import index
from typing import NamedTuple

from fedagg.errors import ConfigError
from fedagg.rankings import ranking_bits


class Traffic(NamedTuple):
    """Bits to and from one client in one round.

    Args:
        up: by the method's formula.
        down: by the method's formula.
        sent: of each of the two as this engine sends it, which packs no bits; None where it has no such method.
    """

    up: int
    down: int
    sent: int | None


def traffic(layer_sizes: Sequence[int], share: float = 0.1) -> dict[str, Traffic]:
    """Return the traffic of each method for a model of these layers, d parameters in all.

        FedAvg      32 d up and down
        FRL         sum of n_l ceil(log2 n_l), up and down
        SignSGD     d up and down: the signs of the updates, and of their sum (majority vote)
        top-k       k values of 32 bits, each with an id of ceil(log2 d), up; 32 d down

    Args:
        layer_sizes: parameters of each layer, n_l.
        share: k / d, in [0, 1].

    Raises:
        ConfigError: another ``share``.

    Example:
        >>> costs = traffic([288, 18_432, 1_605_632, 1_280])
        >>> f"{costs['FRL'].up / costs['FedAvg'].up - 1:.1%}"
        '-34.6%'
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"share, the part of the parameters that top-k sends, must lie in [0, 1]; got {share}")
    d, bits = sum(map(index, layer_sizes)), ranking_bits(layer_sizes)
    k = math.floor(share * d + 0.5)
    return {
        "FedAvg": Traffic(32 * d, 32 * d, 32 * d),
        "FRL": Traffic(bits, bits, 32 * d),
        "SignSGD": Traffic(d, d, 32 * d),
        "top-k": Traffic(k * (32 + (d - 1).bit_length()), 32 * d, None),
    }
