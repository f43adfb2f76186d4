"""DUAL (Cho et al., 2025, arXiv:2502.06905): uncertain and difficult at once, from early epochs."""

import numpy as np
from jaxtyping import Float

from clprune.families import score

WINDOW = 10  # epochs, as in the paper; shorter recordings are one window


@score("p_label", high_means="hard")
def dual(p_label: Float[np.ndarray, "E N"]) -> Float[np.ndarray, "N"]:
    """Mean over windows of sd(p) (1 - mean(p)), p the label's probability, sd divided by the window's length; in [0, 0.5].

    >>> dual(np.array([[0.2, 1.0], [0.4, 1.0]]))
    array([0.07, 0.  ])
    """
    width = min(WINDOW, len(p_label))
    known = np.where(np.isnan(p_label), np.nanmean(p_label, axis=0), p_label)
    total = np.zeros(p_label.shape[1])
    for start in range(len(known) - width + 1):
        window = known[start : start + width]
        total += window.std(axis=0) * (1 - window.mean(axis=0))
    return total / (len(known) - width + 1)
