"""Stability of the ranking: rank correlation of the samples' margins with those of the epoch before."""

import numpy as np
from jaxtyping import Float

from clprune.families import indicator
from clprune.ranking import mean_ranks


@indicator("margin_before", "margin_after", decides=True)
def ranking_stability(margin_before: Float[np.ndarray, "n"], margin_after: Float[np.ndarray, "n"]) -> float:
    """Spearman's rho, in [-1, 1]; ties share their mean rank. NaN below three samples, and where all of one epoch are equal.

    >>> round(ranking_stability(np.array([1.0, 2, 3]), np.array([2.0, 4, 9])), 6)
    1.0
    """
    if len(margin_before) < 3:
        return float("nan")
    before, after = mean_ranks(margin_before), mean_ranks(margin_after)
    return float(np.corrcoef(before, after)[0, 1]) if np.ptp(before) and np.ptp(after) else float("nan")
