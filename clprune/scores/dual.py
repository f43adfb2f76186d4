"""DUAL (Cho et al., 2025, arXiv:2502.06905): uncertain and difficult at once, from early epochs."""

import numpy as np
from jaxtyping import Float

from clprune.families import score
from clprune.scores._epochs import filled_with_mean, windows


@score("p_label", high_means="hard")
def dual(p_label: Float[np.ndarray, "E N"]) -> Float[np.ndarray, "N"]:
    """Mean over windows of sd(p) (1 - mean(p)), p the label's probability, sd divided by the window's length; in [0, 0.5].

    >>> dual(np.array([[0.2, 1.0], [0.4, 1.0]]))
    array([0.07, 0.  ])
    """
    total, count = np.zeros(p_label.shape[1]), 0
    for window in windows(filled_with_mean(p_label)):
        total += window.std(axis=0) * (1 - window.mean(axis=0))
        count += 1
    return total / count
