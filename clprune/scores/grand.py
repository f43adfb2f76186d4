"""GraNd (Paul et al., 2021, arXiv:2107.07075) of the last layer: how strongly the sample pulls at the weights."""

import numpy as np
from jaxtyping import Float

from clprune.families import score


@score("grad_norm", high_means="hard")
def grand(grad_norm: Float[np.ndarray, "E N"]) -> Float[np.ndarray, "N"]:
    """Mean over epochs of the norm of the loss's gradient with respect to the last linear layer, at least 0.

    The paper takes all weights at one early epoch and the mean of ten runs; the last layer's part is exact here and costs nothing.

    >>> grand(np.array([[0.2, 2.0], [0.0, 1.0]]))
    array([0.1, 1.5])
    """
    return np.nanmean(grad_norm, axis=0)
