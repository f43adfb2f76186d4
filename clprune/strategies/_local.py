"""Work on vectors cut into clusters, so that its cost grows with N and not with the square of N; shared by the strategies.

Up to EXACT_UP_TO vectors the greedy algorithms run on all of them together, as published. Above that, k-means cuts the vectors into clusters
of bounded size, the greedy algorithm runs inside each, and the budget goes to the steps of all clusters that it values most: a cluster that
is wide gets more of the budget than a tight one of the same size. Of REMEMBERED_FROM vectors and more, what was found is kept in the cache part by part: a choice that was
interrupted goes on from there, and so does one of another budget, since a small cluster is ordered as a whole.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Float, Int

from clprune.distributed import share_out, shares
from clprune.neighbors import BLOCK, BRANCHES, LARGEST, PER_CENTROID, clusters, kmeans, nearest_of
from clprune.products import product
from clprune.storage import remembered
from clprune.strategies._quota import by_class, proportional_quota

EXACT_UP_TO = 5_000  # vectors: their distances take 100 MB
MOST_CLUSTERS = 4_000  # that lead to one sample or a few each: k-means costs by them
PER_CLUSTER = 5  # samples, at least: in smaller clusters no sample stands for others
REMEMBERED_FROM = 200_000  # vectors that are cut into clusters together: a choice among fewer takes seconds
PART = 16_384  # vectors whose orders are held together: what an interruption can lose, a fraction of a second
RESOLUTION = 1e-6  # of the largest squared length: smaller differences are float32's rounding, and count as ties

Greedy = Callable[[Float[np.ndarray, "M D"], int], tuple[Int[np.ndarray, "K"], Float[np.ndarray, "K"]]]


def greedy_by_cluster(
    greedy: Greedy, vectors: Float[np.ndarray, "N D"], rows: Int[np.ndarray, "M"], n_keep: int, rng: np.random.Generator
) -> Int[np.ndarray, "K"]:
    """The `n_keep` of `rows` (ascending) that `greedy(points, n) -> positions, worth of each step (never rising)` takes, best first.

    Where the first steps of all clusters are worth the same without bound, and there are more clusters than budget, the first ones of all
    clusters are chosen among in the same way.
    """
    return greedy_by_cell(greedy, vectors, [rows], [n_keep], rng)[0]


def greedy_by_cell(
    greedy: Greedy,
    vectors: Float[np.ndarray, "N D"],
    cells: Sequence[Int[np.ndarray, "M"]],
    quotas: Sequence[int],
    rng: np.random.Generator,
) -> list[Int[np.ndarray, "K"]]:
    """`greedy_by_cluster` of each cell with its quota. Of several processes each works on a part of the small cells, and of the clusters of every large one."""
    small = [number for number, rows in enumerate(cells) if len(rows) <= EXACT_UP_TO]
    found = _ordered(greedy, vectors, [cells[number] for number in small], [quotas[number] for number in small])
    paths = {number: path for number, (path, _) in zip(small, found, strict=True)}
    return [paths[number] if number in paths else _of_large(greedy, vectors, rows, quotas[number], rng) for number, rows in enumerate(cells)]


def _of_large(
    greedy: Greedy, vectors: Float[np.ndarray, "N D"], rows: Int[np.ndarray, "M"], n_keep: int, rng: np.random.Generator
) -> Int[np.ndarray, "K"]:
    cut = _cut(vectors, rows, rng)
    found = _ordered(greedy, vectors, cut, [min(len(mine), n_keep) for mine in cut])
    if n_keep < len(found) and all(np.isinf(worth[0]) for _, worth in found):
        return greedy_by_cluster(greedy, vectors, np.sort([path[0] for path, _ in found]), n_keep, rng)
    return np.concatenate([path for path, _ in found])[np.argsort(-np.concatenate([worth for _, worth in found]), kind="stable")[:n_keep]]


def _ordered(
    greedy: Greedy, vectors: Float[np.ndarray, "N D"], groups: Sequence[Int[np.ndarray, "m"]], lengths: Sequence[int]
) -> list[tuple[Int[np.ndarray, "k"], Float[np.ndarray, "k"]]]:
    """The first of each group as `greedy` orders them, and the worth of each step. Of REMEMBERED_FROM vectors and more, whole parts come from the cache where it holds them."""
    large = len(vectors) >= REMEMBERED_FROM
    starts = np.cumsum([len(rows) for rows in groups]) - [len(rows) for rows in groups]
    of_part = starts // PART if large else np.arange(len(groups))

    def order(part: Int[np.ndarray, "g"]) -> list[tuple[Int[np.ndarray, "k"], Float[np.ndarray, "k"]]]:
        points, wanted = [vectors[groups[number]] for number in part], [lengths[number] for number in part]

        def make() -> dict[str, np.ndarray]:
            paths, worths = zip(*map(greedy, points, wanted), strict=True)
            return {"path": np.concatenate(paths).astype(np.int32), "worth": np.concatenate(worths)}

        held = remembered("clusters", _key((greedy.__qualname__, RESOLUTION, wanted), points), make) if large else make()
        ends = np.cumsum(wanted)[:-1]
        paths, worths = np.split(held["path"], ends), np.split(held["worth"], ends)
        return [(groups[number][path], worth) for number, path, worth in zip(part, paths, worths, strict=True)]

    parts = np.split(np.arange(len(groups)), np.flatnonzero(np.diff(of_part)) + 1) if len(groups) else []
    return [one for found in share_out(parts, order) for one in found]


def _cut(vectors: Float[np.ndarray, "N D"], rows: Int[np.ndarray, "M"], rng: np.random.Generator) -> list[Int[np.ndarray, "m"]]:
    """`clusters`, those of many vectors from the cache where it holds them; `rng` is left as after the work."""
    if len(vectors) < REMEMBERED_FROM or shares():  # processes that cut together must all do so
        return clusters(vectors, rows, rng)

    def make() -> dict[str, np.ndarray]:
        cut = clusters(vectors, rows, rng)
        after = np.frombuffer(json.dumps(rng.bit_generator.state).encode(), dtype=np.uint8)
        return {"at": np.searchsorted(rows, np.concatenate(cut)).astype(np.int32), "sizes": np.array([len(mine) for mine in cut]), "rng": after}

    blocks = (vectors[rows[start : start + BLOCK]] for start in range(0, len(rows), BLOCK))
    held = remembered("clusters", _key((rng.bit_generator.state, LARGEST, BRANCHES, PER_CENTROID), blocks), make)
    rng.bit_generator.state = json.loads(held["rng"].tobytes())
    return np.split(rows[held["at"]], np.cumsum(held["sizes"])[:-1])


def _key(settings: object, blocks: Iterable[Float[np.ndarray, "m D"]]) -> str:
    """Digest of vectors and of what else decides what is found among them."""
    digest = hashlib.sha256(repr(settings).encode())  # twice as fast as blake2b where the processor knows it
    for block in blocks:
        digest.update(repr((block.shape, block.dtype)).encode())
        digest.update(np.ascontiguousarray(block).data)
    return digest.hexdigest()[:32]


def led_by(
    vectors: Float[np.ndarray, "N D"],
    duplicate_of: Int[np.ndarray, "N"],
    n_keep: int,
    rng: np.random.Generator,
    *,
    worth: Float[np.ndarray, "N"] | None = None,
) -> Int[np.ndarray, "K"]:
    """k-means with a cluster for each of `n_keep`, as long as clusters hold PER_CLUSTER; each gives by its size, its sample of the highest `worth` (None: the one nearest to its centroid) before others at random.

    The first samples of all clusters come first, near-duplicates last. Ties go to the smaller position.
    """
    alone, last = np.flatnonzero(duplicate_of < 0), np.flatnonzero(duplicate_of >= 0)
    wanted = min(n_keep, len(alone))
    if not len(alone):
        return last[:n_keep]
    points = vectors if len(alone) == len(vectors) else vectors[alone]
    centroids = kmeans(points, max(1, min(wanted, len(alone) // PER_CLUSTER, MOST_CLUSTERS)), rng)
    away, at = nearest_of(centroids, points)
    cost = away.astype(np.float64) ** 2 if worth is None else -worth[alone]
    least = np.full(len(centroids), np.inf)
    np.minimum.at(least, at, cost)
    ties = np.flatnonzero(cost <= least[at] + RESOLUTION * np.ptp(cost))  # the two of a cluster are equally far from its middle, but for rounding
    chance = rng.random(len(alone))
    chance[ties[np.unique(at[ties], return_index=True)[1]]] = -1  # leads
    chosen = by_class(np.argsort(chance, kind="stable"), at, proportional_quota(np.bincount(at), wanted))
    return np.concatenate([alone[chosen], last[: n_keep - wanted]])


def farthest_first(points: Float[np.ndarray, "M D"], n_keep: int) -> tuple[Int[np.ndarray, "K"], Float[np.ndarray, "K"]]:
    """Positions in the order in which each is the farthest from all before it (Gonzalez, 1985), and its squared distance to them.

    The first is the one nearest to the mean, its distance infinite. Ties go to the smaller position; squared distances below RESOLUTION are zero.
    """
    centred = points.astype(np.float32)
    centred -= centred.mean(axis=0)
    length = np.einsum("md,md->m", centred, centred)
    squared = product(centred, centred.T)
    squared *= -2
    squared += length
    squared += length[:, None]
    squared[squared < RESOLUTION * length.max()] = 0
    path, gaps = np.empty(n_keep, dtype=np.int64), np.empty(n_keep, dtype=np.float32)
    path[0], gaps[0] = np.argmax(length <= length.min() + RESOLUTION * length.max()), np.inf  # the first of the nearest ones
    gap = squared[path[0]].copy()
    gap[path[0]] = -1  # taken
    for step in range(1, n_keep):
        at = gap.argmax()
        path[step], gaps[step] = at, gap[at]
        np.minimum(gap, squared[at], out=gap)
        gap[at] = -1
    return path, gaps


def interleaved(paths: list[Int[np.ndarray, "k"]]) -> Int[np.ndarray, "K"]:
    """Several orders as one, so that any first part of it holds about the same share of each; ties to the earlier order."""
    share = np.concatenate([(np.arange(len(path)) + 0.5) / len(path) for path in paths])
    return np.concatenate(paths)[np.argsort(share, kind="stable")]
