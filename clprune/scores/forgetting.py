"""Forgetting events (Toneva et al., 2019, arXiv:1812.05159): how often a sample that was right became wrong."""

import numpy as np
from jaxtyping import Float

from clprune.families import score


@score("correct", high_means="hard")
def forgetting(correct: Float[np.ndarray, "E N"]) -> Float[np.ndarray, "N"]:
    """Number of changes from right to wrong between consecutive epochs that saw the sample, in 0..E-1; never right: infinity, above all others.

    >>> forgetting(np.array([[1.0, 0, 0], [0.0, 1, 0], [1.0, 1, 0]]))
    array([ 1.,  0., inf])
    """
    events = np.zeros(correct.shape[1])
    last = np.full(correct.shape[1], np.nan)
    for now in correct:
        events += (last == 1) & (now == 0)
        last = np.where(np.isnan(now), last, now)
    return np.where(np.nanmax(correct, axis=0) == 1, events, np.inf)
