"""What to label first where nothing is known: the typical sample of each region (after TypiClust, Hacohen et al., 2022, arXiv:2202.02794)."""

import numpy as np
from jaxtyping import Float, Int

from clprune.families import strategy
from clprune.neighbors import assign, kmeans
from clprune.strategies._quota import proportional_quota

MOST_CLUSTERS = 4_000  # k-means costs by them
PER_CLUSTER = 5  # samples, at least: in smaller clusters no sample is more typical than another


@strategy("value:typicality", "vectors", "duplicate_of")
def typical_clusters(
    typicality: Float[np.ndarray, "N"],
    vectors: Float[np.ndarray, "N D"],
    duplicate_of: Int[np.ndarray, "N"],
    n_keep: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, "K"]:
    """k-means with one cluster a wanted sample, as long as clusters hold five or more; each gives by its size, the most typical one first, the others at random.

    Few samples are typical ones then, many cover like random ones, without their gaps. Near-duplicates come last; ties go to the smaller position.
    """
    alone, last = np.flatnonzero(duplicate_of < 0), np.flatnonzero(duplicate_of >= 0)
    wanted = min(n_keep, len(alone))
    points = vectors if len(alone) == len(vectors) else vectors[alone]
    k = max(1, min(wanted, len(alone) // PER_CLUSTER, MOST_CLUSTERS))
    at = assign(points, kmeans(points, k, rng))
    quota = proportional_quota(np.bincount(at), wanted)
    chance = rng.random(len(alone))
    first, rest = [], []
    for c in np.flatnonzero(quota):
        mine = np.flatnonzero(at == c)
        top = mine[np.argmax(typicality[alone[mine]])]
        others = mine[mine != top]
        first.append(int(top))
        rest += others[np.argsort(chance[others], kind="stable")][: quota[c] - 1].tolist()
    return np.concatenate([alone[np.array(first + rest, dtype=np.int64)], last[: n_keep - wanted]])
