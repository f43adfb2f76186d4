"""What nearness says of each sample: which one it nearly repeats, and how much its label is suspected to be wrong."""

from __future__ import annotations

import hashlib

import numpy as np
from jaxtyping import Float, Int, UInt8

from clprune.datatypes import Neighborhood
from clprune.neighbors import matches, nearest

N_NEIGHBORS = 10
SUSPECT_ABOVE = 0.8  # suspicion: support for another class is four times that for the label
SHIFT = 2  # pixels: how far a near-duplicate may be moved
POOL = 4  # pixels: candidates are searched on images made so much smaller, where one pixel hardly matters
N_CANDIDATES = 2  # partners a view that are compared pixel by pixel
MIN_PAIRS = 20  # a class with fewer distances uses those of all classes


def find_neighborhood(
    sample_ids: np.ndarray,
    labels: Int[np.ndarray, "N"],
    p_label: Float[np.ndarray, "E N"] | None,
    predicted: Float[np.ndarray, "E N"] | None,
    *,
    vectors: Float[np.ndarray, "N D"] | None,
    images: UInt8[np.ndarray, "N H W C"] | None,
) -> Neighborhood:
    """Near-duplicates from the images, suspected labels from early dynamics and the labels of neighbours in `vectors`.

    Without images only equal vectors count as duplicates; without vectors suspicion rests on the dynamics alone, without dynamics (a task that
    logs losses only) on the neighbours, and without both it is 0 and `facts["suspicion"]` says that it is not known. NaN (unseen) is left out of
    means. Of samples that repeat each other the least suspect one stays, ties to the smaller id.
    """
    order = np.argsort(sample_ids, kind="stable")  # everything below works in the order of ids, so that row order has no influence
    n = len(order)
    unit = _unit_rows(np.asarray(vectors, dtype=np.float32)[order]) if vectors is not None else None
    known = p_label is not None or (unit is not None and len(np.unique(labels)) > 1)
    dynamics = (p_label[:, order], predicted[:, order]) if p_label is not None and predicted is not None else None
    suspicion, suggested = _suspicion(labels[order], dynamics, unit) if known else (np.zeros(n), labels[order])
    if images is not None:
        equal = _equal_rows_of_images(images, order)
        pairs, distances, threshold = _near_pairs(images, labels, order, equal)
    else:
        equal = _equal_rows(np.asarray(vectors)[order] if vectors is not None else np.arange(n)[:, None])
        pairs, distances, threshold = np.zeros((0, 2), dtype=np.int64), np.zeros(0), {}
    keeper, gap = _groups(equal, pairs, distances, suspicion, n)
    duplicate_of, duplicate_distance = np.full(n, -1, dtype=np.int64), np.full(n, np.nan)
    repeated = keeper != np.arange(n)
    duplicate_of[order[repeated]] = order[keeper[repeated]]
    duplicate_distance[order[repeated]] = gap[repeated]
    back = np.empty(n, dtype=np.int64)
    back[order] = np.arange(n)
    differing = int((labels[duplicate_of[duplicate_of >= 0]] != labels[duplicate_of >= 0]).sum())
    facts: dict[str, object] = {"duplicate_thresholds": threshold, "n_duplicates": int(repeated.sum()), "n_duplicates_with_another_label": differing}
    if not known:
        facts["suspicion"] = "not known: it needs class logits, or labels and embeddings"
    return Neighborhood(duplicate_of, duplicate_distance, suspicion[back], suggested[back], facts)


def _suspicion(
    labels: Int[np.ndarray, "N"], dynamics: tuple[np.ndarray, np.ndarray] | None, unit: Float[np.ndarray, "N D"] | None
) -> tuple[Float[np.ndarray, "N"], Int[np.ndarray, "N"]]:
    """Support for another class against support for the label, in [0, 1]; above SUSPECT_ABOVE a label counts as suspect.

    Support of a sample for a class is the mean of two opinions: the share of epochs in which the model predicted the class (for the label: its
    mean probability), and the share of nearest neighbours that carry it. It is divided by the mean support of the samples that carry the class, so
    that classes which are hard as a whole are not suspect as a whole (the idea of confident learning, Northcutt et al., 2021,
    arXiv:1911.00068). The suggested label is the class with the largest support.
    """
    rows = np.arange(len(labels))
    if dynamics is None:
        n_classes = int(labels.max()) + 1
        support = np.zeros((len(labels), n_classes))
    else:
        p_label, predicted = dynamics  # each (E, N)
        n_classes = int(max(labels.max(), np.nanmax(predicted))) + 1
        support = np.stack([np.nanmean(np.where(np.isnan(predicted), np.nan, predicted == c), axis=0) for c in range(n_classes)], axis=1)
        support[rows, labels] = np.nanmean(p_label, axis=0)
    if unit is not None and len(unit) > 2:
        _, at = nearest(unit, N_NEIGHBORS)
        near = labels[at]
        support = (support + np.stack([(near == c).mean(axis=1) for c in range(n_classes)], axis=1)) / 2
    usual = np.array([support[labels == c, c].mean() if (labels == c).any() else 1.0 for c in range(n_classes)])
    support = support / np.maximum(usual, 1e-3)
    own = support[rows, labels].copy()
    suggested = support.argmax(axis=1)
    support[rows, labels] = 0
    other = support.max(axis=1)
    return other / np.maximum(other + own, 1e-9), suggested


def _near_pairs(
    images: UInt8[np.ndarray, "N H W C"], labels: Int[np.ndarray, "N"], order: Int[np.ndarray, "N"], equal: Int[np.ndarray, "Q 2"]
) -> tuple[Int[np.ndarray, "P 2"], Float[np.ndarray, "P"], dict[str, float]]:
    """Pairs of positions (in the order of ids) that show nearly the same, their distances, and the threshold found for each class.

    Of images that are `equal` the first stands for the others; its nearest images under shifts of up to SHIFT pixels and mirroring are
    found on small versions and compared pixel by pixel: the distance is sqrt(1 - r^2), r the best correlation. A pair is near where its
    distance lies below the lower fence of the logarithms of the nearest distances of both classes.
    """
    first = np.ones(len(order), dtype=bool)
    first[equal[:, 1]] = False
    alone = np.flatnonzero(first)
    gray = np.stack([images[row].mean(axis=2) for row in order[alone]]).astype(np.float32)
    if min(gray.shape[1:]) < 2 * POOL + 2 * SHIFT or len(alone) < 3:
        return np.zeros((0, 2), dtype=np.int64), np.zeros(0), {}
    pairs, distances = _compared(gray)
    best = np.full(len(alone), np.inf)
    np.minimum.at(best, pairs[:, 0], distances)
    np.minimum.at(best, pairs[:, 1], distances)
    classes = labels[order[alone]]
    known = np.isfinite(best) & (best > 1e-4)
    everywhere = _lower_fence(best[known])
    fences = np.full(int(classes.max()) + 1, everywhere)
    for c in range(len(fences)):
        if (mine := known & (classes == c)).sum() >= MIN_PAIRS:
            fences[c] = _lower_fence(best[mine])
    near = distances <= np.minimum(fences[classes[pairs[:, 0]]], fences[classes[pairs[:, 1]]])
    return alone[pairs[near]], distances[near], {str(c): float(fence) for c, fence in enumerate(fences)}


def _lower_fence(distances: Float[np.ndarray, "M"]) -> float:
    """Tukey's lower fence of the logarithms, as a distance; 0 where there is too little to tell.

    The lower half is mirrored from the upper one, so that the fence stands where up to half of the samples are near-duplicates: the
    median minus four times what lies between it and the third quartile, which is the first quartile minus 1.5 interquartile ranges of a
    symmetric distribution.
    """
    if len(distances) < MIN_PAIRS:
        return 0.0
    middle, high = np.quantile(np.log(distances), [0.5, 0.75])
    return float(np.exp(middle - 4 * (high - middle)))


def _views() -> list[tuple[bool, int, int]]:
    """Mirroring and shift under which partners are searched: half of all, since the partner's own search covers the others."""
    moves = [(0, 0), (0, SHIFT), (SHIFT, 0), (SHIFT, SHIFT), (SHIFT, -SHIFT)]
    return [(False, dy, dx) for dy, dx in moves] + [(True, dy, dx) for dy, dx in [*moves, (0, -SHIFT)]]


def _compared(gray: Float[np.ndarray, "N H W"]) -> tuple[Int[np.ndarray, "P 2"], Float[np.ndarray, "P"]]:
    """Likely partners (smaller position first), and sqrt(1 - r^2) of each pair, in [0, 1].

    Partners are the N_CANDIDATES nearest small images under each view; r is the best correlation of the partner's core with the image moved
    as in that view, or one pixel more or less.
    """
    n, height, width = len(gray), gray.shape[1] - 2 * SHIFT, gray.shape[2] - 2 * SHIFT
    padded = np.pad(gray, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)), mode="edge")
    views, queries = _views(), []
    for mirrored, dy, dx in views:
        turned = padded[:, :, ::-1] if mirrored else padded
        queries.append(_small(turned[:, SHIFT + dy : SHIFT + dy + gray.shape[1], SHIFT + dx : SHIFT + dx + gray.shape[2]]))
    partners = matches(_small(gray), queries, N_CANDIDATES)  # one (N, k) a view, -1 where there is none
    best = [np.zeros(at.shape, dtype=np.float32) for at in partners]
    core = _standard(gray[:, SHIFT:-SHIFT, SHIFT:-SHIFT])
    for mirrored in (False, True):
        turned = gray[:, :, ::-1] if mirrored else gray
        for dy in range(-SHIFT, SHIFT + 1):
            for dx in range(-SHIFT, SHIFT + 1):
                near = [v for v, view in enumerate(views) if view[0] == mirrored and max(abs(view[1] - dy), abs(view[2] - dx)) <= 1]
                if not near:
                    continue
                moved = _standard(turned[:, SHIFT + dy : SHIFT + dy + height, SHIFT + dx : SHIFT + dx + width])
                for v in near:
                    for place in range(partners[v].shape[1]):
                        for start in range(0, n, 4096):
                            rows = slice(start, start + 4096)
                            r = np.einsum("nd,nd->n", moved[rows], core[partners[v][rows, place]])
                            np.maximum(best[v][rows, place], r, out=best[v][rows, place])
    owners = np.concatenate([np.repeat(np.arange(n), at.shape[1]) for at in partners])
    at, r = np.concatenate([p.ravel() for p in partners]), np.concatenate([b.ravel() for b in best])
    pairs = np.sort(np.stack([owners, at], axis=1), axis=1)[at >= 0]
    order = np.lexsort((-r[at >= 0], pairs[:, 1], pairs[:, 0]))
    pairs, r = pairs[order], r[at >= 0][order]
    new = np.ones(len(pairs), dtype=bool)
    new[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    return pairs[new], np.sqrt(np.clip(1 - r[new].astype(np.float64) ** 2, 0, 1))


def _small(gray: Float[np.ndarray, "N H W"]) -> Float[np.ndarray, "N D"]:
    """Images averaged over POOL x POOL pixels, mean removed, of length 1."""
    n, height, width = gray.shape
    cut = gray[:, : height // POOL * POOL, : width // POOL * POOL]
    small = cut.reshape(n, height // POOL, POOL, width // POOL, POOL).mean(axis=(2, 4)).reshape(n, -1)
    return _unit_rows(small - small.mean(axis=1, keepdims=True))


def _standard(images: Float[np.ndarray, "N h w"]) -> Float[np.ndarray, "N D"]:
    flat = images.reshape(len(images), -1)
    return _unit_rows(flat - flat.mean(axis=1, keepdims=True))


def _unit_rows(rows: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def _equal_rows_of_images(images: UInt8[np.ndarray, "N H W C"], order: Int[np.ndarray, "N"]) -> Int[np.ndarray, "P 2"]:
    return _equal([hashlib.blake2b(np.ascontiguousarray(images[row]).data, digest_size=16).digest() for row in order])


def _equal_rows(rows: np.ndarray) -> Int[np.ndarray, "P 2"]:
    return _equal([row.tobytes() for row in np.ascontiguousarray(rows)])


def _equal(keys: list[bytes]) -> Int[np.ndarray, "P 2"]:
    """(first position, later position) for every key that occurred before."""
    first: dict[bytes, int] = {}
    pairs = [(first[key], at) for at, key in enumerate(keys) if first.setdefault(key, at) != at]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _groups(
    equal: Int[np.ndarray, "Q 2"], pairs: Int[np.ndarray, "P 2"], distances: Float[np.ndarray, "P"], suspicion: Float[np.ndarray, "N"], n: int
) -> tuple[Int[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    """For each position the one that stands for its group (itself where it repeats none), and its distance to its nearest partner.

    Equal samples, (first, later) in `equal`, are one group, which the least suspect of them leads. Of the near pairs the nearest join first. A sample only joins
    a group through a pair with the group's keeper, so that chains of similar images do not grow into one large group.
    """
    keeper, gap, leads = np.arange(n), np.full(n, np.nan), np.zeros(n, dtype=bool)
    members: dict[int, list[int]] = {}
    for first, later in equal.tolist():
        members.setdefault(first, [first]).append(later)
    for group in members.values():
        leader = min(group, key=lambda row: (suspicion[row], row))
        keeper[group], gap[[row for row in group if row != leader]], leads[leader] = leader, 0.0, True
    pairs = keeper[pairs]  # the first of equal samples stood for them in the search
    for pair in np.lexsort((pairs[:, 1], pairs[:, 0], distances)):
        a, b = sorted((int(pairs[pair, 0]), int(pairs[pair, 1])), key=lambda row: (not leads[row], suspicion[row], row))
        if keeper[a] == a and keeper[b] == b and not leads[b]:
            keeper[b], gap[b], leads[a] = a, distances[pair], True
    return keeper, gap
