"""How a budget is split over groups; shared by the strategies."""

import numpy as np
from jaxtyping import Int


def proportional_quota(sizes: Int[np.ndarray, "G"], n_keep: int) -> Int[np.ndarray, "G"]:
    """Split `n_keep` in proportion to `sizes` by largest remainder, ties to the smaller group number; no quota exceeds its size.

    >>> proportional_quota(np.array([50, 30, 20]), 10)
    array([5, 3, 2])
    """
    exact = sizes * (n_keep / max(1, sizes.sum()))
    quota = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - quota), kind="stable")
    quota[order[: n_keep - quota.sum()]] += 1
    return quota


def even_quota(sizes: Int[np.ndarray, "G"], n_keep: int) -> Int[np.ndarray, "G"]:
    """Split `n_keep` evenly, small groups first: what a small group cannot use goes to the larger ones (CCS, algorithm 1).

    >>> even_quota(np.array([1, 10, 10]), 9)
    array([1, 4, 4])
    """
    quota = np.zeros_like(sizes)
    left = n_keep
    order = np.argsort(sizes, kind="stable")
    for i, group in enumerate(order):
        quota[group] = min(sizes[group], left // (len(sizes) - i))
        left -= quota[group]
    return quota


def by_class(order: Int[np.ndarray, "M"], labels: Int[np.ndarray, "N"], quota: Int[np.ndarray, "C"]) -> Int[np.ndarray, "K"]:
    """The first `quota[c]` positions of each class in `order`, in the order they have there."""
    classes = labels[order]
    place = np.empty(len(order), dtype=np.int64)
    for c in range(len(quota)):
        mine = np.flatnonzero(classes == c)
        place[mine] = np.arange(len(mine))
    return order[place < quota[classes]]
