"""What to label next where a model knows something already: uncertain, and from all over what is uncertain (after Cluster-Margin, Citovsky et al., 2021, arXiv:2107.14263)."""

import numpy as np
from jaxtyping import Float, Int

from clprune.families import strategy
from clprune.neighbors import assign, kmeans
from clprune.ranking import place_in_group

MOST_CLUSTERS = 500  # more hardly change what is picked, and k-means costs by them


@strategy("difficulty", "vectors", "duplicate_of")
def uncertain_clusters(
    difficulty: Float[np.ndarray, "N"],
    vectors: Float[np.ndarray, "N D"],
    duplicate_of: Int[np.ndarray, "N"],
    n_keep: int,
    rng: np.random.Generator,
    *,
    score: str = "uncertainty",
) -> Int[np.ndarray, "K"]:
    """The sqrt(n_keep N) samples of the highest `score` are cut into clusters, and one is taken from each in turn, smallest cluster first, highest score first.

    So what looks alike is not asked for many times, and the fewer are wanted, the more certain it is that they are uncertain. Near-duplicates come last. Ties go to the smaller position.
    """
    n = len(difficulty)
    order = np.lexsort((-difficulty, duplicate_of >= 0))
    n_alone = int((duplicate_of < 0).sum())
    candidates = order[: max(n_keep, min(n_alone, round(float(np.sqrt(n_keep * n)))))]
    points = np.asarray(vectors[candidates], dtype=np.float32)
    at = assign(points, kmeans(points, min(n_keep, MOST_CLUSTERS), rng))
    return candidates[_in_turn(at)[:n_keep]]


def _in_turn(group: Int[np.ndarray, "M"]) -> Int[np.ndarray, "M"]:
    """Positions round by round: in each the next one of every group that has one left, smaller groups first, in the order given.

    >>> _in_turn(np.array([0, 0, 0, 1, 1, 2]))
    array([5, 3, 0, 4, 1, 2])
    """
    sizes = np.bincount(group)
    return np.lexsort((group, sizes[group], place_in_group(group)))
