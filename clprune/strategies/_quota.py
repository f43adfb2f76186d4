"""How a budget is split over groups; shared by the strategies."""

import numpy as np
from jaxtyping import Bool, Float, Int

from clprune.ranking import place_in_group


def proportional_quota(sizes: Int[np.ndarray, "G"], n_keep: int) -> Int[np.ndarray, "G"]:
    """Split `n_keep` in proportion to `sizes` by largest remainder, ties to the smaller group number; no quota exceeds its size.

    >>> proportional_quota(np.array([50, 30, 20]), 10)
    array([5, 3, 2])
    """
    total = max(1, int(sizes.sum()))
    quota, remainder = np.divmod(sizes.astype(np.int64) * n_keep, total)  # whole numbers, so that equal remainders are equal
    order = np.argsort(-remainder, kind="stable")
    quota[order[: n_keep - quota.sum()]] += 1
    return quota


def n_cut(n: int, n_keep: int, cutoff: float | None) -> int:
    """How many of the hardest to leave out beforehand: the share `cutoff` of all, less where too few would be left.

    None: what the papers' searches settled on for each kept share (Zheng et al., 2023, arXiv:2210.15809), nothing from a half on, 0.2 at 0.2 and 0.3 at 0.1 and below, straight lines in between.

    >>> [n_cut(100, n_keep, None) for n_keep in (70, 50, 30, 20, 10, 5)]
    [0, 0, 13, 20, 30, 30]
    """
    share = float(np.interp(n_keep / n, (0.1, 0.2, 0.5), (0.3, 0.2, 0.0))) if cutoff is None else cutoff
    return min(round(share * n), n - n_keep)


def capped_quota(sizes: Int[np.ndarray, "G"], caps: Int[np.ndarray, "G"], n_keep: int) -> Int[np.ndarray, "G"]:
    """Split `n_keep` in proportion to `sizes`, at most `caps` each; what a group cannot take is split over the others in the same way.

    >>> capped_quota(np.array([50, 50, 10]), np.array([50, 10, 10]), 44)
    array([28, 10,  6])
    """
    quota, open_groups = np.zeros_like(sizes), caps > 0
    while (left := n_keep - int(quota.sum())) and open_groups.any():
        quota = np.minimum(caps, quota + proportional_quota(np.where(open_groups, sizes, 0), left))
        open_groups = quota < caps
    return quota


def clean_first(
    labels: Int[np.ndarray, "N"],
    suspicion: Float[np.ndarray, "N"],
    duplicate_of: Int[np.ndarray, "N"],
    doubtful: Bool[np.ndarray, "N"],
    n_keep: int,
) -> tuple[Bool[np.ndarray, "N"], Int[np.ndarray, "C"], Int[np.ndarray, "R"]]:
    """Which samples are clean (no repeat, not `doubtful`), how many of each class to keep of them, and the others in the order in which they fill what is left.

    A class keeps its share of all samples that repeat nothing, as far as it has clean ones. A rare class that was hardly learned looks suspect as a whole, so `floor_of` its share counts as clean
    whatever the suspicion, its least suspect samples first. Least suspect first among the others, too.
    """
    alone = duplicate_of < 0
    least_suspect = np.argsort(suspicion, kind="stable")
    last = np.lexsort((suspicion, doubtful))
    n_classes = int(labels.max()) + 1
    sizes = np.bincount(labels[alone], minlength=n_classes)
    clean = alone & ~doubtful
    clean[by_class(least_suspect[alone[least_suspect]], labels, floor_of(proportional_quota(sizes, min(n_keep, int(sizes.sum())))))] = True
    quota = capped_quota(sizes, np.bincount(labels[clean], minlength=n_classes), min(n_keep, int(clean.sum())))
    return clean, quota, last[~clean[last]]


def floor_of(quota: Int[np.ndarray, "C"]) -> Int[np.ndarray, "C"]:
    """What a class keeps of its quota whatever the scores say: half of it, and all of it up to half of the mean quota.

    >>> floor_of(np.array([60, 9, 21]))
    array([30,  9, 15])
    """
    return np.maximum(-(-quota // 2), np.minimum(quota, -(-quota.sum() // (2 * len(quota)))))


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
    return order[place_in_group(classes) < quota[classes]]
