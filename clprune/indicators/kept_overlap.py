"""Stability of the choice: would the harder half of the samples be the same as an epoch ago?"""

import numpy as np
from jaxtyping import Float

from clprune.families import indicator


@indicator("doubt_before", "doubt_after")
def kept_overlap(doubt_before: Float[np.ndarray, "N"], doubt_after: Float[np.ndarray, "N"]) -> float:
    """Share of the harder half, by mean of 1 - p(label) over the epochs so far, that is the same in both, in [0, 1]; ties to the smaller position.

    >>> kept_overlap(np.array([0.1, 0.9, 0.8, 0.2]), np.array([0.9, 0.8, 0.1, 0.2]))
    0.5
    """
    n_half = max(1, len(doubt_after) // 2)
    before, after = (np.argsort(-doubt, kind="stable")[:n_half] for doubt in (doubt_before, doubt_after))
    return len(np.intersect1d(before, after)) / n_half
