"""Stability of the ranking: rank correlation of the samples' margins with those of the epoch before."""

import numpy as np
from jaxtyping import Float

from clprune.families import indicator


@indicator("margin_before", "margin_after", decides=True)
def ranking_stability(margin_before: Float[np.ndarray, "n"], margin_after: Float[np.ndarray, "n"]) -> float:
    """Spearman's rho, in [-1, 1]; ties get the rank of their place. NaN below three samples.

    >>> round(ranking_stability(np.array([1.0, 2, 3]), np.array([2.0, 4, 9])), 6)
    1.0
    """
    if len(margin_before) < 3:
        return float("nan")
    before, after = (np.argsort(np.argsort(margin, kind="stable")) for margin in (margin_before, margin_after))
    return float(np.corrcoef(before, after)[0, 1])
