"""Confidence of Dataset Cartography (Swayamdipta et al., 2020, arXiv:2009.10795): how likely the model finds the label."""

import numpy as np
from jaxtyping import Float

from clprune.families import score


@score("p_label", high_means="easy")
def confidence(p_label: Float[np.ndarray, "E N"]) -> Float[np.ndarray, "N"]:
    """Mean over epochs of the label's probability, in [0, 1].

    >>> confidence(np.array([[0.2, 1.0], [0.4, 1.0]]))
    array([0.3, 1. ])
    """
    return np.nanmean(p_label, axis=0)
