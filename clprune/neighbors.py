"""Nearest neighbours and k-means: the only module that imports faiss.

Exact search up to EXACT_UP_TO vectors, inverted lists above that. Where faiss is missing, blocks of a torch matrix product and top-k stand in.
k-means and assignment are numpy's matrix products, which are as fast for few centroids and, unlike faiss's, the same to the last bit
whatever the number of threads.
Torch is imported before faiss, so that both share one OpenMP runtime; index files are never read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from clprune.errors import DataError

EXACT_UP_TO = 100_000  # vectors: an exact self-join of 100,000 x 128 takes about half a minute on two cores
N_PROBE = 8
BLOCK = 16_384  # vectors that are looked at together
PER_CENTROID = 256  # vectors a centroid that k-means learns from; more no longer move the centroids much


def plan(n: int) -> str:
    """How `nearest` searches among `n` vectors: "exact" or "inverted lists"."""
    return "exact" if n <= EXACT_UP_TO else "inverted lists"


def require_finite(vectors: Float[np.ndarray, "N D"]) -> None:
    """Raises DataError that names the first row with NaN or infinity."""
    bad = [start + np.flatnonzero(~np.isfinite(vectors[start : start + BLOCK]).all(axis=1)) for start in range(0, len(vectors), BLOCK)]
    if count := sum(map(len, bad)):
        first = next(rows[0] for rows in bad if len(rows))
        raise DataError(f"{count} of {len(vectors)} vectors hold NaN or infinity (first: row {first}). Mend the model or the inputs.")


def nearest(vectors: Float[np.ndarray, "N D"], k: int) -> tuple[Float[np.ndarray, "N k"], Int[np.ndarray, "N k"]]:
    """The `k` nearest other vectors of each vector: Euclidean distances and positions, nearest first, ties to the smaller position.

    With fewer than k others, k shrinks to N - 1. Raises DataError for NaN or infinity.
    """
    require_finite(vectors)
    points = np.ascontiguousarray(vectors, dtype=np.float32)
    k = min(k, len(points) - 1)
    if k < 1:
        return np.empty((len(points), 0), np.float32), np.empty((len(points), 0), np.int64)
    squared, at = _searcher(points)(points, k + 1)
    own = at == np.arange(len(points))[:, None]
    own[~own.any(axis=1), -1] = True  # equal vectors may crowd out the point itself: then its last neighbour goes
    rows = np.arange(len(points))[:, None]
    squared, at = squared[~own].reshape(-1, k), at[~own].reshape(-1, k)
    order = np.lexsort((at, squared), axis=1)
    return np.sqrt(np.maximum(squared[rows, order], 0)), at[rows, order].astype(np.int64)


def _searcher(points: Float[np.ndarray, "N D"], exact_up_to: int = EXACT_UP_TO) -> Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]:
    """A function (queries, k) -> squared distances and positions among `points`."""
    import torch

    try:
        import faiss
    except ImportError:
        return lambda queries, k: _search_by_torch(points, queries, k)
    faiss.omp_set_num_threads(torch.get_num_threads())
    dimension = points.shape[1]
    if len(points) <= exact_up_to:
        index: Any = faiss.IndexFlatL2(dimension)
    else:
        n_lists = int(min(1024, len(points) // 39))
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(dimension), dimension, n_lists, faiss.METRIC_L2)
        index.nprobe = N_PROBE
        index.train(points[np.random.default_rng(0).permutation(len(points))[: 64 * n_lists]])
    index.add(points)
    return index.search  # type: ignore[no-any-return]


def _search_by_torch(points: Float[np.ndarray, "N D"], queries: Float[np.ndarray, "Q D"], k: int) -> tuple[np.ndarray, np.ndarray]:
    """Exact search in blocks, on the GPU where there is one."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    every = torch.from_numpy(points).to(device)
    norms = (every * every).sum(1)
    found = []
    for block in torch.from_numpy(queries).to(device).split(1024):
        squared = (block * block).sum(1, keepdim=True) + norms - 2 * block @ every.T
        found.append([part.cpu() for part in squared.topk(k, dim=1, largest=False)])
    return torch.cat([f[0] for f in found]).numpy(), torch.cat([f[1] for f in found]).numpy()


def matches(base: Float[np.ndarray, "N D"], queries: list[Float[np.ndarray, "N D"]], k: int) -> list[Int[np.ndarray, "N k"]]:
    """For every view (N, D) of the rows, the `k` nearest rows of `base` other than the row itself, -1 where there are fewer.

    Searched with inverted lists above 20,000 rows: recall matters little here, since a partner is met from several views.
    """
    n = len(base)
    search = _searcher(np.ascontiguousarray(base, dtype=np.float32), exact_up_to=20_000)
    own, found = np.arange(n)[:, None], []
    for view in queries:
        squared, at = search(np.ascontiguousarray(view, dtype=np.float32), min(k + 1, n))
        squared = np.where((at == own) | (at < 0), np.inf, squared)
        best = np.lexsort((at, squared), axis=1)[:, :k]
        found.append(np.where(np.isfinite(squared[own, best]), at[own, best], -1))
    return found


def kmeans(vectors: Float[np.ndarray, "N D"], k: int, rng: np.random.Generator, *, n_rounds: int = 10) -> Float[np.ndarray, "K D"]:
    """At most `k` centroids after `n_rounds` of Lloyd's iteration, in float32; starts from vectors that `rng` draws.

    Learns from at most PER_CENTROID vectors a centroid, drawn by `rng`. A centroid that no vector is nearest to vanishes, so that fewer than
    `k` come back where there are fewer different vectors.
    """
    n = len(vectors)
    drawn = vectors if n <= PER_CENTROID * k else vectors[np.sort(rng.choice(n, PER_CENTROID * k, replace=False))]
    points = np.asarray(drawn, dtype=np.float32)
    centroids = points[np.sort(rng.choice(len(points), min(k, len(points)), replace=False))]
    for _ in range(n_rounds):
        centroids = means_of(points, assign(points, centroids))
    return centroids


def assign(vectors: Float[np.ndarray, "N D"], centroids: Float[np.ndarray, "K D"]) -> Int[np.ndarray, "N"]:
    """The number of the nearest centroid of each vector, ties to the smaller one. Block by block, so that a memory map stays on disk."""
    middle = centroids.mean(axis=0)
    moved = centroids - middle  # near the origin, where float32 is finest
    half = np.einsum("kd,kd->k", moved, moved) / 2
    found = np.empty(len(vectors), dtype=np.int64)
    for start in range(0, len(vectors), BLOCK):
        block = np.asarray(vectors[start : start + BLOCK], dtype=np.float32) - middle
        found[start : start + BLOCK] = (block @ moved.T - half).argmax(axis=1)
    return found


def means_of(vectors: Float[np.ndarray, "N D"], group: Int[np.ndarray, "N"]) -> Float[np.ndarray, "G D"]:
    """The mean vector of every group that has a member, in float32, groups by number; summed in float64, block by block."""
    sums, sizes = np.zeros((group.max() + 1, vectors.shape[1])), np.bincount(group)
    for start in range(0, len(vectors), BLOCK):
        mine = group[start : start + BLOCK]
        order = np.argsort(mine, kind="stable")
        first = np.flatnonzero(np.diff(mine[order], prepend=-1))
        sums[mine[order][first]] += np.add.reduceat(np.asarray(vectors[start : start + BLOCK], dtype=np.float64)[order], first, axis=0)
    return (sums[sizes > 0] / sizes[sizes > 0, None]).astype(np.float32)


def nearest_of(base: Float[np.ndarray, "N D"], queries: Float[np.ndarray, "Q D"]) -> tuple[Float[np.ndarray, "Q"], Int[np.ndarray, "Q"]]:
    """The nearest of `base` (one or more vectors) to each query: Euclidean distances and positions, ties to the smaller one. Exact, block by block."""
    at = assign(queries, np.asarray(base, dtype=np.float32))
    distances = np.empty(len(queries), dtype=np.float32)
    for start in range(0, len(queries), BLOCK):
        gap = np.asarray(queries[start : start + BLOCK], dtype=np.float32) - base[at[start : start + BLOCK]]
        distances[start : start + BLOCK] = np.sqrt(np.einsum("qd,qd->q", gap, gap))
    return distances, at
