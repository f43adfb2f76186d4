"""Memorization events: the share of samples that were wrong an epoch ago and are right now."""

import numpy as np
from jaxtyping import Float

from clprune.families import indicator


@indicator("correct_before", "correct_after", decides=True)
def memorization_rate(correct_before: Float[np.ndarray, "n"], correct_after: Float[np.ndarray, "n"]) -> float:
    """In [0, 1], of all samples seen in both epochs; NaN where there are none.

    >>> memorization_rate(np.array([1.0, 1, 0, 0]), np.array([1.0, 0, 1, 0]))
    0.25
    """
    return float(((1 - correct_before) * correct_after).mean()) if len(correct_before) else float("nan")
