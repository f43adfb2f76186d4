"""Test samples that the training data hold too, equal or nearly: what makes a test look better than it is."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from clprune.datatypes import Source
from clprune.errors import DataError
from clprune.inputs import held_out_inputs, in_classes_of, inputs_of
from clprune.neighborhood import images_nearly_equal
from clprune.texts import digests_of_words


def leakage(source: Source, test: Source | None = None, *, image_size: int | None = None) -> dict[str, Any]:
    """Test samples that repeat a training sample: how many, which, and of which; `test` is the test part of `source` unless given.

    Equal ones by a digest of what was decoded (images in the size of the training images; texts by their words), nearly equal images by the rule for near-duplicates, applied to all images together.
    Of several training samples the nearest is named, ties to the smaller id; pairs are in the order of the test ids. Raises DataError for data without a test part, or of logged numbers.
    """
    if source.logged is not None:
        raise DataError(f"{source.locator} holds logged numbers, not samples, so nothing can be compared.")
    if test is None:
        if source.load_test is None:
            raise DataError(
                f"{source.locator} has no test part. Name test data with --test, or give data with one (x_test, test/ folder, split column)."
            )
        test = source.load_test()
    if test.kind != source.kind:
        raise DataError(f"{source.locator} holds {source.kind}, but {test.locator} holds {test.kind}. Give test data of the same kind.")
    test = in_classes_of(source, test)
    if source.kind == "text":
        train_inputs, test_inputs = digests_of_words(source), digests_of_words(test)
    else:
        train_inputs, rule = inputs_of(source, image_size)
        test_inputs = held_out_inputs(test, rule)
    if test_inputs.shape[1:] != train_inputs.shape[1:]:
        raise DataError(
            f"an input of {source.locator} has shape {train_inputs.shape[1:]}, one of {test.locator} {test_inputs.shape[1:]}. Bring them to one with --image-size."
        )
    by_id, test_by_id = np.argsort(source.sample_ids, kind="stable"), np.argsort(test.sample_ids, kind="stable")
    labels = np.concatenate([source.labels[by_id], test.labels[test_by_id]])
    train, distance, equal = leaked(np.concatenate([train_inputs[by_id], test_inputs[test_by_id]]), labels, len(source))
    pairs = [
        {"test_id": str(test.sample_ids[test_by_id[row]]), "train_id": str(source.sample_ids[by_id[train[row]]]), "distance": float(distance[row])}
        | {"same_label": bool(labels[len(source) + row] == labels[train[row]])}
        for row in np.flatnonzero(train >= 0)
    ]
    exact = int(equal.sum())
    document = {"source": source.locator, "test": test.locator, "n_train": len(source), "n_test": len(test), "n_exact": exact}
    return document | {"n_near": len(pairs) - exact, "n_with_another_label": sum(not pair["same_label"] for pair in pairs), "pairs": pairs}


def leaked(
    inputs: UInt8[np.ndarray, "N H W C"] | Int[np.ndarray, "N L"], labels: Int[np.ndarray, "N"], n_train: int
) -> tuple[Int[np.ndarray, "T"], Float[np.ndarray, "T"], Bool[np.ndarray, "T"]]:
    """For each of the inputs after the first `n_train`: the nearest of those that it repeats (-1 for none), ties to the smaller row, its distance (NaN for none), and whether the two are equal.

    The distance to a mirrored or a darker copy may be 0 too.
    """
    known = labels if labels.min() >= 0 else labels - labels.min()  # a missing label is a class like others here
    equal, near, gaps = images_nearly_equal(inputs, known)
    first = np.arange(len(inputs))  # of equal inputs
    first[equal[:, 1]] = equal[:, 0]
    ends = np.concatenate([near, near[:, ::-1]])
    both = np.concatenate([gaps, gaps])
    order = np.lexsort((ends[:, 1], both))
    train, distance = np.full(len(inputs), -1), np.full(len(inputs), np.nan)
    for (a, b), gap in zip(ends[order].tolist(), both[order].tolist(), strict=True):
        if train[a] < 0 and b < n_train:
            train[a], distance[a] = b, gap
    rows = np.arange(n_train, len(inputs))
    exact = first[rows] < n_train  # the first of equal inputs is a training one wherever one of them is
    return np.where(exact, first[rows], train[first[rows]]), np.where(exact, 0.0, distance[first[rows]]), exact
