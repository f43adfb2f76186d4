"""A linear discriminant on the vectors, fitted without the samples that it judges: what a label's own weight in a training cannot bend."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float, Int

from clprune.products import product, solution
from clprune.ranking import place_in_group

N_FOLDS = 5
SHRINKAGE = 0.1  # towards a round covariance, as large on average
SURENESS = np.arange(2, 21) / 20  # exponents: a covariance that does not hold makes a discriminant too sure
AT_RANDOM = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)  # shares of labels that were drawn at random
FITTED_ON = 50_000  # samples, evenly spaced, that exponent and share are found on,
NUMBERS = 5_000_000  # one a class of a sample, that are looked at together: fewer samples where there are many classes
BLOCK = 4_096  # samples that are looked at together


def held_out_posterior(
    labels: Int[np.ndarray, "N"], vectors: Float[np.ndarray, "N D"], order: Int[np.ndarray, "N"], n_classes: int
) -> Callable[[Int[np.ndarray, "M"]], Float[np.ndarray, "M C"]]:
    """A function that gives, for some places in `order`, the probability of each class for `vectors` there, judged by the other folds. `labels` are in that order (at least two different ones).

    One mean a class and one covariance of all, which a share of wrong labels hardly moves, unlike a network's own last layer (Lee et al., 2019,
    arXiv:1901.11300). The samples of each class are dealt to N_FOLDS folds in turn. One exponent for all says how sure it is; it is found together with the share of labels that
    look drawn at random, by the likelihood of the held-out labels under both: found alone, wrong labels would make it too unsure of the others. A class that the
    other folds do not hold counts as lying in the middle of all.
    """
    n, width = len(labels), vectors.shape[1]
    turn = place_in_group(labels)
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

    def told(part: Int[np.ndarray, "M"], points: Float[np.ndarray, "M D"]) -> Float[np.ndarray, "M C"]:
        away, mine = points - middle, np.empty((len(part), n_classes))
        for f in range(N_FOLDS):
            here = fold[part] == f
            mine[here] = product(away[here], ways[f]) + offsets[f]
        mine -= mine.max(axis=1, keepdims=True)
        return mine

    n_fitted = min(n, FITTED_ON, max(1, NUMBERS // n_classes))
    some = np.unique(np.linspace(0, n - 1, n_fitted).astype(np.int64))
    sure = _sureness(
        np.concatenate([told(part, points)[np.isin(part, some)] for part, points in _blocks(vectors, order, rows_at_once(n_classes))]), labels[some]
    )

    def posterior(part: Int[np.ndarray, "M"]) -> Float[np.ndarray, "M C"]:
        values = told(part, np.asarray(vectors[order[part]], dtype=np.float64))
        values *= sure
        np.exp(values, out=values)
        values /= values.sum(axis=1, keepdims=True)
        return values

    return posterior


def _sureness(told: Float[np.ndarray, "M C"], labels: Int[np.ndarray, "M"]) -> float:
    """The exponent that, with some share of labels drawn at random, makes the labels likeliest; ties to the smaller share, then the smaller exponent."""
    own = told[np.arange(len(labels)), labels]
    p_label = [np.exp(sure * own) / np.exp(sure * told).sum(axis=1) for sure in SURENESS]
    fits = [[float(np.log((1 - share) * p + share / told.shape[1] + 1e-300).mean()) for p in p_label] for share in AT_RANDOM]
    return float(SURENESS[int(np.argmax(fits)) % len(SURENESS)])


def rows_at_once(n_classes: int) -> int:
    """How many samples are looked at together where each has a number a class."""
    return min(BLOCK, max(64, NUMBERS // n_classes))


def _blocks(
    vectors: Float[np.ndarray, "N D"], order: Int[np.ndarray, "N"], size: int = BLOCK
) -> Iterator[tuple[Int[np.ndarray, "M"], Float[np.ndarray, "M D"]]]:
    """Places in `order` and their vectors, some at a time, so that a memory map stays on disk."""
    for start in range(0, len(order), size):
        yield np.arange(start, min(start + size, len(order))), np.asarray(vectors[order[start : start + size]], dtype=np.float64)
