"""An .npz file with x_train, y_train[, x_test, y_test][, ids][, class_names], or DIR/x_train.npy with those beside it; `?labels=y_aggre` picks other labels."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from clprune.datatypes import Source
from clprune.errors import DataError
from clprune.families import source
from clprune.sources._common import (
    among,
    holds_names,
    integer_labels,
    options_of,
    pixel_scale,
    require_classes,
    require_distinct,
    require_ids,
    require_range,
    row_ids,
    shown,
    text_of,
)
from clprune.sources._npz import holds_logged_numbers, open_npy, open_npz

ROWS_AT_ONCE = 4096


def _claims(locator: str) -> bool:
    path = Path(locator.partition("?")[0])
    return path.suffix.lower() in (".npz", ".npy") and not path.is_dir() and not holds_logged_numbers(locator)


@source(claims=_claims)
def arrays(locator: str, *, strict: bool = False) -> Source:
    """Images (N, H, W) or (N, H, W, C), C 1 or 3, uint8; floats in [0, 1] are scaled to 0..255, other floats are rounded and must lie in it; those of x_test are read as floats of x_train are, where that has some.

    (N, C, H, W) is taken too where only that can be meant: the last axis is neither 1 nor 3 long. Labels are (N,) or (N, 1). Ids are the file's `ids`, else the row numbers.
    """
    name, _, query = locator.partition("?")
    label_key = options_of(query, ("labels",), locator).get("labels", "y_train")
    path = Path(name)
    held = open_npz(path) if path.suffix.lower() == ".npz" else open_npy(path, ("x_train", label_key, "x_test", "y_test", "ids", "class_names"))
    if "x_train" not in held or label_key not in held:
        raise DataError(f"{path} needs the arrays x_train and {label_key}; it holds {', '.join(held)}.")
    classes = [text_of(name) for name in held["class_names"].reshape(-1).tolist()] if "class_names" in held else None
    require_distinct(classes or (), f"{path}: class_names")
    n = held["x_train"].shape[:1]
    if "ids" in held and held["ids"].shape not in (n, (*n, 1)):
        raise DataError(f"{path}: ids has shape {held['ids'].shape}, x_train has {n[0] if n else 0} samples. Give one id a sample.")
    ids = held["ids"].reshape(-1).tolist() if "ids" in held else None
    return _part(locator, path, held, "x_train", label_key, ids, classes)


def _part(
    locator: str,
    path: Path,
    held: dict[str, np.ndarray],
    x_key: str,
    y_key: str,
    ids: list[Any] | None,
    classes: list[str] | None,
    train_scale: int | None = None,
) -> Source:
    """The training part, or the test part, with the scale of that one's pixels where they are floats."""
    shaped, where = _shaped(held[x_key], f"{path}: {x_key}"), f"{path}: {y_key}"
    scale = _scale_of(shaped, f"{path}: {x_key}", train_scale)
    images = _as_pixels(shaped, scale)
    column = held[y_key]
    if column.shape not in ((len(images),), (len(images), 1)):
        raise DataError(f"{where} has shape {column.shape}, {x_key} has {len(images)} samples. Give one label a sample.")
    labels, found = integer_labels(column.reshape(-1), where)
    class_names = tuple(classes) if classes else found
    if classes and holds_names(column.reshape(-1)):
        labels = among(labels, found, classes, where)
    notes: list[str] = []
    if x_key == "x_train":
        notes = require_classes(labels, class_names, where)
    else:
        require_range(labels, class_names, where, all_labelled=True)
    sample_ids = require_ids([text_of(i) for i in ids] if ids is not None else row_ids(len(images)), str(path))
    order = np.argsort(sample_ids, kind="stable")
    digest = hashlib.sha256()
    for start in range(0, len(images), ROWS_AT_ONCE):
        digest.update(np.ascontiguousarray(images[order[start : start + ROWS_AT_ONCE]]).data)
    has_test = x_key == "x_train" and "x_test" in held and "y_test" in held
    return Source(
        locator=locator,
        sample_ids=sample_ids,
        labels=labels,
        class_names=class_names,
        sample_bytes=np.full(len(images), images[0].nbytes, dtype=np.int64),
        read_input=lambda index: images[index],
        images=images,
        load_test=(lambda: _part(locator, path, held, "x_test", "y_test", None, list(class_names), scale if shaped.dtype.kind == "f" else None))
        if has_test
        else None,
        content_digest=digest.hexdigest(),
        facts={"notes": notes},
    )


def _shaped(array: np.ndarray, where: str) -> np.ndarray:
    """Images as (N, H, W, C), nothing copied. Raises DataError for what is none."""
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim == 4 and array.shape[-1] not in (1, 3) and array.shape[1] in (1, 3):
        array = np.moveaxis(array, 1, -1)
    if array.ndim != 4 or array.shape[-1] not in (1, 3) or not array.size:
        raise DataError(f"{where} has shape {array.shape}; images must be (N, H, W), (N, H, W, C) or (N, C, H, W) with C 1 or 3.")
    if array.dtype.kind not in "fiu":
        raise DataError(f"{where} has type {array.dtype}; images must be numbers.")
    return array


def _scale_of(images: np.ndarray, where: str, train_scale: int | None) -> int:
    """What to multiply images by for 0..255: 255 for floats in [0, 1], else 1. Those of a test part are scaled as those of the training part: a dark one by itself does not say what its numbers mean.

    Raises DataError where numbers lie elsewhere, or where those of a test part must have been scaled otherwise.
    """
    if images.dtype == np.uint8:
        return 1
    bad = np.flatnonzero(~np.isfinite(images.reshape(len(images), -1)).all(axis=1))
    if len(bad):
        raise DataError(f"{where}: {len(bad)} images hold NaN or infinity (rows {shown(bad.tolist())}). Mend or remove them.")
    low, high = float(images.min()), float(images.max())
    scale = pixel_scale(low, high, images.dtype.kind, where)
    if images.dtype.kind != "f" or train_scale is None:
        return scale
    if train_scale > scale:
        raise DataError(f"{where}: values lie in [{low:g}, {high:g}], those of x_train in [0, 1]. Scale both alike.")
    return train_scale


def _as_pixels(images: np.ndarray, scale: int) -> np.ndarray:
    if images.dtype == np.uint8:
        return images
    pixels = np.empty(images.shape, dtype=np.uint8)
    for start in range(0, len(images), ROWS_AT_ONCE):  # the products take more bytes than the pixels
        pixels[start : start + ROWS_AT_ONCE] = np.round(images[start : start + ROWS_AT_ONCE] * scale).clip(0, 255)
    return pixels
