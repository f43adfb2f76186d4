"""Dyn-Unc (He et al., 2024, arXiv:2306.05175): how much the prediction moves within short windows of the training."""

import numpy as np
from jaxtyping import Float

from clprune.families import score
from clprune.scores._epochs import filled_with_mean, windows


@score("p_label", high_means="hard")
def dyn_unc(p_label: Float[np.ndarray, "E N"]) -> Float[np.ndarray, "N"]:
    """Mean over windows of ten epochs of the standard deviation of the label's probability (divided by the window's length); in [0, 0.5].

    An epoch that did not see the sample counts as the sample's mean.

    >>> dyn_unc(np.array([[0.2, 1.0], [0.4, 1.0]]))
    array([0.1, 0. ])
    """
    total, count = np.zeros(p_label.shape[1]), 0
    for window in windows(filled_with_mean(p_label)):
        total += window.std(axis=0)
        count += 1
    return total / count
