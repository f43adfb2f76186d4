"""Moderate coreset (Xia et al., 2023, ICLR, OpenReview 7D5EECbOaf9): samples neither near to nor far from their class's centre."""

import numpy as np
from jaxtyping import Float, Int

from clprune.families import strategy
from clprune.neighbors import BLOCK

COLUMNS = 16  # of the vectors of a class that are sorted at a time


@strategy("labels", "vectors")
def moderate(labels: Int[np.ndarray, "N"], vectors: Float[np.ndarray, "N D"], n_keep: int, rng: np.random.Generator) -> Int[np.ndarray, "K"]:
    """The positions in the middle of all, by Euclidean distance to the centre of the own class, nearest to the middle rank first.

    As in the authors' released code: the centre is the median of every feature, and the ranks are those of all distances together, so that classes do not keep their share.
    Ties go to the smaller position. Draws nothing. The paper's distances are those of a fully trained model, here they are those of the vectors given.

    >>> moderate(np.zeros(5, dtype=int), np.array([[0.0], [1.0], [3.0], [6.0], [10.0]]), 2, np.random.default_rng(0))
    array([1, 0])
    """
    n = len(labels)
    _, group = np.unique(labels, return_inverse=True)
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
    centres = np.concatenate([_medians(vectors, rows)[None] for rows in members])
    distance = np.empty(n, dtype=np.float64)
    for start in range(0, n, BLOCK):
        away = vectors[start : start + BLOCK].astype(np.float64) - centres[group[start : start + BLOCK]]
        distance[start : start + BLOCK] = np.sqrt(np.einsum("nd,nd->n", away, away))
    first = (n - n_keep) // 2
    window = np.argsort(distance, kind="stable")[first : first + n_keep]
    return window[np.argsort(np.abs(np.arange(n_keep) - (n_keep - 1) / 2), kind="stable")]


def _medians(vectors: Float[np.ndarray, "N D"], rows: Int[np.ndarray, "m"]) -> Float[np.ndarray, "D"]:
    mine = vectors[rows]
    return np.concatenate([np.median(mine[:, at : at + COLUMNS].astype(np.float64), axis=0) for at in range(0, mine.shape[1], COLUMNS)])
