"""Which class a sample is likely of, from its features and the labels of some: kernel ridge regression, whose constants are found by leaving one out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from clprune.products import one_thread, product

CENTRES, FITTED_ON = 1_000, 20_000  # the machine is spanned by so many of the labelled samples at most, and fitted on so many
BANDWIDTHS = (1.0, 2.0, 4.0)  # of the kernel: in exp(-b d^2 / median d^2)
RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0)
SHARPNESSES = (1.0, 3.0, 5.0, 7.0, 9.0, 12.0)  # what its values are multiplied by before they are made probabilities
BLOCK = 4_096


def class_probabilities(
    known: Float[np.ndarray, "L D"], labels: Int[np.ndarray, "L"], wanted: Float[np.ndarray, "U D"], *, n_classes: int, seed: int = 0
) -> Float[np.ndarray, "U C"]:
    """Probabilities of the classes for the samples `wanted`, from `known` ones and their labels.

    Ridge regression from a Gaussian kernel to one-hot labels (Saunders et al., 1998), on at most CENTRES of the known samples (Nystroem; Williams & Seeger, 2001), drawn with `seed` from them in their order; its values,
    sharpened, go through a softmax. Bandwidth, ridge and sharpness are those under which each known sample's own label was likeliest when the sample itself was left out, which has a closed form; so features that
    tell little give probabilities that are nearly even.
    """
    rng = np.random.default_rng((seed, 9))
    rows = np.sort(rng.permutation(len(known))[:FITTED_ON])
    points, targets = known[rows].astype(np.float64), np.eye(n_classes)[labels[rows]] - 1 / n_classes
    centres = points[np.sort(rng.permutation(len(points))[:CENTRES])]
    distances = _distances(points, centres)
    usual = float(np.median(distances)) or 1.0
    best: tuple[float, float, float, np.ndarray] | None = None
    for bandwidth in BANDWIDTHS:
        with one_thread():
            sizes, ways = np.linalg.eigh(np.exp(-bandwidth / usual * _distances(centres, centres)))
        whiten = ways[:, sizes > 1e-6 * sizes[-1]] / np.sqrt(sizes[sizes > 1e-6 * sizes[-1]])
        basis = product(np.exp(-bandwidth / usual * distances), whiten)
        for weights, left_out in _regressions(basis, targets):
            for sharpness in SHARPNESSES:
                p = softmax(sharpness * left_out)[np.arange(len(rows)), labels[rows]]
                loss = -float(np.log(np.maximum(p, 1e-12)).mean())
                if best is None or loss < best[0]:
                    best = (loss, bandwidth, sharpness, product(whiten, weights))
    assert best is not None
    _, bandwidth, sharpness, weights = best
    found = np.empty((len(wanted), n_classes))
    for start in range(0, len(wanted), BLOCK):
        near = np.exp(-bandwidth / usual * _distances(wanted[start : start + BLOCK].astype(np.float64), centres))
        found[start : start + BLOCK] = softmax(sharpness * product(near, weights))
    return found


def _regressions(
    basis: Float[np.ndarray, "L F"], targets: Float[np.ndarray, "L C"]
) -> Iterator[tuple[Float[np.ndarray, "F C"], Float[np.ndarray, "L C"]]]:
    """For each of RIDGES the weights, and what is predicted of each row by a regression that did not see it."""
    with one_thread():
        sizes, ways = np.linalg.eigh(product(np.ascontiguousarray(basis.T), basis))
    turned, sizes = product(basis, ways), np.maximum(sizes, 0)
    aimed = product(np.ascontiguousarray(turned.T), targets)
    for ridge in RIDGES:
        weights, leverage = aimed / (sizes + ridge)[:, None], (turned**2 / (sizes + ridge)).sum(axis=1)
        yield product(ways, weights), targets - (targets - product(turned, weights)) / np.maximum(1 - leverage, 1e-9)[:, None]


def _distances(a: Float[np.ndarray, "A D"], b: Float[np.ndarray, "B D"]) -> Float[np.ndarray, "A B"]:
    """Squared distances."""
    return np.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * product(a, np.ascontiguousarray(b.T)), 0)


def softmax(values: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N C"]:
    """Probabilities in double precision, from logits or log-probabilities."""
    raised = np.exp(values.astype(np.float64) - values.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)
