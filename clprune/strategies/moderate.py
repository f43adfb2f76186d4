"""Moderate coreset (Xia et al., 2023, ICLR, OpenReview 7D5EECbOaf9): samples neither near to nor far from their class's centre."""

import numpy as np
from jaxtyping import Float, Int

from clprune.families import strategy
from clprune.neighbors import BLOCK, means_of
from clprune.strategies._quota import by_class, proportional_quota


@strategy("labels", "vectors")
def moderate(labels: Int[np.ndarray, "N"], vectors: Float[np.ndarray, "N D"], n_keep: int, rng: np.random.Generator) -> Int[np.ndarray, "K"]:
    """Per class, the positions whose Euclidean distance to the mean of the class lies nearest to the median distance, nearest first.

    Classes keep their share; ties go to the smaller position; a class with one sample is its own centre. Draws nothing. The paper's distances
    are those of a fully trained model, here they are those of the vectors given.

    >>> moderate(np.zeros(5, dtype=int), np.array([[0.0], [1.0], [3.0], [6.0], [10.0]]), 2, np.random.default_rng(0))
    array([1, 0])
    """
    _, group = np.unique(labels, return_inverse=True)
    centres = means_of(vectors, group)
    distance = np.empty(len(labels), dtype=np.float64)
    for start in range(0, len(labels), BLOCK):
        away = vectors[start : start + BLOCK].astype(np.float64) - centres[group[start : start + BLOCK]]
        distance[start : start + BLOCK] = np.sqrt(np.einsum("nd,nd->n", away, away))
    median = np.array([np.median(distance[group == g]) for g in range(len(centres))])
    order = np.argsort(np.abs(distance - median[group]), kind="stable")
    return by_class(order, group, proportional_quota(np.bincount(group), n_keep))
