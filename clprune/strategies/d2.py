"""D2 pruning (Maharana et al., 2024, arXiv:2310.07931): difficulty passed along the neighbour graph, and taken back around what is kept."""

import heapq

import numpy as np
from jaxtyping import Float, Int

from clprune.families import strategy
from clprune.neighbors import nearest


@strategy("difficulty", "vectors")
def d2(
    difficulty: Float[np.ndarray, "N"],
    vectors: Float[np.ndarray, "N D"],
    n_keep: int,
    rng: np.random.Generator,
    *,
    score: str = "forgetting",
    n_neighbors: int = 10,
    gamma_f: float = 1.0,
    gamma_r: float = 1.0,
    cutoff: float = 0.0,
) -> Int[np.ndarray, "K"]:
    """Positions taken greedily by a value that starts as difficulty plus what neighbours add, and falls when a neighbour is taken.

    Forward: x_i + sum over the nearest neighbours j of exp(-gamma_f d_ij^2) x_j, with x the difficulty scaled to [0, 1] (infinite ones count as the
    largest finite one). Each time the largest value v_k is taken, ties to the smaller position; reverse: v_j falls by exp(-gamma_r d_kj^2) v_k for the
    neighbours j of k. d is the Euclidean distance, so both gammas are per squared unit of the vectors. The paper tunes them, the
    number of neighbours and `cutoff` (the hardest share, left out beforehand, less where too few would be left) for each pruning rate. Fewer than `n_neighbors` others: all of them. Neighbours are exact up to 100,000
    vectors, above that searched for in the nearest cells (`neighbors`).

    >>> d2(np.array([1.0, 0.8, 0.5, 0.0]), np.array([[0.0], [0.1], [5.0], [9.0]]), 2, np.random.default_rng(0), n_neighbors=1)
    array([0, 2])
    """
    n = len(difficulty)
    left = np.sort(np.argsort(-difficulty, kind="stable")[min(round(cutoff * n), n - n_keep) :])
    hard = difficulty[left]
    finite = hard[np.isfinite(hard)]
    bounded = np.clip(hard, finite.min(), finite.max()) if len(finite) else np.zeros(len(left))
    x = (bounded - bounded.min()) / (np.ptp(bounded) or 1.0)
    distances, at = nearest(vectors if len(left) == n else vectors[left], n_neighbors)
    values = x + (np.exp(-gamma_f * distances**2) * x[at]).sum(axis=1)
    fall = np.exp(-gamma_r * distances**2)
    heap = [(-value, position) for position, value in enumerate(values.tolist())]
    heapq.heapify(heap)
    value, taken = values.tolist(), np.zeros(len(x), dtype=bool)
    path: list[int] = []
    while len(path) < n_keep:
        negative, k = heapq.heappop(heap)
        if taken[k] or -negative != value[k]:
            continue  # its value changed since; the entry with the new one is elsewhere in the heap
        taken[k] = True
        path.append(k)
        for j, share in zip(at[k].tolist(), fall[k].tolist(), strict=True):
            if share and not taken[j]:
                value[j] -= share * value[k]
                heapq.heappush(heap, (-value[j], j))
    return left[path]
