"""Drawdown of the margin: by how much a learned sample fell back. Breaks the ties of forgetting events (Toneva et al., 2019, arXiv:1812.05159)."""

import numpy as np
from jaxtyping import Float

from clprune.families import score


@score("margin", "correct", high_means="hard")
def margin_drawdown(margin: Float[np.ndarray, "E N"], correct: Float[np.ndarray, "E N"]) -> Float[np.ndarray, "N"]:
    """Largest fall of the margin from an epoch to any later one, from the first right epoch on: logits, at least 0; never right: infinity.

    Epochs that did not see the sample are passed over.

    >>> margin_drawdown(np.array([[1.0, 5.0], [3.0, -1.0], [0.5, 2.0]]), np.array([[1.0, 0], [1.0, 0], [1.0, 1]]))
    array([2.5, 0. ])
    """
    learned = np.maximum.accumulate(correct == 1, axis=0)
    top, fall = np.full(margin.shape[1], -np.inf), np.zeros(margin.shape[1])
    for now, counts in zip(margin, learned & ~np.isnan(margin), strict=True):
        top = np.where(counts, np.maximum(top, now), top)
        fall = np.where(counts, np.maximum(fall, top - now), fall)
    return np.where(learned[-1], fall, np.inf)
