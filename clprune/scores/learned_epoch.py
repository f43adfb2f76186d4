"""Epoch of learning for good (Maini et al., 2022, arXiv:2210.15031, first split): from when on the sample is never wrong again."""

import numpy as np
from jaxtyping import Float

from clprune.families import score
from clprune.scores._epochs import filled_with_last


@score("correct", high_means="hard")
def learned_epoch(correct: Float[np.ndarray, "E N"]) -> Float[np.ndarray, "N"]:
    """First epoch t (0-based) such that the sample is right in t and in every later epoch, in 0..E; E if it is wrong at the end. An epoch that did not see the sample repeats the last one that did.

    >>> learned_epoch(np.array([[1.0, 0, 1], [1.0, 0, 0], [1.0, 1, 0]]))
    array([0., 2., 3.])
    """
    right_since = np.cumprod(filled_with_last(correct)[::-1], axis=0)
    return len(correct) - right_since.sum(axis=0)
