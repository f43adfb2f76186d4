"""EL2N (Paul et al., 2021, arXiv:2107.07075): how far the prediction is from the label."""

import numpy as np
from jaxtyping import Float

from clprune.families import score


@score("error_l2", high_means="hard")
def el2n(error_l2: Float[np.ndarray, "E N"]) -> Float[np.ndarray, "N"]:
    """Mean over epochs of ||softmax(logits) - onehot(label)||_2, in [0, sqrt(2)]. The paper takes one early epoch and the mean of ten runs.

    >>> el2n(np.array([[0.2, 1.0], [0.0, 1.0]]))
    array([0.1, 1. ])
    """
    return np.nanmean(error_l2, axis=0)
