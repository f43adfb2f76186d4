"""Forgetting events (Toneva et al., 2019, arXiv:1812.05159): the share of samples that were right an epoch ago and are wrong now."""

import numpy as np
from jaxtyping import Float

from clprune.families import indicator


@indicator("correct_before", "correct_after")
def forgetting_rate(correct_before: Float[np.ndarray, "n"], correct_after: Float[np.ndarray, "n"]) -> float:
    """In [0, 1], of all samples seen in both epochs; NaN where there are none.

    >>> forgetting_rate(np.array([1.0, 1, 0, 0]), np.array([1.0, 0, 1, 0]))
    0.25
    """
    return float((correct_before * (1 - correct_after)).mean()) if len(correct_before) else float("nan")
