"""D2 pruning (Maharana et al., 2024, arXiv:2310.07931): difficulty passed along the neighbour graph, and taken back around what is kept."""

import heapq

import numpy as np
from jaxtyping import Float, Int

from clprune.families import strategy
from clprune.neighbors import BLOCK, nearest
from clprune.strategies._local import clusters

EXACT_UP_TO = 60_000  # vectors: as large as the data sets of most papers; 100,000 x 128 take three times as long
SPARE = 4  # more neighbours than asked for are searched, since their exact distances decide


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
    number of neighbours and `cutoff` (the hardest share, left out beforehand, less where too few would be left) for each pruning rate. Fewer than `n_neighbors` others: all of them. Neighbours are exact up to 60,000
    vectors, above that they are those of the same cluster.

    >>> d2(np.array([1.0, 0.8, 0.5, 0.0]), np.array([[0.0], [0.1], [5.0], [9.0]]), 2, np.random.default_rng(0), n_neighbors=1)
    array([0, 2])
    """
    n = len(difficulty)
    left = np.sort(np.argsort(-difficulty, kind="stable")[min(round(cutoff * n), n - n_keep) :])
    hard = difficulty[left]
    finite = hard[np.isfinite(hard)]
    bounded = np.clip(hard, finite.min(), finite.max()) if len(finite) else np.zeros(len(left))
    x = (bounded - bounded.min()) / (np.ptp(bounded) or 1.0)
    at, squared = _graph(vectors if len(left) == n else vectors[left], n_neighbors, rng)
    present = at >= 0
    values = x + (np.exp(-gamma_f * squared) * x[at] * present).sum(axis=1)
    fall = np.exp(-gamma_r * squared) * present
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


def _graph(vectors: Float[np.ndarray, "N D"], n_neighbors: int, rng: np.random.Generator) -> tuple[Int[np.ndarray, "N k"], Float[np.ndarray, "N k"]]:
    """The nearest others of each vector and their squared distances; -1 where a cluster holds too few."""
    n = len(vectors)
    everything = np.arange(n)
    k = min(n_neighbors, n - 1)
    at, squared = np.full((n, k), -1), np.zeros((n, k))
    for mine in [everything] if n <= EXACT_UP_TO else clusters(vectors, everything, rng):
        points = vectors[mine].astype(np.float32)
        _, near = nearest(points, k + SPARE)
        exact = np.empty(near.shape)
        for start in range(0, len(mine), BLOCK // 8):
            rows = slice(start, start + BLOCK // 8)
            away = points[rows, None].astype(np.float64) - points[near[rows]]
            exact[rows] = np.einsum("nkd,nkd->nk", away, away)
        order = np.lexsort((near, exact), axis=1)[:, :k]
        own = np.arange(len(mine))[:, None]
        at[mine, : order.shape[1]], squared[mine, : order.shape[1]] = mine[near[own, order]], exact[own, order]
    return at, squared
