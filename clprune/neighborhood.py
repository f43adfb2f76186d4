"""What nearness says of each sample: which one it nearly repeats, and how much its label is suspected to be wrong."""

from __future__ import annotations

import hashlib

import numpy as np
from jaxtyping import Float, Int, UInt8

from clprune.datatypes import Neighborhood
from clprune.discriminant import held_out_posterior, rows_at_once
from clprune.neighbors import matcher, nearest, unit_rows
from clprune.products import by_threads
from clprune.storage import remembered
from clprune.suspects import for_rare

SHIFT = 2  # pixels: how far a near-duplicate may be moved
POOL = 4  # pixels: candidates are searched on images made so much smaller, where one pixel hardly matters
N_CANDIDATES = 2  # partners a view that are compared pixel by pixel
N_NEIGHBORS = 10
RANK = 12  # the partner whose distance says how crowded a place is; larger groups of near-duplicates hide each other
# Ranks that tell how many dimensions images spread over, and the third quartile of the k-th smallest of RANK - 1 uniform numbers.
TOLD_BY = {1: 0.11840875, 2: 0.22662750, 4: 0.42047103, 8: 0.76359744}
LOOK_AGAIN, MOST_LOOKS = 0.1, 3  # a share of images that were found to repeat others, from which on those that are left are looked at again
PARTS = 8  # of a set, to see whether it holds groups so large that they hide themselves
CHANCE = 1000  # samples, of which one may be flagged by chance
COMPARISON = 2  # raised when images are compared in another way, so that what was found before is not used
REMEMBERED_FROM = 5_000  # images: fewer are compared in a second or two
AT_ONCE = 4_096  # images that one thread looks at together
GRAY_AT_ONCE = 256  # images in colour
REST = 0.5  # of what a label's probability leaves, for the best of several other classes: so it doubts about as many right labels as predicted classes do (6,000 images of two sets)
MIN_PAIRS = 20  # a class with fewer distances uses those of all classes


def find_neighborhood(
    sample_ids: np.ndarray,
    labels: Int[np.ndarray, "N"],
    p_label: Float[np.ndarray, "E N"] | None,
    predicted: Float[np.ndarray, "E N"] | None,
    *,
    vectors: Float[np.ndarray, "N D"] | None,
    images: UInt8[np.ndarray, "N H W C"] | None,
    words: Int[np.ndarray, "N 4"] | None = None,
) -> Neighborhood:
    """Near-duplicates from the images, suspected labels from early dynamics and the labels of neighbours in `vectors`.

    Of texts those with equal digests of their `words` are duplicates, without images and texts those with equal vectors; without vectors suspicion rests on the dynamics alone, without dynamics (a task that
    logs losses which are no cross-entropy) on the neighbours, and without both it is 0 and `facts["suspicion"]` says that it is not known. NaN (unseen) is left out of
    means. Of samples that repeat each other the least suspect one stays, ties to the smaller id.
    """
    order = np.argsort(sample_ids, kind="stable")  # everything below works in the order of ids, so that row order has no influence
    n = len(order)
    known = p_label is not None or (vectors is not None and len(np.unique(labels)) > 1)
    dynamics = None if p_label is None else (p_label[:, order], None if predicted is None else predicted[:, order])
    suspicion, suggested = _suspicion(labels[order], dynamics, vectors, order) if known else (np.zeros(n), labels[order])
    threshold: dict[str, float] = {}
    if images is not None:
        keeper, gap, threshold = _groups_of_images(images, labels, order, suspicion)
    else:
        compared = words if words is not None else np.asarray(vectors) if vectors is not None else np.arange(n)[:, None]
        keeper, gap = _groups_of_equal(_equal_rows(compared[order]), suspicion)
    duplicate_of, duplicate_distance = np.full(n, -1, dtype=np.int64), np.full(n, np.nan)
    repeated = keeper != np.arange(n)
    duplicate_of[order[repeated]] = order[keeper[repeated]]
    duplicate_distance[order[repeated]] = gap[repeated]
    back = np.empty(n, dtype=np.int64)
    back[order] = np.arange(n)
    differing = int((labels[duplicate_of[duplicate_of >= 0]] != labels[duplicate_of >= 0]).sum())
    facts: dict[str, object] = {"duplicate_thresholds": threshold, "n_duplicates": int(repeated.sum()), "n_duplicates_with_another_label": differing}
    if not known:
        facts["suspicion"] = "not known: it needs labels of two classes or more, and class logits, losses that may be cross-entropy, or embeddings"
    return Neighborhood(duplicate_of, duplicate_distance, suspicion[back], suggested[back], facts)


def _suspicion(
    labels: Int[np.ndarray, "N"],
    dynamics: tuple[np.ndarray, np.ndarray | None] | None,
    vectors: Float[np.ndarray, "N D"] | None,
    order: Int[np.ndarray, "N"],
) -> tuple[Float[np.ndarray, "N"], Int[np.ndarray, "N"]]:
    """Support for another class against support for the label, in [0, 1]. `vectors` are read in `order`.

    Support of a sample for a class is the mean of up to three opinions: the share of epochs in which the model predicted the class (for the label: its
    mean probability; where only that is known, REST of what is left is for the other class, whichever that is), the share of nearest neighbours that carry it, and its probability under a linear discriminant on the vectors that was fitted without the
    sample. The support for the label counts `for_rare` times against a larger class. The suggested label is the class with the largest support.
    """
    predicted = None if dynamics is None else dynamics[1]
    n, n_classes = len(labels), int(max(labels.max(), 0 if predicted is None else np.nanmax(predicted))) + 1
    near, posterior = None, None
    if vectors is not None and n > 2:
        _, at = nearest(unit_rows(vectors[order]), N_NEIGHBORS)
        near = labels[at]
        if len(np.unique(labels)) > 1:
            posterior = held_out_posterior(labels, vectors, order, n_classes)
    own, other, suggested = np.empty(n), np.empty(n), np.empty(n, dtype=np.int64)
    size, sizes = rows_at_once(n_classes), np.bincount(labels, minlength=n_classes)
    for part in (np.arange(start, min(start + size, n)) for start in range(0, n, size)):
        rows, support, rest = np.arange(len(part)), np.zeros((len(part), n_classes)), 0.0
        if predicted is not None:
            support += _shares(predicted[:, part].T, n_classes)
        if dynamics is not None:
            support[rows, labels[part]] = p_label = np.nanmean(dynamics[0][:, part], axis=0)
            rest = REST * (1 - p_label) if predicted is None else 0.0
        if near is not None:
            support += _shares(near[part], n_classes)
        if posterior is not None:
            support += posterior(part)
        own[part], suggested[part] = support[rows, labels[part]], support.argmax(axis=1)
        support[rows, labels[part]] = 0
        other[part] = support.max(axis=1) + rest
        own[part] *= for_rare(labels[part], np.where(support.any(axis=1), support.argmax(axis=1), labels[part]), sizes)
    return other / np.maximum(other + own, 1e-9), suggested


def _shares(votes: Float[np.ndarray, "m K"] | Int[np.ndarray, "m K"], n_classes: int) -> Float[np.ndarray, "m C"]:
    """Which share of the votes of each row is for each class; NaN is no vote."""
    cast = ~np.isnan(votes)
    rows = np.broadcast_to(np.arange(len(votes))[:, None], votes.shape)[cast]
    counts = np.bincount(rows * n_classes + votes[cast].astype(np.int64), minlength=len(votes) * n_classes).reshape(len(votes), n_classes)
    return counts / cast.sum(axis=1, keepdims=True)


def images_nearly_equal(
    images: UInt8[np.ndarray, "N H W C"] | Int[np.ndarray, "N L"], labels: Int[np.ndarray, "N"]
) -> tuple[Int[np.ndarray, "Q 2"], Int[np.ndarray, "P 2"], Float[np.ndarray, "P"]]:
    """(first, later) row of equal inputs; pairs of rows that show nearly the same, of equal ones only the first, and their distances. Texts are only compared for equality."""
    order = np.arange(len(images))
    equal = _equal_rows_of_images(images, order)
    alone = np.delete(order, equal[:, 1])
    pairs, distances, _ = _near_pairs(images, labels, order, alone) if images.ndim == 4 else (equal[:0], np.zeros(0), {})
    return equal, pairs, distances


def _groups_of_images(
    images: UInt8[np.ndarray, "N H W C"], labels: Int[np.ndarray, "N"], order: Int[np.ndarray, "N"], suspicion: Float[np.ndarray, "N"]
) -> tuple[Int[np.ndarray, "N"], Float[np.ndarray, "N"], dict[str, float]]:
    """For each position (in the order of ids) the one that stands for its group, its distance to its nearest partner, and the thresholds of the first look.

    Many near-duplicates hide each other: where a look finds many, what is left is looked at again. Where it finds few, one part of PARTS, in which less of each group lies, shows whether groups are
    so large that nothing but themselves is near; then the parts are looked at one after the other, each with the keepers of those before.
    """
    equal = _equal_rows_of_images(images, order)
    keeper, gap = _groups_of_equal(equal, suspicion)
    threshold: dict[str, float] = {}

    def look(alone: Int[np.ndarray, "A"]) -> float:
        """Join what is near among these positions; which share of them that was."""
        nonlocal keeper, gap, threshold
        pairs, distances, found = _near_pairs(images, labels, order, alone)
        before = int((keeper == np.arange(len(keeper))).sum())
        keeper, gap = _joined(keeper, gap, keeper[pairs], distances, suspicion)
        threshold = threshold or found
        return (before - int((keeper == np.arange(len(keeper))).sum())) / max(1, len(alone))

    alone = np.delete(np.arange(len(order)), equal[:, 1])  # not the keepers: so the images alone decide what is compared
    many = look(alone) >= LOOK_AGAIN
    if not many:
        parts = [np.sort(part) for part in np.array_split(np.random.default_rng(0).permutation(alone), PARTS)]
        many = len(_near_pairs(images, labels, order, parts[0])[0]) >= LOOK_AGAIN * len(parts[0])
        for number in range(PARTS) if many else ():
            look(_keepers(keeper, np.concatenate(parts[: number + 1])))
    for _ in range(MOST_LOOKS) if many else ():
        if look(_keepers(keeper, alone)) < LOOK_AGAIN:
            break
    return keeper, gap, threshold


def _keepers(keeper: Int[np.ndarray, "N"], of: Int[np.ndarray, "A"]) -> Int[np.ndarray, "K"]:
    """The positions that stand for those of `of`, ascending."""
    return np.unique(keeper[of])


def _near_pairs(
    images: UInt8[np.ndarray, "N H W C"], labels: Int[np.ndarray, "N"], order: Int[np.ndarray, "N"], alone: Int[np.ndarray, "A"]
) -> tuple[Int[np.ndarray, "P 2"], Float[np.ndarray, "P"], dict[str, float]]:
    """Pairs among the positions `alone` (in the order of ids) that show nearly the same, their distances, and the threshold found for each class.

    The nearest images under shifts of up to SHIFT pixels and mirroring are found on small versions and compared pixel by pixel: the distance is sqrt(1 - r^2), r the best correlation.
    A pair is near where, seen from both, its distance is so small a share of that to the RANK-th nearest as chance would bring about in one of CHANCE samples: the threshold of the class.
    So images in a crowd of similar ones have to be nearer than those that stand alone.
    """
    gray = _gray(images, order[alone])
    if min(gray.shape[1:]) < 2 * POOL + 2 * SHIFT or len(alone) <= RANK:
        return np.zeros((0, 2), dtype=np.int64), np.zeros(0), {}
    pairs, distances = _compared_once(gray)
    *nearer, usual = _at_ranks(pairs, distances, len(alone), (*TOLD_BY, RANK))
    classes, known = labels[order[alone]], np.isfinite(usual)
    ratio = np.stack(nearer, axis=1)[known] / np.maximum(usual[known, None], 1e-9)
    thresholds = np.full(int(classes.max()) + 1, _threshold(ratio))
    for c in range(len(thresholds)):
        if (mine := classes[known] == c).sum() >= MIN_PAIRS:
            thresholds[c] = _threshold(ratio[mine])
    limit = thresholds[classes] * np.where(known, usual, 0)
    near = distances <= np.minimum(limit[pairs[:, 0]], limit[pairs[:, 1]])
    return alone[pairs[near]], distances[near], {str(c): float(threshold) for c, threshold in enumerate(thresholds)}


def _gray(images: UInt8[np.ndarray, "N H W C"], rows: Int[np.ndarray, "A"]) -> Float[np.ndarray, "A H W"]:
    """The mean over the channels of the images of `rows`, block by block; added up one channel after the other, four times as fast as numpy's mean over the few of each pixel."""
    gray = np.empty((len(rows), *images.shape[1:3]), dtype=np.float32)
    for start in range(0, len(rows), GRAY_AT_ONCE):
        block = images[rows[start : start + GRAY_AT_ONCE]]
        total = block[..., 0].astype(np.uint32)
        for channel in range(1, block.shape[3]):
            total += block[..., channel]
        gray[start : start + GRAY_AT_ONCE] = total / block.shape[3]
    return gray


def _compared_once(gray: Float[np.ndarray, "N H W"]) -> tuple[Int[np.ndarray, "P 2"], Float[np.ndarray, "P"]]:
    """`_compared`, without pairs that are among the RANK nearest of neither image: no later step looks at them.

    It depends on the images alone, so a run with another seed or proxy, or after more samples were labelled, finds it in the cache.
    """

    def make() -> dict[str, np.ndarray]:
        pairs, distances = _compared(gray)
        (usual,) = _at_ranks(pairs, distances, len(gray), (RANK,))
        wanted = distances <= np.maximum(usual[pairs[:, 0]], usual[pairs[:, 1]])
        return {"pairs": pairs[wanted].astype(np.int32), "distances": distances[wanted]}

    if len(gray) < REMEMBERED_FROM:
        held = make()
    else:
        settings = repr((gray.shape, SHIFT, POOL, N_CANDIDATES, RANK, COMPARISON)).encode()
        key = hashlib.blake2b(settings + hashlib.blake2b(np.ascontiguousarray(gray).data).digest(), digest_size=16).hexdigest()
        held = remembered("near-pairs", key, make)
    return held["pairs"].astype(np.int64), held["distances"]


def _at_ranks(pairs: Int[np.ndarray, "P 2"], distances: Float[np.ndarray, "P"], n: int, ranks: tuple[int, ...]) -> list[Float[np.ndarray, "N"]]:
    """For each of the `ranks` (1: the smallest) that distance of each position to its partners, infinite where it has fewer."""
    owner, both = pairs.T.ravel(), np.concatenate([distances, distances])
    in_order = np.lexsort((both, owner))
    start = np.searchsorted(owner[in_order], np.arange(n))
    count = np.searchsorted(owner[in_order], np.arange(n), "right") - start
    return [np.where(count >= rank, both[in_order[np.minimum(start + rank - 1, len(both) - 1)]], np.inf) for rank in ranks]


def _threshold(ratio: Float[np.ndarray, "M T"]) -> float:
    """The ratio of the nearest to the RANK-th nearest distance that chance stays below once in CHANCE times; 0 where there is too little to tell. Columns are the ratios of the ranks TOLD_BY.

    Where points lie evenly in m dimensions, the ratio of the k-th, to the power m, is the k-th smallest of RANK - 1 uniform numbers (Facco et al., 2017, arXiv:1803.06992, for k = 1 and RANK 2).
    m is found from the third quartile of the ratios. Where most images have near-duplicates these make it too small, never too large, but only at ranks that they reach: so the largest m of those ranks counts.
    """
    if len(ratio) < MIN_PAIRS:
        return 0.0
    high = np.clip(np.quantile(ratio, 0.75, axis=0), 1e-6, 1 - 1e-6)
    dimension = max(np.log(usual) / np.log(found) for usual, found in zip(TOLD_BY.values(), high, strict=True))
    return float((1 - (1 - 1 / CHANCE) ** (1 / (RANK - 1))) ** (1 / dimension))


def _views() -> list[tuple[bool, int, int]]:
    """Mirroring and shift under which partners are searched: half of all, since the partner's own search covers the others."""
    moves = [(dy, dx) for dy in range(-SHIFT, SHIFT + 1) for dx in range(-SHIFT, SHIFT + 1)]
    return [(False, dy, dx) for dy, dx in moves if (dy, dx) >= (0, 0)] + [(True, dy, dx) for dy, dx in moves if dy >= 0]


def _seen(images: Float[np.ndarray, "N H W"], view: tuple[bool, int, int]) -> Float[np.ndarray, "N h w"]:
    """The images, mirrored and moved, without the SHIFT pixels at the border that a moved copy need not show."""
    mirrored, dy, dx = view
    turned = images[:, :, ::-1] if mirrored else images
    return turned[:, SHIFT + dy : turned.shape[1] - SHIFT + dy, SHIFT + dx : turned.shape[2] - SHIFT + dx]


def _compared(gray: Float[np.ndarray, "N H W"]) -> tuple[Int[np.ndarray, "P 2"], Float[np.ndarray, "P"]]:
    """Likely partners (smaller position first), and sqrt(1 - r^2) of each pair, in [0, 1].

    Partners are the N_CANDIDATES nearest small images under each view; r is the largest correlation of an image under the view with its partner, over the views that found the
    pair. Images are smoothed first: what JPEG and noise change are fine details, what parts two similar things are not.
    """
    n, still = len(gray), (False, 0, 0)
    blocks = [slice(start, start + AT_ONCE) for start in range(0, n, AT_ONCE)]
    smooth: np.ndarray = np.concatenate(by_threads(lambda rows: _smooth(gray[rows]), blocks))
    core: np.ndarray = np.concatenate(by_threads(lambda rows: _standard(_seen(smooth[rows], still)), blocks))
    match = matcher(np.concatenate(by_threads(lambda rows: _small(_seen(smooth[rows], still)), blocks)), N_CANDIDATES)

    def look(view: tuple[bool, int, int]) -> tuple[Int[np.ndarray, "N k"], Float[np.ndarray, "N k"]]:
        at = match(np.concatenate([_small(_seen(smooth[rows], view)) for rows in blocks]))
        r = np.empty(at.shape, dtype=np.float32)
        for rows in blocks:
            moved = _standard(_seen(smooth[rows], view))
            for place in range(at.shape[1]):
                r[rows, place] = np.einsum("nd,nd->n", moved, core[at[rows, place]])
        return at, r

    partners, found = zip(*by_threads(look, _views()), strict=True)
    owners = np.concatenate([np.repeat(np.arange(n), at.shape[1]) for at in partners])
    other, best = np.concatenate([at.ravel() for at in partners]), np.concatenate([r.ravel() for r in found])
    pairs, best = np.sort(np.stack([owners, other], axis=1), axis=1)[other >= 0], best[other >= 0]
    order = np.lexsort((-best, pairs[:, 1], pairs[:, 0]))
    pairs, best = pairs[order], best[order]
    new = np.ones(len(pairs), dtype=bool)
    new[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    return pairs[new], np.sqrt(np.clip(1 - best[new].astype(np.float64) ** 2, 0, 1))


def _smooth(gray: Float[np.ndarray, "N H W"]) -> Float[np.ndarray, "N H W"]:
    """Each pixel with its neighbours, weights 1, 2, 1 along both axes; the border is repeated."""
    padded = np.pad(gray, ((0, 0), (1, 1), (1, 1)), mode="edge")
    down = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return (down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]) / 16


def _small(gray: Float[np.ndarray, "N H W"]) -> Float[np.ndarray, "N D"]:
    """Images averaged over POOL x POOL pixels, mean removed, of length 1."""
    n, height, width = gray.shape
    cut = gray[:, : height // POOL * POOL, : width // POOL * POOL]
    low = np.add.reduce([cut[:, place::POOL] for place in range(POOL)])  # numpy's mean over axes of a few numbers takes three times as long
    small = (np.add.reduce([low[:, :, place::POOL] for place in range(POOL)]) / POOL**2).reshape(n, -1)
    return unit_rows(small - small.mean(axis=1, keepdims=True))


def _standard(images: Float[np.ndarray, "N h w"]) -> Float[np.ndarray, "N D"]:
    flat = images.reshape(len(images), -1)
    return unit_rows(flat - flat.mean(axis=1, keepdims=True))


def _equal_rows_of_images(images: UInt8[np.ndarray, "N H W C"] | Int[np.ndarray, "N L"], order: Int[np.ndarray, "N"]) -> Int[np.ndarray, "P 2"]:
    return _equal([hashlib.blake2b(np.ascontiguousarray(images[row]).data, digest_size=16).digest() for row in order])


def _equal_rows(rows: np.ndarray) -> Int[np.ndarray, "P 2"]:
    return _equal([row.tobytes() for row in np.ascontiguousarray(rows)])


def _equal(keys: list[bytes]) -> Int[np.ndarray, "P 2"]:
    """(first position, later position) for every key that occurred before."""
    first: dict[bytes, int] = {}
    pairs = [(first[key], at) for at, key in enumerate(keys) if first.setdefault(key, at) != at]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _groups_of_equal(equal: Int[np.ndarray, "Q 2"], suspicion: Float[np.ndarray, "N"]) -> tuple[Int[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    """For each position the one that stands for its group (itself where it repeats none), and its distance to it (NaN for itself): of equal samples, (first, later) in `equal`, the least suspect."""
    n = len(suspicion)
    keeper, gap = np.arange(n), np.full(n, np.nan)
    members: dict[int, list[int]] = {}
    for first, later in equal.tolist():
        members.setdefault(first, [first]).append(later)
    for group in members.values():
        leader = min(group, key=lambda row: (suspicion[row], row))
        keeper[group], gap[[row for row in group if row != leader]] = leader, 0.0
    return keeper, gap


def _joined(
    keeper: Int[np.ndarray, "N"],
    gap: Float[np.ndarray, "N"],
    pairs: Int[np.ndarray, "P 2"],
    distances: Float[np.ndarray, "P"],
    suspicion: Float[np.ndarray, "N"],
) -> tuple[Int[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    """The groups and distances after groups whose keepers are near `pairs` have joined, the nearest first.

    A group only joins another through a pair of their keepers, and one that others have joined joins no other, so that chains of similar images do not grow into one large group.
    """
    keeper, gap, leads = keeper.copy(), gap.copy(), np.zeros(len(keeper), dtype=bool)
    for pair in np.lexsort((pairs[:, 1], pairs[:, 0], distances)):
        a, b = sorted((int(pairs[pair, 0]), int(pairs[pair, 1])), key=lambda row: (not leads[row], suspicion[row], row))
        if keeper[a] == a and keeper[b] == b and not leads[b]:
            keeper[b], gap[b], leads[a] = a, distances[pair], True
    return keeper[keeper], gap
