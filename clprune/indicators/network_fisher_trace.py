"""Trace of the whole network's Fisher information (Achille et al., 2019, arXiv:1711.08856), by request: it takes backward passes of its own."""

import numpy as np
from jaxtyping import Float

from clprune.families import indicator


@indicator("network_fisher")
def network_fisher_trace(network_fisher: Float[np.ndarray, "S"]) -> float:
    """Mean of the estimates taken since the last point (`signals.network_fisher`); >= 0.

    >>> network_fisher_trace(np.array([1.0, 3.0]))
    2.0
    """
    return float(network_fisher.mean())
