"""Published ways of combining client updates, each a plug-in exactly like one of your own.

Symbols, everywhere: ``n`` clients in the round, ``d`` parameters, ``f`` Byzantine clients tolerated. ``updates`` [n, d] holds
one row per client: what it sent minus the parameters it received.

    rule       (updates [n, d], weights [n] | None) -> delta [d]    Mean Median TrimmedMean Krum MultiKrum
    weighting  cohort -> weights [n]                                ByExamples Uniform

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

A rule that picks clients tells which: ``client_weights(updates)`` [n], zero for a client that was left out. Only ``Mean`` uses
the weights it is given; the robust rules ignore what clients claim about themselves.

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

from strategies.rules.krum import Krum
from strategies.rules.mean import Mean
from strategies.rules.median import Median
from strategies.rules.multi_krum import MultiKrum
from strategies.rules.trimmed_mean import TrimmedMean
from strategies.weightings.by_examples import ByExamples
from strategies.weightings.uniform import Uniform

__all__ = ["ByExamples", "Krum", "Mean", "Median", "MultiKrum", "TrimmedMean", "Uniform"]
