"""Variability of Dataset Cartography (Swayamdipta et al., 2020, arXiv:2009.10795): how much the model wavers."""

import numpy as np
from jaxtyping import Float

from clprune.families import score


@score("p_label", high_means="hard")
def variability(p_label: Float[np.ndarray, "E N"]) -> Float[np.ndarray, "N"]:
    """Standard deviation over epochs of the label's probability (divided by E), in [0, 0.5]. High means ambiguous rather than merely hard.

    >>> variability(np.array([[0.2, 1.0], [0.4, 1.0]]))
    array([0.1, 0. ])
    """
    return np.nanstd(p_label, axis=0)
