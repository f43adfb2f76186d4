"""TDDS (Zhang et al., 2024, arXiv:2311.13613): how unevenly the prediction moves, late windows first. Two-class reduction."""

import numpy as np
from jaxtyping import Float

from clprune.families import score
from clprune.scores._epochs import WINDOW, filled_with_last, windows

DECAY = 0.9  # weight of the newest window against all earlier ones together, as in the paper
SMALLEST = 1e-7  # probabilities are kept so far from 0 and 1: what float32 tells apart near 1


@score("p_label", high_means="hard")
def tdds(p_label: Float[np.ndarray, "E N"]) -> Float[np.ndarray, "N"]:
    """Sum over windows of DECAY (1 - DECAY)^age times the norm of the KL increments around their window's mean, at least 0.

    The paper's increment is KL(p_{t+1} || p_t) of whole class distributions, which a trajectory does not hold. This is the **reduction to two
    classes, the label and the rest**: exact for two classes, and never above the whole increment (merging classes cannot raise a
    divergence); it does not see movement among the wrong classes. A window holds the nine increments of ten epochs, or all where there are fewer; the newest
    window has age 0. An epoch that did not see the sample repeats the last one that did. One epoch: 0.

    >>> tdds(np.array([[0.5, 1.0], [0.8, 1.0], [0.8, 1.0]])).round(4)
    array([0.1227, 0.    ])
    """
    p = np.clip(filled_with_last(p_label), SMALLEST, 1 - SMALLEST)
    if len(p) < 2:
        return np.zeros(p.shape[1])
    before, after = p[:-1], p[1:]
    increments = after * np.log(after / before) + (1 - after) * np.log((1 - after) / (1 - before))
    total = np.zeros(p.shape[1])
    for window in windows(increments, WINDOW - 1):
        total = DECAY * np.linalg.norm(window - window.mean(axis=0), axis=0) + (1 - DECAY) * total
    return total
