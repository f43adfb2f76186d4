"""D2 pruning (Maharana et al., 2024, arXiv:2310.07931): difficulty passed along the neighbour graph, and taken back around what is kept."""

import heapq

import numpy as np
from jaxtyping import Float, Int

from clprune.families import require_range, strategy
from clprune.neighbors import nearest
from clprune.strategies._quota import n_cut


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
    cutoff: float | None = None,
) -> Int[np.ndarray, "K"]:
    """Positions taken greedily by a value that starts as difficulty plus what neighbours add, and falls when a neighbour is taken.

    Forward: x_i + sum over the nearest neighbours j of exp(-gamma_f d_ij^2) x_j, with x the difficulty scaled to [0, 1] (infinite ones count as the
    largest finite one). Each time the largest value v_k is taken, ties to the smaller position; reverse: v_j falls by exp(-gamma_r d_kj^2) v_k for the
    neighbours j of k. d is the Euclidean distance in units of the neighbours' median distance, so that a gamma means the same for features of any
    scale: on a network's raw ones exp(-d^2) is nothing, and what is left is hardest first. The paper tunes both gammas, the number of neighbours and `cutoff` (the hardest share, left out
    beforehand, less where too few would be left; None: see `n_cut`) for each pruning rate. Fewer than `n_neighbors` others: all of them. Neighbours are exact up to 100,000
    vectors, above that searched for in the nearest cells (`neighbors`). Raises UsageError for a negative number, and a `cutoff` outside 0 to 1.

    >>> d2(np.array([1.0, 0.9, 0.5, 0.0]), np.array([[0.0], [1.0], [5.0], [9.0]]), 2, np.random.default_rng(0), n_neighbors=1)
    array([0, 2])
    """
    require_range("d2", 0, n_neighbors=n_neighbors, gamma_f=gamma_f, gamma_r=gamma_r)
    require_range("d2", 0, 1, cutoff=cutoff)
    n = len(difficulty)
    left = np.sort(np.argsort(-difficulty, kind="stable")[n_cut(n, n_keep, cutoff) :])
    hard = difficulty[left]
    finite = hard[np.isfinite(hard)]
    bounded = np.clip(hard, finite.min(), finite.max()) if len(finite) else np.zeros(len(left))
    x = (bounded - bounded.min()) / (np.ptp(bounded) or 1.0)
    distances, at = nearest(vectors if len(left) == n else vectors[left], n_neighbors)
    unit = np.median(distances[distances > 0]) if (distances > 0).any() else 1.0
    distances = distances / unit
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
