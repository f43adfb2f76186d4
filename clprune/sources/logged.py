"""An .npz file of numbers that a training logged: labels with logits (E, N, C) or losses (E, N), no inputs and no model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clprune.datatypes import Source
from clprune.errors import DataError, LabelError, UsageError
from clprune.families import source
from clprune.sources._common import (
    among,
    holds_names,
    integer_labels,
    options_of,
    require_classes,
    require_distinct,
    require_ids,
    row_ids,
    shown,
    text_of,
)
from clprune.sources._npz import holds_logged_numbers, open_npz

ROWS_AT_ONCE = 8192  # of a memory-mapped log
NAMES = ("labels", "logits", "losses", "embeddings", "ids", "class_names", "bytes")


@source(claims=holds_logged_numbers)
def logged(locator: str, *, strict: bool = False) -> Source:
    """`labels` (N,) with `logits` (E, N, C) or `losses` (E, N), and perhaps `embeddings` (N, D), `ids` (N,), `class_names` (C,), `bytes` (N,).

    Large arrays stay in the file, memory-mapped. `labels` may be missing where there are losses only.
    """
    name, _, query = locator.partition("?")
    options_of(query, (), locator)
    held = open_npz(Path(name))
    return source_of_logged(held.get("labels"), **{name: held[name] for name in NAMES[1:] if name in held}, locator=locator)


def source_of_logged(
    labels: Any,
    *,
    logits: np.ndarray | None = None,
    losses: np.ndarray | None = None,
    embeddings: np.ndarray | None = None,
    ids: Sequence[Any] | np.ndarray | None = None,
    class_names: Sequence[Any] | np.ndarray | None = None,
    bytes: Sequence[int] | np.ndarray | None = None,
    locator: str = "logged arrays",
) -> Source:
    """A source over logged numbers, checked. A sample that an epoch did not see has only NaN in that epoch.

    Labels are class numbers, or names: then the columns of the logits need `class_names`, since their order cannot be guessed.
    Raises UsageError where logits and losses are both or neither given, DataError or LabelError for shapes and numbers that do not fit.
    """
    if (logits is None) == (losses is None):
        raise UsageError(f"{locator}: give either logits (E, N, C) or losses (E, N), not {'both' if logits is not None else 'neither'}.")
    name, values = ("logits", np.asarray(logits)) if logits is not None else ("losses", np.asarray(losses))
    if values.ndim != (3 if name == "logits" else 2) or 0 in values.shape or values.dtype.kind not in "fiu":
        form = "(epochs, samples, classes)" if name == "logits" else "(epochs, samples)"
        raise DataError(f"{locator}: {name} has shape {values.shape} and type {values.dtype}; numbers of shape {form} are needed.")
    n = values.shape[1]
    if labels is None and name == "logits":
        raise LabelError(f"{locator}: logits need labels (N,), one a sample. Without labels only losses can be scored.")
    numbers, names = _classes(labels, class_names, values.shape[2] if name == "logits" else None, n, locator)
    for what, given in (("labels", labels), ("embeddings", embeddings), ("ids", ids), ("bytes", bytes)):
        if given is not None and len(given) != n:
            raise DataError(
                f"{locator}: {what} has {len(given)} entries, {name} has {n} samples (its second axis). Give one a sample, in the same order."
            )
    if embeddings is not None and (np.ndim(embeddings) != 2 or np.asarray(embeddings).dtype.kind != "f"):
        raise DataError(f"{locator}: embeddings has shape {np.shape(embeddings)}; floats of shape (samples, width) are needed.")
    notes = require_classes(numbers, names, locator, all_labelled=True) if len(names) > 1 else []
    sample_ids = require_ids([text_of(i) for i in (np.asarray(ids).tolist() if ids is not None else row_ids(n))], locator)
    order = np.argsort(sample_ids, kind="stable")
    digest = hashlib.sha256(name.encode())
    arrays = {name: values} | ({"embeddings": np.asarray(embeddings)} if embeddings is not None else {})
    for epoch in range(len(values)):
        _take_in(digest, values[epoch], f"{locator}: {name} of epoch {epoch}", sample_ids, order)
    if embeddings is not None:
        if len(bad := np.flatnonzero(~np.isfinite(arrays["embeddings"]).all(axis=1))):
            raise DataError(f"{locator}: embeddings hold NaN or infinity (samples {shown(sample_ids[bad].tolist())}).")
        digest.update(np.ascontiguousarray(arrays["embeddings"][order]).data)

    def no_input(index: int) -> Any:
        raise DataError(f"{locator} holds logged numbers, no inputs. Export `indices` or `removal-list`, or use manifest.subset(dataset) in Python.")

    return Source(
        locator=locator,
        sample_ids=sample_ids,
        labels=numbers,
        class_names=names,
        sample_bytes=np.zeros(n, dtype=np.int64) if bytes is None else np.asarray(bytes, dtype=np.int64),
        read_input=no_input,
        kind="logged",
        logged=arrays,
        content_digest=digest.hexdigest(),
        facts={"notes": notes},
    )


def _classes(labels: Any, class_names: Any, n_columns: int | None, n: int, locator: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class numbers (N,) and names; without labels all samples are of one class."""
    if labels is None:
        return np.zeros(n, dtype=np.int64), ("all",)
    numbers, found = integer_labels(labels, locator, "labels")
    given = tuple(text_of(name) for name in np.asarray(class_names).tolist()) if class_names is not None else None
    require_distinct(given or (), f"{locator}: class_names")
    if holds_names(labels):
        if given is None and n_columns is not None:
            raise LabelError(f"{locator}: labels are names, but the columns of the logits have none. Give class_names in the order of the columns.")
        if given is not None:
            numbers = among(numbers, found, given, locator)
    names = given or (tuple(str(c) for c in range(n_columns)) if n_columns is not None else found)
    if n_columns is not None and (len(names) != n_columns or n_columns < 2):
        raise DataError(
            f"{locator}: logits have {n_columns} columns, there are {len(names)} class names. There must be one column a class, two or more."
        )
    return numbers, names


def _take_in(digest: Any, values: np.ndarray, where: str, sample_ids: np.ndarray, order: np.ndarray) -> None:
    """Add an epoch's numbers to the digest, in the order of ids. Every sample must be seen (all finite) or not seen (all NaN)."""
    n_seen, broken = 0, []
    for start in range(0, len(order), ROWS_AT_ONCE):
        at = order[start : start + ROWS_AT_ONCE]
        rows = np.ascontiguousarray(values[at])
        digest.update(rows.data)
        flat = rows.reshape(len(rows), -1)
        whole = np.isfinite(flat).all(axis=1)
        n_seen += int(whole.sum())
        broken += at[~whole & ~np.isnan(flat).all(axis=1)].tolist()
    if broken:
        raise DataError(
            f"{where} are not finite for {len(broken)} samples ({shown(sample_ids[broken].tolist())}). Numbers must be finite, or all NaN where not seen."
        )
    if not n_seen:
        raise DataError(f"{where}: no sample was seen. Leave that epoch out.")
