"""Prototypes (Sorscher et al., 2022, arXiv:2206.14486): distance to the nearest k-means centroid as a difficulty that needs no labels."""

import numpy as np
from jaxtyping import Float, Int

from clprune.families import require_one_of, require_range, strategy
from clprune.neighbors import BLOCK, assign, kmeans


@strategy("labels", "vectors")
def cluster_prototypes(
    labels: Int[np.ndarray, "N"],
    vectors: Float[np.ndarray, "N D"],
    n_keep: int,
    rng: np.random.Generator,
    *,
    prefer: str = "far",
    n_clusters: int | None = None,
) -> Int[np.ndarray, "K"]:
    """Positions farthest from (`prefer="far"`) or nearest to (`"near"`) the centroid of their own cluster, in Euclidean distance.

    Clusters are of the whole data set, by default as many as there are classes; labels have no other influence. Far is meant for much data,
    near for little. Ties go to the smaller position. Raises UsageError for another `prefer` or no cluster.

    >>> cluster_prototypes(np.zeros(4, dtype=int), np.array([[0.0], [1.0], [2.0], [9.0]]), 2, np.random.default_rng(0))
    array([3, 0])
    """
    require_one_of("cluster_prototypes", ("far", "near"), prefer=prefer)
    require_range("cluster_prototypes", 1, n_clusters=n_clusters)
    centroids = kmeans(vectors, n_clusters or len(np.unique(labels)), rng, n_rounds=25)
    at = assign(vectors, centroids)
    squared = np.empty(len(vectors))
    for start in range(0, len(vectors), BLOCK):
        away = vectors[start : start + BLOCK].astype(np.float64) - centroids[at[start : start + BLOCK]]
        squared[start : start + BLOCK] = np.einsum("nd,nd->n", away, away)
    return np.argsort(-squared if prefer == "far" else squared, kind="stable")[:n_keep]
