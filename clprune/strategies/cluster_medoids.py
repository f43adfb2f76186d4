"""What to label first where nothing is known: the sample in the middle of each region (k-means sampling, as in Zhdanov, 2019, arXiv:1901.05954, without weights)."""

import numpy as np
from jaxtyping import Float, Int

from clprune.families import strategy
from clprune.strategies._local import led_by


@strategy("vectors", "duplicate_of")
def cluster_medoids(
    vectors: Float[np.ndarray, "N D"], duplicate_of: Int[np.ndarray, "N"], n_keep: int, rng: np.random.Generator
) -> Int[np.ndarray, "K"]:
    """k-means with one cluster a wanted sample, as long as clusters hold five or more; each gives by its size, its medoid (nearest to its centroid) first, the others at random.

    So few samples stand for as much of the pool as they can, and many cover it like random ones, without their gaps. Near-duplicates come last; ties go to the smaller position.
    """
    return led_by(vectors, duplicate_of, n_keep, rng)
