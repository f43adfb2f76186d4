"""Places within groups, and ranks."""

import numpy as np
from jaxtyping import Float, Int


def place_in_group(group: Int[np.ndarray, "M"]) -> Int[np.ndarray, "M"]:
    """How many of the same group stand before each.

    >>> place_in_group(np.array([1, 0, 1, 1]))
    array([0, 0, 1, 2])
    """
    order, sizes = np.argsort(group, kind="stable"), np.bincount(group)
    place = np.empty(len(group), dtype=np.int64)
    place[order] = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return place


def mean_ranks(values: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """Ranks from 1 on, ties sharing their mean: what Spearman's rho is the correlation of.

    >>> mean_ranks(np.array([3.0, 1.0, 3.0, 9.0]))
    array([2.5, 1. , 2.5, 4. ])
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]  # type: ignore[no-any-return]
