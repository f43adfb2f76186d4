"""Retention after learning: once a sample has been right, the share of epochs in which it stays right."""

import numpy as np
from jaxtyping import Float

from clprune.families import score


@score("correct", high_means="easy")
def retention_after_learning(correct: Float[np.ndarray, "E N"]) -> Float[np.ndarray, "N"]:
    """Mean of right over the epochs from the first right one on, in [0, 1]; never right: 0.

    >>> retention_after_learning(np.array([[0.0, 0, 1], [1.0, 0, 0], [1.0, 0, 1]]))
    array([1.        , 0.        , 0.66666667])
    """
    seen = ~np.isnan(correct)
    right = np.where(seen, correct, 0)
    since = np.maximum.accumulate(right, axis=0) * seen
    return right.sum(axis=0) / np.maximum(since.sum(axis=0), 1)
