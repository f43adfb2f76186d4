"""Trace of the last layer's Fisher information (Achille et al., 2019, arXiv:1711.08856): how strongly the outputs depend on the weights."""

import numpy as np
from jaxtyping import Float

from clprune.families import indicator


@indicator("fisher_trace")
def fisher_trace(fisher_trace: Float[np.ndarray, "S"]) -> float:
    """Mean over batches of tr F = mean_i (1 - |p_i|^2)(|h_i|^2 + 1), exact for the last linear layer; >= 0.

    >>> fisher_trace(np.array([1.0, 3.0]))
    2.0
    """
    return float(fisher_trace.mean())
