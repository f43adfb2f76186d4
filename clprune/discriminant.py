"""A linear discriminant on the vectors, fitted without the samples that it judges: what a label's own weight in a training cannot bend."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from clprune.products import product, solution

N_FOLDS = 5
SHRINKAGE = 0.1  # towards a round covariance, as large on average
SURENESS = np.arange(2, 21) / 20  # exponents: a covariance that does not hold makes a discriminant too sure
AT_RANDOM = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)  # shares of labels that were drawn at random
FITTED_ON = 50_000  # samples, evenly spaced, that exponent and share are found on
BLOCK = 4_096  # samples that are looked at together


def held_out_posterior(
    labels: Int[np.ndarray, "N"], vectors: Float[np.ndarray, "N D"], order: Int[np.ndarray, "N"], n_classes: int
) -> Float[np.ndarray, "N C"]:
    """Probability of each class for each of `vectors[order]`, whose labels are `labels` (at least two different ones), judged by the other folds.

    One mean a class and one covariance of all, which a share of wrong labels hardly moves, unlike a network's own last layer (Lee et al., 2019,
    arXiv:1901.11300). The samples of each class are dealt to N_FOLDS folds in turn. One exponent for all says how sure it is; it is found together with the share of labels that
    look drawn at random, by the likelihood of the held-out labels under both: found alone, wrong labels would make it too unsure of the others. A class that the
    other folds do not hold counts as lying in the middle of all.
    """
    n, width = len(labels), vectors.shape[1]
    turn = np.empty(n, dtype=np.int64)
    for c in np.unique(labels):
        turn[labels == c] = np.arange((labels == c).sum())
    fold, middle = turn % N_FOLDS, np.zeros(width)
    for _, points in _blocks(vectors, order):
        middle += points.sum(axis=0) / n
    counts, sums, squares = np.zeros((N_FOLDS, n_classes)), np.zeros((N_FOLDS, n_classes, width)), np.zeros((N_FOLDS, width, width))
    for part, points in _blocks(vectors, order):
        away = points - middle
        for f in range(N_FOLDS):
            mine, of = away[fold[part] == f], labels[part][fold[part] == f]
            counts[f] += np.bincount(of, minlength=n_classes)
            np.add.at(sums[f], of, mine)
            squares[f] += product(mine.T, mine)
    ways, offsets = np.empty((N_FOLDS, width, n_classes)), np.empty((N_FOLDS, n_classes))
    for f in range(N_FOLDS):
        size, total = counts.sum(axis=0) - counts[f], sums.sum(axis=0) - sums[f]
        means = total / np.maximum(size, 1)[:, None]
        spread = (squares.sum(axis=0) - squares[f] - product(total.T, means)) / max(1, size.sum())
        spread = (1 - SHRINKAGE) * spread + (SHRINKAGE * np.trace(spread) / width + 1e-9) * np.eye(width)
        ways[f] = solution(spread, means.T)
        offsets[f] = np.log((size + 1) / (size.sum() + n_classes)) - np.einsum("cd,dc->c", means, ways[f]) / 2
    told = np.empty((n, n_classes))
    for part, points in _blocks(vectors, order):
        away, mine = points - middle, np.empty((len(part), n_classes))
        for f in range(N_FOLDS):
            here = fold[part] == f
            mine[here] = product(away[here], ways[f]) + offsets[f]
        told[part] = mine - mine.max(axis=1, keepdims=True)
    posterior = np.exp(_sureness(told, labels) * told)
    return posterior / posterior.sum(axis=1, keepdims=True)


def _sureness(told: Float[np.ndarray, "N C"], labels: Int[np.ndarray, "N"]) -> float:
    """The exponent that, with some share of labels drawn at random, makes the labels likeliest; ties to the smaller share, then the smaller exponent."""
    some = np.unique(np.linspace(0, len(labels) - 1, min(len(labels), FITTED_ON)).astype(np.int64))
    told, own = told[some], told[some, labels[some]]
    p_label = [np.exp(sure * own) / np.exp(sure * told).sum(axis=1) for sure in SURENESS]
    fits = [[float(np.log((1 - share) * p + share / told.shape[1] + 1e-300).mean()) for p in p_label] for share in AT_RANDOM]
    return float(SURENESS[int(np.argmax(fits)) % len(SURENESS)])


def _blocks(vectors: Float[np.ndarray, "N D"], order: Int[np.ndarray, "N"]) -> Iterator[tuple[Int[np.ndarray, "M"], Float[np.ndarray, "M D"]]]:
    """Places in `order` and their vectors, some at a time, so that a memory map stays on disk."""
    for start in range(0, len(order), BLOCK):
        yield np.arange(start, min(start + BLOCK, len(order))), np.asarray(vectors[order[start : start + BLOCK]], dtype=np.float64)
