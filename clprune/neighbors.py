"""Nearest neighbours and k-means: the only module that imports faiss.

Up to EXACT_UP_TO vectors each is compared with all others. Above that k-means cuts them into cells of bounded size, and each is compared with those of its own cell and the
N_CELLS nearest ones: what one search costs no longer depends on how many vectors there are. Either way the distances that decide are taken anew from the vectors, in float64 and
in an order of their own, so that the outcome does not depend on threads, blocks or the library. Where faiss is missing, blocks of a torch matrix product and top-k stand in.
k-means and assignment are plain matrix products, which are as fast for few centroids and, unlike faiss's, the same to the last bit
whatever the number of threads.
Torch is imported before faiss, so that both share one OpenMP runtime; index files are never read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from clprune import distributed
from clprune.errors import DataError
from clprune.products import product

EXACT_UP_TO = 100_000  # vectors: an exact self-join of 100,000 x 128 takes about half a minute on two cores
LARGEST = 1_000  # vectors a cell: its distances fit the processor's cache
BRANCHES = 128  # cells a cut, so that a cut costs the same for each vector however many there are
N_CELLS = 16  # cells that are searched: recall of the ten nearest 0.967 (8: 0.939, 32: 0.987) on 100,000 vectors, examples/benchmarks/diversity.py
SPARE = 6  # more neighbours than asked for are searched, since float32's rounding may swap those that are about equally far
BLOCK = 16_384  # vectors that are looked at together
CORES = {"AVX2": "Haswell", "AVX512": "SkylakeX"}  # OpenBLAS's names for processors that can do what torch calls so
LARGEST_HALF = float(np.finfo(np.float16).max)
PER_CENTROID = 256  # vectors a centroid that k-means learns from; more no longer move the centroids much


def require_finite(vectors: Float[np.ndarray, "N D"]) -> None:
    """Raises DataError that names the first row with NaN or infinity."""
    bad = [start + np.flatnonzero(~np.isfinite(vectors[start : start + BLOCK]).all(axis=1)) for start in range(0, len(vectors), BLOCK)]
    if count := sum(map(len, bad)):
        first = next(rows[0] for rows in bad if len(rows))
        raise DataError(f"{count} of {len(vectors)} vectors hold NaN or infinity (first: row {first}). Mend the model or the inputs.")


def nearest(vectors: Float[np.ndarray, "N D"], k: int, *, exact_up_to: int = EXACT_UP_TO) -> tuple[Float[np.ndarray, "N k"], Int[np.ndarray, "N k"]]:
    """The `k` nearest other vectors of each vector: Euclidean distances (float64) and positions, nearest first, ties to the smaller position.

    With fewer than k others, k shrinks to N - 1. Vectors may be a memory map; beside the result only blocks of them are held. Raises DataError for NaN or infinity.
    """
    require_finite(vectors)
    n = len(vectors)
    k = min(k, n - 1)
    if k < 1:
        return np.empty((n, 0)), np.empty((n, 0), np.int64)
    first, group = _distinct(vectors)  # equal vectors are searched once, then tie by position: no search orders them by itself
    sizes = np.bincount(group)
    members, starts = np.argsort(group, kind="stable"), np.cumsum(sizes) - sizes
    points = vectors if len(first) == n else vectors[first]
    found = _search(points, _cells(points, exact_up_to), min(k + 1 + SPARE, len(first)))
    distances, at = np.empty((n, k)), np.empty((n, k), dtype=np.int64)
    repeats = min(k + 1, int(sizes.max()))  # of each found vector, more are never needed
    for start in range(0, len(first), BLOCK // 4):
        rows = np.arange(start, min(start + BLOCK // 4, len(first)))
        squared = _squared(points, rows, points, found[rows])
        place = np.arange(repeats)
        those = members[np.minimum(starts[found[rows]][..., None] + place, n - 1)]
        far = np.where((found[rows][..., None] >= 0) & (place < sizes[found[rows]][..., None]), squared[..., None], np.inf)
        those, far = those.reshape(len(rows), -1), far.reshape(len(rows), -1)
        best = np.lexsort((those, far), axis=1)[:, : k + 1]
        line = np.arange(len(rows))[:, None]
        those, far = those[line, best], far[line, best]
        mine = members[starts[rows[0]] : starts[rows[-1]] + sizes[rows[-1]]]  # of all these groups
        line = group[mine] - rows[0]
        own = those[line] == mine[:, None]
        own[~own.any(axis=1), -1] = True  # equal vectors may crowd out the vector itself: then its last neighbour goes
        at[mine], distances[mine] = those[line][~own].reshape(-1, k), np.sqrt(far[line][~own]).reshape(-1, k)
    return distances, at


def matcher(
    base: Float[np.ndarray, "N D"], k: int, *, same: bool = True, exact_up_to: int = 20_000
) -> Callable[[Float[np.ndarray, "M D"]], Int[np.ndarray, "M k"]]:
    """A function that gives, for a view (M, D), the `k` nearest rows of `base`, -1 where there are fewer; if `same`, views show the rows of `base`, and a row is not matched to itself.

    Searched by cells above `exact_up_to` rows: recall matters little here, since a partner is met from several views. One call is the work of one thread; several may run at once.
    """
    cells = _cells(base, exact_up_to, n_near=4)

    def match(view: Float[np.ndarray, "M D"]) -> Int[np.ndarray, "M k"]:
        at = _search(base, cells, min(k + same + SPARE, len(base)), view, n_threads=1)
        if same:
            at = np.where(at == np.arange(len(base))[:, None], -1, at)
        best = np.full((len(view), k), -1, dtype=np.int64)
        for start in range(0, len(view), BLOCK):
            rows = np.arange(start, min(start + BLOCK, len(view)))
            order = np.lexsort((at[rows], _squared(view, rows, base, at[rows])), axis=1)[:, :k]
            best[rows, : order.shape[1]] = at[rows[:, None], order]
        return best

    return match


@dataclass(frozen=True)
class _Cells:
    """Vectors cut into cells."""

    rows: list[Int[np.ndarray, "m"]]  # of each cell, ascending
    centroids: Float[np.ndarray, "L D"]
    near: Int[np.ndarray, "L P"]  # the nearest cells of each, itself first


def _cells(points: Float[np.ndarray, "N D"], exact_up_to: int, *, n_near: int | None = None) -> _Cells:
    """One cell of all up to `exact_up_to` vectors; of each cell the `n_near` (N_CELLS) nearest are searched."""
    n = len(points)
    rows = [np.arange(n)] if n <= exact_up_to else clusters(points, np.arange(n), np.random.default_rng(0))
    of = np.empty(n, dtype=np.int64)
    for number, mine in enumerate(rows):
        of[mine] = number
    centroids = means_of(points, of)
    near = np.empty((len(rows), min(n_near or N_CELLS, len(rows))), dtype=np.int64)
    for start in range(0, len(rows), 1024):
        part = slice(start, start + 1024)
        squared = ((centroids[part] ** 2).sum(axis=1)[:, None] - 2 * product(centroids[part], centroids.T)) + (centroids**2).sum(axis=1)
        own = np.arange(len(rows))[part]
        squared[np.arange(len(own)), own] = -np.inf
        near[part] = np.argsort(squared, axis=1, kind="stable")[:, : near.shape[1]]
    return _Cells(rows, centroids, near)


def _search(
    points: Float[np.ndarray, "N D"], cells: _Cells, k: int, queries: Float[np.ndarray, "M D"] | None = None, *, n_threads: int | None = None
) -> Int[np.ndarray, "M k"]:
    """About the `k` nearest of `points` for each of `queries` (by default the points themselves), in no particular order, -1 where the cells hold fewer."""
    if queries is None:
        queries, groups = points, cells.rows
    else:
        of = assign(queries, cells.centroids)
        groups = np.split(np.argsort(of, kind="stable"), np.cumsum(np.bincount(of, minlength=len(cells.rows)))[:-1])
    found = np.full((len(queries), k), -1, dtype=np.int64)
    for number, mine in enumerate(groups):
        if not len(mine):
            continue
        rows = cells.rows[0] if len(cells.rows) == 1 else np.sort(np.concatenate([cells.rows[c] for c in cells.near[number]]))
        centre = cells.centroids[number]  # near the origin, where float32 is finest
        base = np.asarray(points[rows], dtype=np.float32) - centre
        width = min(k, len(rows))
        for start in range(0, len(mine), BLOCK):
            part = mine[start : start + BLOCK]
            found[part, :width] = rows[_top(base, np.asarray(queries[part], dtype=np.float32) - centre, width, n_threads)]
    return found


def _top(base: Float[np.ndarray, "N D"], queries: Float[np.ndarray, "M D"], k: int, n_threads: int | None) -> Int[np.ndarray, "M k"]:
    """Positions in `base` of the `k` nearest, compared with all, in float32, by so many threads (None: torch's)."""
    import torch

    try:
        faiss = _faiss()
    except ImportError:
        return _top_by_torch(base, queries, k)
    faiss.omp_set_num_threads(n_threads or torch.get_num_threads())
    return faiss.knn(np.ascontiguousarray(queries), np.ascontiguousarray(base), k)[1]  # type: ignore[no-any-return]


def _faiss() -> Any:
    """faiss, told what the processor can do: the OpenBLAS of its wheels (0.3.15) takes newer ones than itself for the oldest, and then searches three times as long. Raises ImportError."""
    import torch

    known = CORES.get(torch.backends.cpu.get_cpu_capability())
    if "faiss" in sys.modules or known is None or "OPENBLAS_CORETYPE" in os.environ:
        import faiss
    else:
        os.environ["OPENBLAS_CORETYPE"] = known  # read when the library is loaded, and no longer
        try:
            import faiss
        finally:
            os.environ.pop("OPENBLAS_CORETYPE", None)
    return faiss


def _top_by_torch(base: Float[np.ndarray, "N D"], queries: Float[np.ndarray, "M D"], k: int) -> Int[np.ndarray, "M k"]:
    """The same in blocks of a matrix product, on the GPU where there is one."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    every = torch.from_numpy(base).to(device)
    half = (every * every).sum(1) / 2
    parts = torch.from_numpy(queries).to(device).split(1024)
    return torch.cat([(half - part @ every.T).topk(k, dim=1, largest=False).indices.cpu() for part in parts]).numpy()


def _squared(
    queries: Float[np.ndarray, "M D"], rows: Int[np.ndarray, "m"], base: Float[np.ndarray, "N D"], at: Int[np.ndarray, "m k"]
) -> Float[np.ndarray, "m k"]:
    """Squared distances of `queries[rows]` to `base[at]`, one pair after the other in float64; infinite where `at` is -1."""
    asked, squared = np.asarray(queries[rows], dtype=np.float64), np.empty(at.shape)
    for column in range(at.shape[1]):
        away = asked - base[at[:, column]]
        squared[:, column] = np.einsum("nd,nd->n", away, away)
    squared[at < 0] = np.inf
    return squared


def _distinct(vectors: Float[np.ndarray, "N D"]) -> tuple[Int[np.ndarray, "G"], Int[np.ndarray, "N"]]:
    """The first position of each different vector, ascending, and which of these each vector equals; by a 64-bit key of its bits, checked."""
    multipliers = np.random.default_rng(0).integers(1, 2**63, vectors.shape[1], dtype=np.uint64) * 2 + 1
    keys = np.empty(len(vectors), dtype=np.uint64)
    for start in range(0, len(vectors), BLOCK):
        block = np.asarray(vectors[start : start + BLOCK], dtype=np.float32) + np.float32(0)  # -0 is 0
        bits = np.ascontiguousarray(block).view(np.uint32).astype(np.uint64)
        keys[start : start + BLOCK] = ((bits ^ (bits >> np.uint64(7))) * multipliers).sum(axis=1)
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    first, group = first[order], place[group]
    repeats = np.flatnonzero(first[group] != np.arange(len(vectors)))
    for part in np.array_split(repeats, -(-len(repeats) // BLOCK) or 1):
        assert (vectors[part] == vectors[first[group[part]]]).all(), "two vectors share a key"
    return first, group


def clusters(vectors: Float[np.ndarray, "N D"], rows: Int[np.ndarray, "M"], rng: np.random.Generator) -> list[Int[np.ndarray, "m"]]:
    """Cut `rows` (ascending) into clusters of at most LARGEST, each ascending. Equal vectors, which no k-means can part, are cut by position."""
    done, waiting = [], [rows]
    while waiting:
        mine = waiting.pop()
        if len(mine) <= LARGEST:
            done.append(mine)
            continue
        points = vectors if len(mine) == len(vectors) else vectors[mine]
        k = min(BRANCHES, -(-2 * len(mine) // LARGEST))
        at = assign(points, kmeans(points, k, rng))
        sizes = np.bincount(at)
        if sizes.max() > 0.9 * len(mine):
            waiting += [part for c in np.flatnonzero(sizes) for part in np.array_split(mine[at == c], -(-sizes[c] // LARGEST))]
        else:
            parts = np.split(mine[np.argsort(at, kind="stable")], np.cumsum(sizes)[:-1])
            waiting += [part for part in parts if len(part)]
    return done


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

    def of_block(start: int) -> Int[np.ndarray, "m"]:
        block = np.asarray(vectors[start : start + BLOCK], dtype=np.float32) - middle
        return (product(block, moved.T) - half).argmax(axis=1)

    return np.concatenate(distributed.share_out(range(0, max(len(vectors), 1), BLOCK), of_block))


def means_of(vectors: Float[np.ndarray, "N D"], group: Int[np.ndarray, "N"]) -> Float[np.ndarray, "G D"]:
    """The mean vector of every group that has a member, in float32, groups by number; summed in float64, block by block."""
    sums, sizes = np.zeros((group.max() + 1, vectors.shape[1])), np.bincount(group)
    for start in range(0, len(vectors), BLOCK):
        mine = group[start : start + BLOCK]
        order = np.argsort(mine, kind="stable")
        first = np.flatnonzero(np.diff(mine[order], prepend=-1))
        sums[mine[order][first]] += np.add.reduceat(np.asarray(vectors[start : start + BLOCK], dtype=np.float64)[order], first, axis=0)
    return (sums[sizes > 0] / sizes[sizes > 0, None]).astype(np.float32)


def unit_rows(vectors: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """The vectors in float32, each of length 1; zeros stay."""
    wide = np.asarray(vectors, dtype=np.float32)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-6)


def in_half(vectors: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """The vectors in half precision; what is beyond it is brought to its largest number."""
    return np.clip(vectors, -LARGEST_HALF, LARGEST_HALF).astype(np.float16)


def nearest_of(base: Float[np.ndarray, "N D"], queries: Float[np.ndarray, "Q D"]) -> tuple[Float[np.ndarray, "Q"], Int[np.ndarray, "Q"]]:
    """The nearest of `base` (one or more vectors) to each query: Euclidean distances and positions, ties to the smaller one. Exact, block by block."""
    at = assign(queries, np.asarray(base, dtype=np.float32))
    distances = np.empty(len(queries), dtype=np.float32)
    for start in range(0, len(queries), BLOCK):
        gap = np.asarray(queries[start : start + BLOCK], dtype=np.float32) - base[at[start : start + BLOCK]]
        distances[start : start + BLOCK] = np.sqrt(np.einsum("qd,qd->q", gap, gap))
    return distances, at
