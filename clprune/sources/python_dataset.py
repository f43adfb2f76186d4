"""`module:function` returning any map-style torch Dataset that gives (input, label, ...), a mapping, or a named tuple."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clprune.datatypes import Source
from clprune.errors import DataError, UsageError
from clprune.families import source
from clprune.sources._common import integer_labels, require_classes, require_ids, row_ids, text_of_name

INPUT_KEYS, LABEL_KEYS = ("image", "img", "pixel_values", "x", "input", "text"), ("label", "labels", "target", "y")


def _claims(locator: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", locator)) and not locator.startswith(("hf:", "torchvision:", "wds:"))


def _adapts(dataset: Any) -> Source | None:
    """A Source over an open map-style data set, but for those of Hugging Face."""
    if isinstance(dataset, str) or hasattr(dataset, "features") or not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        return None
    return source_of_dataset(dataset, f"this {type(dataset).__name__}")


@source(claims=_claims, adapts=_adapts)
def python_dataset(locator: str, *, strict: bool = False) -> Source:
    """The data set that the user's function returns, called without arguments; also a pair (train, test)."""
    from clprune.proxies import import_from_user

    module, _, function = locator.partition(":")
    made = import_from_user(module, function, "data")()
    train, test = made if isinstance(made, tuple) and len(made) == 2 and all(hasattr(part, "__len__") for part in made) else (made, None)
    opened = source_of_dataset(train, locator)
    if test is None:
        return opened
    from dataclasses import replace

    return replace(opened, load_test=lambda: source_of_dataset(test, locator, class_names=opened.class_names))


def source_of_dataset(dataset: Any, locator: str, *, ids: Sequence[Any] | None = None, class_names: Sequence[str] | None = None) -> Source:
    """A source over any map-style data set. Labels are its `targets` or `labels` where it has them, else one pass reads them.

    Inputs may be PIL images, arrays or tensors (C, H, W) or (H, W, C), or texts. Ids are `ids`, the data set's `sample_ids`, the paths below `root`
    where it lists files as torchvision's folders do (so they are those of the folder itself), else row numbers. Raises UsageError for what is
    not map-style.
    """
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise UsageError(f"{locator} gives a {type(dataset).__name__}; a map-style data set with __len__ and __getitem__ is needed.")
    if not len(dataset):
        raise DataError(f"{locator} holds no samples.")
    given = next(
        (
            getattr(dataset, name)
            for name in ("targets", "labels")
            if getattr(dataset, name, None) is not None and len(getattr(dataset, name)) == len(dataset)
        ),
        None,
    )
    texts = isinstance(_pair(dataset[0], locator)[0], str)
    sizes: np.ndarray | None = None
    if given is None or texts:
        pairs = [(len(x.encode()) if isinstance(x, str) else 0, y) for x, y in (_pair(dataset[row], locator) for row in range(len(dataset)))]
        sizes = np.array([size for size, _ in pairs], dtype=np.int64) if texts else None
        given = [y for _, y in pairs]
    labels, found = integer_labels(np.asarray([int(v) if hasattr(v, "item") else v for v in given]), locator)
    names = tuple(class_names or [str(c) for c in getattr(dataset, "classes", [])] or found)
    notes = require_classes(labels, names, locator) if class_names is None else []
    own_ids = ids if ids is not None else getattr(dataset, "sample_ids", None)
    files = [Path(path) for path, _ in dataset.samples] if hasattr(dataset, "samples") else None
    if own_ids is None and files is not None and hasattr(dataset, "root"):
        own_ids = [text_of_name(path.relative_to(dataset.root).as_posix()) for path in files]
    sample_ids = require_ids([str(i) for i in own_ids] if own_ids is not None else row_ids(len(dataset)), locator)
    first = _as_image(_pair(dataset[0], locator)[0])
    data = getattr(dataset, "data", None)
    images = np.asarray(data) if data is not None and hasattr(data, "shape") and _same(np.asarray(data[0]), first) else None
    if images is not None and images.ndim == 3:
        images = images[..., None]
    if sizes is None:
        each = images[0].nbytes if images is not None else np.asarray(first).nbytes
        sizes = np.array([path.stat().st_size for path in files], dtype=np.int64) if files is not None else np.full(len(dataset), each)
    return Source(
        locator=locator,
        sample_ids=sample_ids,
        labels=labels,
        class_names=names,
        sample_bytes=sizes,
        read_input=lambda index: _as_image(_pair(dataset[int(index)], locator)[0]),
        kind="text" if texts else "image",
        images=images,
        paths=files,
        facts={"notes": notes, "made_by_code": True},
    )


def _same(stored: np.ndarray, seen: Any) -> bool:
    """Whether the data set's `data` array is what its items show (it is not when a transform changes them)."""
    seen = np.asarray(seen)
    return stored.dtype == np.uint8 and stored.squeeze().shape == seen.squeeze().shape and np.array_equal(stored.squeeze(), seen.squeeze())


def _pair(item: Any, locator: str) -> tuple[Any, Any]:
    """Input and label of an item: a mapping, a named tuple with such names, or the first two of a sequence."""
    fields = getattr(item, "_fields", ())
    if set(INPUT_KEYS) & set(fields) and set(LABEL_KEYS) & set(fields):
        item = item._asdict()
    if isinstance(item, Mapping):
        x = next((item[key] for key in INPUT_KEYS if key in item), None)
        y = next((item[key] for key in LABEL_KEYS if key in item), None)
        if x is None or y is None:
            raise UsageError(
                f"{locator} gives mappings with {', '.join(map(str, item))}; an input ({', '.join(INPUT_KEYS)}) and a label ({', '.join(LABEL_KEYS)}) are needed."
            )
        return x, y
    if isinstance(item, Sequence) and len(item) >= 2:
        return item[0], item[1]
    raise UsageError(f"{locator} gives items of type {type(item).__name__}; (input, label) is needed.")


def _as_image(value: Any) -> Any:
    """A tensor (C, H, W) or array as (H, W, C) uint8; PIL images and texts as they are. Normalised tensors are stretched to 0..255."""
    if isinstance(value, str) or not (hasattr(value, "shape") or hasattr(value, "numpy")):
        return value
    array = np.asarray(value)
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
        array = array.transpose(1, 2, 0)
    if array.dtype == np.uint8:
        return array
    if 0 <= array.min() and array.max() <= 1:
        return np.round(array * 255).astype(np.uint8)
    if array.dtype.kind == "f":
        return np.round(np.clip(array * 64 + 128, 0, 255)).astype(np.uint8)  # standardised inputs: two deviations each way
    return array.astype(np.uint8)
