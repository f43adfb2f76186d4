"""Correctness of Dataset Cartography (Swayamdipta et al., 2020, arXiv:2009.10795): in how many epochs the sample is right."""

import numpy as np
from jaxtyping import Float

from clprune.families import score


@score("correct", high_means="easy")
def consistency(correct: Float[np.ndarray, "E N"]) -> Float[np.ndarray, "N"]:
    """Share of the epochs that saw the sample in which it is right, in [0, 1].

    >>> consistency(np.array([[1.0, 0], [1.0, 1]]))
    array([1. , 0.5])
    """
    return np.nanmean(correct, axis=0)
