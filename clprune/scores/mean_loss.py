"""Mean loss (the small-loss criterion of Han et al., 2018, arXiv:1804.06872, taken over epochs): what stays costly."""

import numpy as np
from jaxtyping import Float

from clprune.families import score


@score("loss", high_means="hard")
def mean_loss(loss: Float[np.ndarray, "E N"]) -> Float[np.ndarray, "N"]:
    """Mean over epochs of the sample's loss, in the unit of that loss; any task with one loss a sample has it.

    >>> mean_loss(np.array([[2.0, 1.0], [1.0, 1.0]]))
    array([1.5, 1. ])
    """
    return np.nanmean(loss, axis=0)
