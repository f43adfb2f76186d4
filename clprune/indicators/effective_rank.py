"""Effective rank (Roy & Vetterli, 2007) of a fixed probe's features: over how many directions they spread."""

import numpy as np
from jaxtyping import Float

from clprune.families import indicator


@indicator("probe_after")
def effective_rank(probe_after: Float[np.ndarray, "M D"]) -> float:
    """exp of the entropy of the normalised singular values of the centred features, in [1, min(M, D)]; NaN without variation.

    >>> round(effective_rank(np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])), 6)
    2.0
    """
    centred = (probe_after - probe_after.mean(axis=0)).astype(np.float64)
    values = np.sqrt(np.clip(np.linalg.eigvalsh(centred.T @ centred), 0, None))
    if values.sum() == 0:
        return float("nan")
    share = values[values > 1e-9 * values.max()] / values.sum()
    return float(np.exp(-(share * np.log(share)).sum()))
