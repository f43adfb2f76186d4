"""Gradient confusion (Sankararaman et al., 2020, arXiv:1904.06963) of the last layer: do parts of a batch pull the same way?"""

import numpy as np
from jaxtyping import Float

from clprune.families import indicator


@indicator("mean_cosine")
def gradient_confusion(mean_cosine: Float[np.ndarray, "S"]) -> float:
    """Mean cosine between the gradients of two quarters of a batch, at the same weights, in [-1, 1]; low means confused.

    >>> gradient_confusion(np.array([1.0, 0.0]))
    0.5
    """
    return float(mean_cosine.mean())
