"""k-center greedy (Sener & Savarese, 2018, arXiv:1708.00489): every sample close to a kept one, whatever it is."""

import numpy as np
from jaxtyping import Float, Int

from clprune.families import strategy
from clprune.strategies._local import farthest_first, greedy_by_cluster


@strategy("vectors")
def k_center(vectors: Float[np.ndarray, "N D"], n_keep: int, rng: np.random.Generator) -> Int[np.ndarray, "K"]:
    """Positions by farthest-first traversal from the vector nearest to the mean, in Euclidean distance; ties to the smaller position.

    Its coverage radius (distance of the worst placed sample to the nearest kept one) is at most twice the best possible. Draws nothing up to
    5,000 vectors; above that it runs inside clusters and the budget goes to the farthest steps of all.

    >>> k_center(np.array([[0.0], [1.0], [10.0], [4.0]]), 3, np.random.default_rng(0))
    array([3, 2, 0])
    """
    return greedy_by_cluster(farthest_first, vectors, np.arange(len(vectors)), n_keep, rng)
