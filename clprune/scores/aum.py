"""Area under the margin (Pleiss et al., 2020, arXiv:2001.10528): by how much the label's logit leads, on average."""

import numpy as np
from jaxtyping import Float

from clprune.families import score


@score("margin", high_means="easy")
def aum(margin: Float[np.ndarray, "E N"]) -> Float[np.ndarray, "N"]:
    """Mean over epochs of the label's logit minus the largest other logit (logits, as in the paper, not probabilities); any real number.

    >>> aum(np.array([[2.0, -1.0], [4.0, 1.0]]))
    array([3., 0.])
    """
    return np.nanmean(margin, axis=0)
