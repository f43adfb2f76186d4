"""Retention of neighbourhoods: do a fixed probe's samples keep their nearest neighbours from epoch to epoch?"""

import numpy as np
from jaxtyping import Int

from clprune.families import indicator


@indicator("probe_neighbors_before", "probe_neighbors_after")
def neighbor_overlap(probe_neighbors_before: Int[np.ndarray, "Q k"], probe_neighbors_after: Int[np.ndarray, "Q k"]) -> float:
    """Mean share of a sample's k nearest neighbours among the probe, by cosine of the features, that are the same as an epoch ago, in [0, 1].

    >>> neighbor_overlap(np.array([[1, 2], [0, 2]]), np.array([[2, 3], [0, 2]]))
    0.75
    """
    same = (probe_neighbors_before[:, :, None] == probe_neighbors_after[:, None, :]).any(axis=2)
    return float(same.mean())
