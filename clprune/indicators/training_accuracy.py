"""Accuracy on the training batches as they are seen, augmented and in training mode."""

import numpy as np
from jaxtyping import Float

from clprune.families import indicator


@indicator("correct_now")
def training_accuracy(correct_now: Float[np.ndarray, "n"]) -> float:
    """Share of the window's samples that are right when they are seen, in [0, 1].

    >>> training_accuracy(np.array([1.0, 0.0]))
    0.5
    """
    return float(correct_now.mean())
