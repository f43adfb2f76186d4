"""Variability of the loss: Dataset Cartography's idea (Swayamdipta et al., 2020, arXiv:2009.10795) where there is no probability."""

import numpy as np
from jaxtyping import Float

from clprune.families import score


@score("loss", high_means="hard")
def loss_variability(loss: Float[np.ndarray, "E N"]) -> Float[np.ndarray, "N"]:
    """Standard deviation over epochs of the sample's loss (divided by E), at least 0, in the unit of that loss.

    High means that it was learned or forgotten meanwhile; a sample that is always easy or always wrong is low.

    >>> loss_variability(np.array([[2.0, 1.0], [1.0, 1.0]]))
    array([0.5, 0. ])
    """
    return np.nanstd(loss, axis=0)
