"""Diversity inside difficulty: the budget split over classes and levels of difficulty, then spent on samples far from each other."""

import itertools

import numpy as np
from jaxtyping import Float, Int

from clprune.families import require_range, strategy
from clprune.strategies._local import farthest_first, greedy_by_cell, interleaved
from clprune.strategies._quota import clean_first, proportional_quota
from clprune.suspects import limit_of


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
    suspect_above: float | None = None,
) -> Int[np.ndarray, "K"]:
    """Every class, and in it each of `n_strata` equally large levels of difficulty, keeps its share; inside a cell by farthest-first traversal.

    Works with any `score`. Samples with a suspicion above `suspect_above` (None: found as for `blend`) and near-duplicates are used last, least suspect first: a wrong label is far from
    its class and would be taken first otherwise. Any first part of the result holds about the same share of each cell. Ties go to
    the smaller position; cells of up to 5,000 draw nothing, larger ones are worked on cluster by cluster. Raises UsageError for no stratum, and a `suspect_above` outside 0 to 1.
    """
    require_range("diverse", 1, n_strata=n_strata)
    require_range("diverse", 0, 1, suspect_above=suspect_above)
    clean, class_quotas, reserve = clean_first(labels, suspicion, duplicate_of, suspicion > limit_of(suspicion, suspect_above), n_keep)
    used, wanted, ends = list[np.ndarray](), list[int](), list[int]()
    for c in np.flatnonzero(class_quotas):
        mine = np.flatnonzero(clean & (labels == c))
        cells = np.array_split(
            mine[np.argsort(-difficulty[mine], kind="stable")], min(n_strata, len(mine))
        )  # hardest first, which gets the odd sample
        quotas = proportional_quota(np.array([len(cell) for cell in cells]), int(class_quotas[c]))
        used += [np.sort(cell) for cell, quota in zip(cells, quotas, strict=True) if quota]
        wanted += [int(quota) for quota in quotas if quota]
        ends.append(len(used))
    if not used:
        return reserve[:n_keep]
    paths = greedy_by_cell(farthest_first, vectors, used, wanted, rng)
    classes = [interleaved(paths[begin:end]) for begin, end in itertools.pairwise([0, *ends])]
    return np.concatenate([interleaved(classes), reserve[: n_keep - class_quotas.sum()]])
