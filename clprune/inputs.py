"""Open the data that a DATA argument names, and give the inputs as one array."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Int

from clprune.datatypes import UNLABELLED, Source
from clprune.errors import DataError, UsageError
from clprune.storage import cache_folder


def open_data(data: str, strict: bool, on_progress: Callable[[dict[str, Any]], None] | None = None) -> Source:
    from clprune.sources import open_source

    return open_source(
        data, strict=strict, on_progress=(lambda done, total: on_progress({"stage": "list", "done": done, "total": total})) if on_progress else None
    )


def open_recorded(record: Mapping[str, Any], data: str | None) -> Source:
    """The data that the document of a run or a manifest names as it was given then, or `data` where they are elsewhere now; errors say so."""
    if data is not None:
        return open_data(data, False)
    named = str(record["source"])
    try:
        return open_data(named, False)
    except (DataError, UsageError) as error:
        raise type(error)(
            f"{error} The data are recorded as {named}, seen from the folder of that command; if they are elsewhere now, pass --data."
        ) from error


def inputs_of(
    source: Source, image_size: int | None, on_progress: Callable[[int, int], None] | None = None, *, channels: int | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Images (N, H, W, C), decoded into the cache where they are files, or texts (N, L), and the rule that brought them to one size; with so many `channels` where given.

    Raises DataError where the inputs are neither: only a loop of the user's own trains on those.
    """
    from clprune.decoding import load_images
    from clprune.texts import load_texts

    if source.kind == "array":
        raise DataError(
            f"{source.locator} gives neither images (H, W), (H, W, C) or (C, H, W) with C 1 or 3, nor texts, so no proxy can be trained on it. "
            "Record your own training with clprune.Recorder and save_run, or give images."
        )
    return (
        load_texts(source)
        if source.kind == "text"
        else load_images(source, side=image_size, channels=channels, cache=cache_folder() / "images", on_progress=on_progress)
    )


def digest_of_inputs(inputs: np.ndarray, order: Int[np.ndarray, "N"] | None = None, *, block_bytes: int = 1 << 24) -> str:
    """BLAKE2b of images (N, H, W, C) or texts (N, L), read in the order of the rows `order` (by default as they stand): what a finished training is known by beside the fingerprint.

    The fingerprint holds ids, labels and sizes alone, and a program may give other inputs of the same. So many bytes at a time are read, so that a memory map stays on the disk;
    every byte is read once more, which takes one to two seconds a GB.
    """
    digest = hashlib.blake2b(f"{inputs.shape}{inputs.dtype}".encode(), digest_size=16)
    step = max(1, block_bytes // max(1, inputs[:1].nbytes))
    for start in range(0, len(inputs), step):
        rows: Any = slice(start, start + step) if order is None else order[start : start + step]
        digest.update(np.ascontiguousarray(inputs[rows]).data)
    return digest.hexdigest()


def data_key(source: Source, images: np.ndarray, test: Source | None = None, test_images: np.ndarray | None = None) -> str:
    """What finished trainings on `source`, judged on `test`, are known by: both fingerprints and digests of both inputs, those to train on in the order of ids."""
    key = f"{source.fingerprint}-{digest_of_inputs(images, source.canonical_order)}"
    return key if test is None or test_images is None else f"{key}-{test.fingerprint}-{digest_of_inputs(test_images)}"


def held_out_inputs(test: Source, rule: dict[str, Any]) -> np.ndarray:
    """The inputs of a test split, brought to the form that `rule` brought the training split to: also in gray where that is all gray, and in colour where this alone is gray."""
    from clprune.texts import load_texts

    if test.kind == "text":
        return load_texts(test, width=rule["width"])[0]
    return inputs_of(test, rule["size"][0] if rule["resized"] else None, channels=rule["channels"])[0]


def require_one_form(inputs: np.ndarray, test_inputs: np.ndarray) -> None:
    """Raise DataError where what is to be judged on has not the form of what is trained on."""
    if test_inputs.shape[1:] != inputs.shape[1:]:
        raise DataError(
            f"test images are {test_inputs.shape[1:]}, training images {inputs.shape[1:]}. Score with --image-size so that both are brought to one size."
        )


def held_out_part(source: Source, other: str | None = None) -> Source:
    """The samples that accuracy is measured on: the data set `other`, its classes numbered by their names as in `source`, or else the test part of `source`.

    Raises UsageError where `source` holds logged numbers, DataError where there is no test part, and where it holds other things than `source`, a sample without a label, or one of a class that `source` has not.
    """
    if source.logged is not None:
        raise UsageError(
            f"{source.locator} holds logged numbers, no inputs, so nothing can be trained on what is kept of it. Export `indices`, and train and compare where the numbers were logged."
        )
    if other is None and source.load_test is None:
        raise DataError(
            f"{source.locator} has no test part, so accuracy cannot be measured. Name test data with --test, or give data with one (x_test, test/ folder, split column)."
        )
    test = source.load_test() if other is None and source.load_test is not None else open_data(str(other), False)
    if test.kind != source.kind:
        raise DataError(f"{source.locator} holds {source.kind}, but {test.locator} holds {test.kind}. Give test data of the same kind.")
    if (test.labels < 0).any():
        raise DataError(
            f"{test.locator}: {int((test.labels < 0).sum())} test samples have no label, so accuracy cannot be measured. Label them, or leave them out."
        )
    numbered = in_classes_of(source, test)
    if unknown := [test.class_names[label] for label in np.unique(test.labels[numbered.labels < 0])]:
        raise DataError(
            f"{test.locator}: {len(unknown)} classes are not among those of {source.locator} ({', '.join(unknown[:5])}). Name classes alike in both, or leave these out."
        )
    return numbered


def groups_of(test: Source, column: str | None) -> list[str] | None:
    """The group of each test sample, from a column of its table. Raises UsageError where there is no such column."""
    if column is None:
        return None
    columns = test.facts.get("columns", {})
    if column not in columns:
        raise UsageError(
            f"--group is {column}, but the test data have no such column (there are: {', '.join(columns) or 'none; only tables have them'})."
        )
    return [str(value) for value in columns[column]()]


def in_classes_of(source: Source, test: Source) -> Source:
    """`test` with its classes numbered by their names as in `source`; samples of other classes count as unlabelled."""
    number = {name: at for at, name in enumerate(source.class_names)}
    known = np.array(
        [*(number.get(name, UNLABELLED) for name in test.class_names), UNLABELLED], dtype=np.int64
    )  # the last is what UNLABELLED, -1, points to
    return replace(test, labels=known[test.labels], class_names=source.class_names)


def trainable(proxy: str, source: Source) -> str:
    """The proxy of a run, or the usual one where the run came from a training that was not ours, or from none (`embeddings.nothing_trained`)."""
    from clprune.proxies import proxy_for

    return proxy_for(source.kind, "small_cnn") if proxy in ("own loop", "logged") or proxy.startswith("none:") else proxy
