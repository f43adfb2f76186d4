"""Worst gradient confusion (Sankararaman et al., 2020, arXiv:1904.06963) of the last layer: the least cosine within a batch."""

import numpy as np
from jaxtyping import Float

from clprune.families import indicator


@indicator("min_cosine")
def worst_gradient_confusion(min_cosine: Float[np.ndarray, "S"]) -> float:
    """Least cosine between the gradients of two quarters of a batch, at the same weights, averaged over the window; in [-1, 1].

    >>> worst_gradient_confusion(np.array([0.5, -0.5]))
    0.0
    """
    return float(min_cosine.mean())
