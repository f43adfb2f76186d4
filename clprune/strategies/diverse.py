"""Diversity inside difficulty: the budget split over classes and levels of difficulty, then spent on samples far from each other."""

import numpy as np
from jaxtyping import Float, Int

from clprune.families import strategy
from clprune.strategies._local import farthest_first, greedy_by_cluster, interleaved
from clprune.strategies._quota import clean_first, proportional_quota


@strategy("difficulty", "labels", "vectors", "suspicion", "duplicate_of")
def diverse(
    difficulty: Float[np.ndarray, "N"],
    labels: Int[np.ndarray, "N"],
    vectors: Float[np.ndarray, "N D"],
    suspicion: Float[np.ndarray, "N"],
    duplicate_of: Int[np.ndarray, "N"],
    n_keep: int,
    rng: np.random.Generator,
    *,
    score: str = "dual",
    n_strata: int = 5,
    suspect_above: float = 0.8,
) -> Int[np.ndarray, "K"]:
    """Every class, and in it each of `n_strata` equally large levels of difficulty, keeps its share; inside a cell by farthest-first traversal.

    Works with any `score`. Samples with a suspicion above `suspect_above` and near-duplicates are used last, least suspect first: a wrong label is far from
    its class and would be taken first otherwise. Any first part of the result holds about the same share of each cell. Ties go to
    the smaller position; cells of up to 5,000 draw nothing, larger ones are worked on cluster by cluster.
    """
    clean, class_quotas, reserve = clean_first(labels, suspicion, duplicate_of, suspect_above, n_keep)
    paths = []
    for c in np.flatnonzero(class_quotas):
        mine = np.flatnonzero(clean & (labels == c))
        cells = np.array_split(mine[np.argsort(-difficulty[mine], kind="stable")], n_strata)  # hardest first, which gets the odd sample
        quotas = proportional_quota(np.array([len(cell) for cell in cells]), int(class_quotas[c]))
        cell_paths = [
            greedy_by_cluster(farthest_first, vectors, np.sort(cell), int(quota), rng) for cell, quota in zip(cells, quotas, strict=True) if quota
        ]
        paths.append(interleaved(cell_paths))
    return np.concatenate([interleaved(paths), reserve[: n_keep - class_quotas.sum()]]) if paths else reserve[:n_keep]
