"""Facility location (Mirzasoleiman et al., 2013; Wei et al., 2015): kept samples that all others resemble, by lazy greedy (Minoux, 1978)."""

import heapq

import numpy as np
from jaxtyping import Float, Int

from clprune.families import strategy
from clprune.products import product
from clprune.strategies._local import greedy_by_cluster


@strategy("vectors")
def facility_location(vectors: Float[np.ndarray, "N D"], n_keep: int, rng: np.random.Generator) -> Int[np.ndarray, "K"]:
    """Positions that greedily raise the sum over all samples of the similarity to the nearest kept one, best first; ties to the smaller position.

    Similarity is (1 + cosine) / 2, in [0, 1]; a zero vector has 0.5 with all. The value is at least 1 - 1/e of the best possible. Draws nothing up to
    5,000 vectors; above that it runs inside clusters and the budget goes to the steps of all that gain most.

    >>> facility_location(np.array([[1.0, 0.1], [1.0, 0.0], [1.0, -0.1], [0.0, 1.0]]), 2, np.random.default_rng(0))
    array([0, 3])
    """
    return greedy_by_cluster(_lazy_greedy, vectors, np.arange(len(vectors)), n_keep, rng)


def _lazy_greedy(points: Float[np.ndarray, "M D"], n_keep: int) -> tuple[Int[np.ndarray, "K"], Float[np.ndarray, "K"]]:
    """Positions and the gain of each step. A gain computed for a smaller choice is an upper bound, so few have to be computed anew."""
    unit = points.astype(np.float32)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    similarity = product(unit, unit.T)
    similarity += 1
    similarity /= 2
    np.round(similarity, 6, out=similarity)  # what float32 resolves: equal vectors tie
    covered = np.zeros(len(points), dtype=np.float32)
    bounds = [(-float(row.sum(dtype=np.float64)), at) for at, row in enumerate(similarity)]
    heapq.heapify(bounds)
    known_at = np.zeros(len(points), dtype=np.int64)  # how many were chosen when the bound was computed
    path, gains = np.empty(n_keep, dtype=np.int64), np.empty(n_keep)
    chosen = 0
    while chosen < n_keep:
        bound, at = bounds[0]
        if known_at[at] < chosen:
            gain = np.maximum(similarity[at] - covered, 0).sum(dtype=np.float64)
            known_at[at] = chosen
            heapq.heapreplace(bounds, (-float(gain), at))
            continue
        heapq.heappop(bounds)
        path[chosen], gains[chosen] = at, -bound
        np.maximum(covered, similarity[at], out=covered)
        chosen += 1
    return path, gains
