"""What to label first where nothing is known: at random, but every region of the features by its size (stratified sampling with proportional allocation, Neyman, 1934)."""

import math

import numpy as np
from jaxtyping import Float, Int

from clprune.families import strategy
from clprune.neighbors import assign, kmeans
from clprune.strategies._quota import by_class, proportional_quota

MOST_CLUSTERS = 500  # k-means costs by them


@strategy("vectors", "duplicate_of")
def random_in_clusters(
    vectors: Float[np.ndarray, "N D"], duplicate_of: Int[np.ndarray, "N"], n_keep: int, rng: np.random.Generator
) -> Int[np.ndarray, "K"]:
    """k-means with sqrt(N) clusters, at most MOST_CLUSTERS and as many as wanted; each gives by its size, at random inside. Near-duplicates come last.

    Such a choice represents the pool at least as well as a random one: what varies between clusters no longer varies between choices. Where few are wanted, those in the middle were
    measured to be better (`cluster_medoids`, examples/benchmarks/no_labels.py). Draws once for k-means and once for the order inside; ties of sizes go to the smaller cluster number.
    """
    alone, last = np.flatnonzero(duplicate_of < 0), np.flatnonzero(duplicate_of >= 0)
    wanted = min(n_keep, len(alone))
    if not len(alone):
        return last[:n_keep]
    points = vectors if len(alone) == len(vectors) else vectors[alone]
    at = assign(points, kmeans(points, max(1, min(wanted, MOST_CLUSTERS, math.isqrt(len(alone)))), rng))
    quota = proportional_quota(np.bincount(at), wanted)
    return np.concatenate([alone[by_class(rng.permutation(len(alone)), at, quota)], last[: n_keep - wanted]])
