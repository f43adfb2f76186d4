"""Learning epoch (Toneva et al., 2019, arXiv:1812.05159): when the sample is right for the first time."""

import numpy as np
from jaxtyping import Float

from clprune.families import score


@score("correct", high_means="hard")
def first_learned(correct: Float[np.ndarray, "E N"]) -> Float[np.ndarray, "N"]:
    """First epoch (0-based) in which the sample was seen and right, in 0..E; E if it never was. What happens later has no influence.

    >>> first_learned(np.array([[1.0, 0, 0], [0.0, 1, 0]]))
    array([0., 1., 2.])
    """
    right = correct == 1
    return np.where(right.any(axis=0), right.argmax(axis=0), len(correct)).astype(np.float64)
