"""What to label first where nothing is known: the typical sample of each region (after TypiClust, Hacohen et al., 2022, arXiv:2202.02794)."""

import numpy as np
from jaxtyping import Float, Int

from clprune.families import strategy
from clprune.strategies._local import led_by


@strategy("value:typicality", "vectors", "duplicate_of")
def typical_clusters(
    typicality: Float[np.ndarray, "N"],
    vectors: Float[np.ndarray, "N D"],
    duplicate_of: Int[np.ndarray, "N"],
    n_keep: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, "K"]:
    """k-means with one cluster a wanted sample, as long as clusters hold five or more; each gives by its size, the one in the densest place first (`typicality`), the others at random.

    Near-duplicates come last; ties go to the smaller position. `cluster_medoids` differs in which sample comes first alone, and was measured to be better.
    """
    return led_by(vectors, duplicate_of, n_keep, rng, worth=typicality)
