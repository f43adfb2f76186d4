"""Retention of predictions: of the samples that were right an epoch ago, the share that is right now."""

import numpy as np
from jaxtyping import Float

from clprune.families import indicator


@indicator("correct_before", "correct_after", decides=True)
def retention(correct_before: Float[np.ndarray, "n"], correct_after: Float[np.ndarray, "n"]) -> float:
    """In [0, 1]; NaN where nothing was right before.

    >>> retention(np.array([1.0, 1, 0, 0]), np.array([1.0, 0, 1, 0]))
    0.5
    """
    right = correct_before.sum()
    return float((correct_before * correct_after).sum() / right) if right else float("nan")
