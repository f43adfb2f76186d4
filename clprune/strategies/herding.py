"""Herding (Welling, 2009; per class as in iCaRL, Rebuffi et al., 2017, arXiv:1611.07725): kept samples whose mean follows the class's."""

import numpy as np
from jaxtyping import Float, Int

from clprune.distributed import share_out
from clprune.families import strategy
from clprune.neighbors import clusters
from clprune.products import one_thread
from clprune.strategies._local import EXACT_UP_TO, RESOLUTION, interleaved
from clprune.strategies._quota import proportional_quota


@strategy("labels", "vectors")
def herding(labels: Int[np.ndarray, "N"], vectors: Float[np.ndarray, "N D"], n_keep: int, rng: np.random.Generator) -> Int[np.ndarray, "K"]:
    """Per class, positions each of which brings the mean of those chosen so far nearest to the mean of the class, in Euclidean distance.

    Classes keep their share; any first part of the result holds about the same share of each class. Ties go to the smaller position. Draws
    nothing for classes of up to 5,000; larger ones are cut into clusters, each with its own mean and its share.

    >>> herding(np.zeros(4, dtype=int), np.array([[0.0], [1.0], [2.0], [9.0]]), 2, np.random.default_rng(0))
    array([2, 1])
    """
    classes = np.unique(labels)
    groups = []
    for c in classes:
        mine = np.flatnonzero(labels == c)
        groups.append([mine] if len(mine) <= EXACT_UP_TO else clusters(vectors, mine, rng))
    quotas = proportional_quota(np.array([sum(map(len, parts)) for parts in groups]), n_keep)
    paths = []
    for parts, quota in zip(groups, quotas, strict=True):
        shares = proportional_quota(np.array([len(part) for part in parts]), int(quota))
        paths.append(interleaved(share_out(list(zip(parts, shares, strict=True)), lambda item: item[0][_herd(vectors[item[0]], int(item[1]))])))
    return interleaved(paths)


def _herd(points: Float[np.ndarray, "M D"], n_keep: int) -> Int[np.ndarray, "K"]:
    """Step t takes the x that makes |t mean - (sum so far + x)| smallest, that is |x|^2 / 2 - x . (t mean - sum so far)."""
    centred = points.astype(np.float32)
    centred -= centred.mean(axis=0)  # the mean is 0 now
    score = np.einsum("md,md->m", centred, centred) / 2
    tie = RESOLUTION * score.max()
    path = np.empty(n_keep, dtype=np.int64)
    with one_thread():
        for step in range(n_keep):
            at = np.argmax(score <= score.min() + tie)
            path[step] = at
            score += centred @ centred[at]
            score[at] = np.inf
    return path
