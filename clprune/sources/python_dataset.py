"""`module:function` returning any map-style torch Dataset that gives (input, label, ...), a mapping, or a named tuple."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from clprune.datatypes import Source
from clprune.errors import ClpruneError, DataError, UsageError
from clprune.families import source
from clprune.sources._common import (
    ABOUT_ONE,
    among,
    holds_names,
    integer_labels,
    pixel_scale,
    require_classes,
    require_ids,
    require_range,
    row_ids,
    text_of,
    text_of_name,
)

INPUT_KEYS, LABEL_KEYS = ("image", "img", "pixel_values", "x", "input", "text"), ("label", "labels", "target", "y")
ITEMS_LOOKED_AT = 64  # spread over the data set, to see in which range its pixels lie
LABELS_LOOKED_AT = 16  # to see whether items carry the labels that the data set lists, and whether its files are there
FARTHEST = 30  # deviations from the mean that a standardised number may have


def _claims(locator: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", locator)) and not locator.startswith(("hf:", "torchvision:", "wds:"))


def _adapts(dataset: Any, like: str) -> Source | None:
    """A Source over an open map-style data set, but for those of Hugging Face."""
    if isinstance(dataset, str) or not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        return None
    return source_of_dataset(dataset, f"this {type(dataset).__name__}", any_inputs=True)


@source(claims=_claims, adapts=_adapts)
def python_dataset(locator: str, *, strict: bool = False) -> Source:
    """The data set that the user's function returns, called without arguments; also a pair (train, test)."""
    from clprune.proxies import import_from_user

    module, _, function = locator.partition(":")
    make = import_from_user(module, function, "data")
    try:
        made = make()
    except ClpruneError:
        raise
    except Exception as error:  # whatever the user's function raises, the message must name it
        raise DataError(f"{locator}: the function failed ({_said(error)}). Call it by itself to see where.") from error
    train, test = made if isinstance(made, tuple) and len(made) == 2 and all(hasattr(part, "__len__") for part in made) else (made, None)
    opened = source_of_dataset(train, locator)
    if test is None:
        return opened
    return replace(opened, load_test=lambda: source_of_dataset(test, locator, part_of=opened))


def source_of_dataset(
    dataset: Any, locator: str, *, ids: Sequence[Any] | None = None, part_of: Source | None = None, any_inputs: bool = False
) -> Source:
    """A source over any map-style data set. Labels are its `targets` or `labels` where it has them and its items show the same, else one pass reads them.

    Inputs may be PIL images, arrays or tensors (C, H, W) or (H, W, C), or texts. Numbers are uint8, or lie in [0, 1] or [0, 255], or are standardised
    (below 0 too, then stretched): which of them is seen from items spread over the set. Ids are `ids`, the data set's `sample_ids`, the paths below `root`
    where it lists files as torchvision's folders do (so they are those of the folder itself), else row numbers. A test part has the classes of the training part that it is `part_of`, and
    its floats are read by the rule of those. With `any_inputs` other inputs (several of them, vectors, tokens, films) are given as they are, as of a training that was the user's own; they have no size. Raises UsageError for what is
    not map-style, DataError or LabelError that name the row for items and labels that cannot be used.
    """
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise UsageError(f"{locator} gives a {type(dataset).__name__}; a map-style data set with __len__ and __getitem__ is needed.")
    if not len(dataset):
        raise DataError(f"{locator} holds no samples.")
    given, own = (
        next((held for name in ("targets", "labels") if _length(held := getattr(dataset, name, None)) == len(dataset)), None),
        _class_names(dataset),
    )
    first = _item(dataset, 0, locator, any_inputs)[0]
    kind: Literal["image", "text", "array"] = "text" if isinstance(first, str) else "array" if any_inputs and not _is_image(first) else "image"
    texts = kind == "text"
    sizes: np.ndarray | None = None
    if (
        given is not None and not texts and _others_in_items(dataset, given, locator, any_inputs)
    ):  # by a target_transform, say: what is trained on counts
        given, own = None, ()
    if given is None or texts:
        pairs = [
            (_bytes_of_text(x, f"{locator}: row {row}") if texts else 0, y)
            for row, (x, y) in enumerate(_item(dataset, row, locator, any_inputs) for row in range(len(dataset)))
        ]
        sizes = np.array([size for size, _ in pairs], dtype=np.int64) if texts else None
        given = [y for _, y in pairs]
    class_names = part_of.class_names if part_of is not None else None
    labels, names = _labels(given, own, class_names, locator)
    notes = require_classes(labels, names, locator) if class_names is None else []
    own_ids, files = ids if ids is not None else getattr(dataset, "sample_ids", None), _files_behind(dataset)
    if own_ids is None and files is not None and hasattr(dataset, "root") and all(path.is_relative_to(dataset.root) for path in files):
        own_ids = [text_of_name(path.relative_to(dataset.root).as_posix()) for path in files]
    if own_ids is not None and len(own_ids) != len(dataset):
        raise DataError(
            f"{locator}: there are {len(own_ids)} ids (sample_ids), the data set has {len(dataset)} samples. Give one a sample, in its order."
        )
    sample_ids = require_ids([text_of(i) for i in own_ids] if own_ids is not None else row_ids(len(dataset)), locator)
    if kind == "array":
        return Source(
            locator=locator,
            sample_ids=sample_ids,
            labels=labels,
            class_names=names,
            sample_bytes=_sizes_of(files, locator) if files is not None else np.zeros(len(dataset), dtype=np.int64),
            read_input=lambda index: _item(dataset, int(index), locator, any_inputs)[0],
            kind=kind,
            paths=files,
            facts={"notes": notes, "made_by_code": True},
        )
    pixels = None if texts else (part_of.facts.get("pixels") if part_of is not None else None) or _pixels(dataset, locator)

    def read_input(index: int) -> Any:
        value = _pair(dataset[int(index)], locator)[0]
        return value if texts else _as_image(value, pixels, f"{locator}: row {index}")

    first, data = read_input(0), getattr(dataset, "data", None)
    images = np.asarray(data) if hasattr(data, "shape") and _length(data) == len(dataset) and _shown_as_it_is(data, read_input) else None
    if images is not None:
        images = images.reshape(len(images), *np.asarray(first).shape)  # items may be (H, W, 1) where the data are (1, H, W)
        images = images[..., None] if images.ndim == 3 else images
    if sizes is None:
        each = images[0].nbytes if images is not None else np.asarray(first).nbytes
        sizes = _sizes_of(files, locator) if files is not None else np.full(len(dataset), each)
    return Source(
        locator=locator,
        sample_ids=sample_ids,
        labels=labels,
        class_names=names,
        sample_bytes=sizes,
        read_input=read_input,
        kind=kind,
        images=images,
        paths=None if texts else files,
        facts={"notes": notes, "made_by_code": True, "pixels": pixels},
    )


def _said(error: Exception) -> str:
    """The kind of an error and its first line."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def _length(held: Any) -> int:
    """Its length, -1 where it has none."""
    try:
        return len(held)
    except TypeError:
        return -1


def _class_names(dataset: Any) -> tuple[str, ...]:
    """The data set's own names of its classes by number, none where it has none; where two have one name (ImageNet has two cranes) the number is added.

    `classes` is a list or an array of them, or a mapping between names and numbers; several words for one class (torchvision's ImageNet) are joined by commas.
    """
    held = getattr(dataset, "classes", None)
    if isinstance(held, Mapping):
        by_number = {c: name for name, c in held.items()} if all(isinstance(name, str) for name in held) else held
        held = [by_number[c] for c in sorted(by_number)] if set(by_number) == set(range(len(by_number))) else None
    if not isinstance(held, (list, tuple, np.ndarray)):
        return ()
    if all(isinstance(name, (int, float, np.number)) for name in held) and list(held) != list(range(len(held))):
        return ()  # the values that labels take, not names by number
    names = [", ".join(map(text_of, name)) if isinstance(name, (list, tuple)) else text_of(name) for name in held]
    times = Counter(names)
    return tuple(f"{name} ({c})" if times[name] > 1 else name for c, name in enumerate(names))


def _files_behind(dataset: Any) -> list[Path] | None:
    """The file of every row where the data set lists them in `samples` as torchvision's folders do, as pairs of a path and a class. Others use that name for something of their own."""
    listed: Any = getattr(dataset, "samples", None)
    if _length(listed) != len(dataset) or not all(
        isinstance(one, (tuple, list)) and len(one) == 2 and isinstance(one[0], (str, os.PathLike)) for one in listed
    ):
        return None
    files = [Path(path) for path, _ in listed]
    return files if all(files[row].is_file() for row in _some_rows(len(files), LABELS_LOOKED_AT)) else None


def _sizes_of(files: list[Path], locator: str) -> np.ndarray:
    """The bytes of every file. Raises DataError that names one which cannot be looked at."""
    try:
        return np.array([path.stat().st_size for path in files], dtype=np.int64)
    except OSError as error:
        raise DataError(f"{locator}: {error.filename} cannot be read ({error.strerror}). Mend it, or leave it out of the data set.") from error


def _some_rows(n: int, most: int) -> list[int]:
    """At most so many rows, spread over all."""
    return sorted({int(row) for row in np.linspace(0, n - 1, most)})


def _others_in_items(dataset: Any, given: Any, locator: str, any_inputs: bool) -> bool:
    """Whether the items of some rows show other class numbers than the data set's list of them says."""
    pairs = [(_plain(given[row]), _plain(_item(dataset, row, locator, any_inputs)[1])) for row in _some_rows(len(dataset), LABELS_LOOKED_AT)]
    return any(a != b for a, b in pairs if isinstance(a, (int, float)) and isinstance(b, (int, float)) and a == a)  # NaN is a missing one


def _bytes_of_text(text: Any, where: str) -> int:
    """Its size in UTF-8. Raises DataError where it is none, or cannot be written down."""
    try:
        return len(text.encode())
    except AttributeError:
        raise DataError(f"{where} is a {type(text).__name__}, not a text as the first one is. Mend it, or leave it out.") from None
    except UnicodeEncodeError as error:
        raise DataError(f"{where} holds a text that is no Unicode ({error.reason}). Read it with the encoding that it was written in.") from None


def _labels(given: Any, own: tuple[str, ...], class_names: Sequence[str] | None, locator: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class numbers and names: `class_names` of the training part where they are given, else the data set's `own`, else those that are found.

    A test part that names its classes otherwise than the training part is numbered by the names. Raises LabelError that names the rows.
    """
    values = np.asarray(given) if hasattr(given, "dtype") else given
    if not isinstance(values, np.ndarray) or values.ndim != 1:
        values = [_plain(value) for value in values]
    labels, found = integer_labels(values, locator)
    names = tuple(class_names or own or found)
    if holds_names(values):
        labels = among(labels, found, names, locator, known="the classes")
    elif class_names is not None and set(own) & set(names) and own != names:
        require_range(labels, own, locator)
        labels = among(labels, own, names, locator, known="the classes of the training part")
    if class_names is not None:
        require_range(labels, names, locator)
    return labels, names


def _plain(value: Any) -> Any:
    """A label without numpy or torch around it: one number or text, or a list of them."""
    if not hasattr(value, "tolist"):
        return value
    held = value.tolist()
    return held[0] if isinstance(held, list) and len(held) == 1 else held


def _item(dataset: Any, row: int, locator: str, any_inputs: bool = False) -> tuple[Any, Any]:
    """Input and label of a row (see `_pair`). Raises DataError that names the row where it cannot be read."""
    try:
        item = dataset[row]
    except ClpruneError:
        raise
    except Exception as error:  # whatever the user's data set raises
        raise DataError(f"{locator}: row {row} cannot be read ({_said(error)}). Mend it, or leave it out of the data set.") from error
    return _pair(item, locator, any_inputs)


def _shown_as_it_is(data: Any, read_input: Callable[[int], Any]) -> bool:
    """Whether the data set's `data` array is what its items show (it is not when a transform changes them), at some rows."""
    for row in _some_rows(len(data), 3):
        stored, seen = np.asarray(data[row]), np.asarray(read_input(row))
        if stored.dtype != np.uint8 or seen.shape[2:] not in ((), (1,), (3,)) or not np.array_equal(stored.squeeze(), seen.squeeze()):
            return False
    return True


def _pair(item: Any, locator: str, any_inputs: bool = False) -> tuple[Any, Any]:
    """Input and label of an item: a mapping, a named tuple with such names, or the first two of a sequence. With `any_inputs` the input of a mapping that names none is all but its label."""
    fields = getattr(item, "_fields", ())
    if set(INPUT_KEYS) & set(fields) and set(LABEL_KEYS) & set(fields):
        item = item._asdict()
    if isinstance(item, Mapping):
        x = next((item[key] for key in INPUT_KEYS if key in item), None)
        y = next((item[key] for key in LABEL_KEYS if key in item), None)
        if x is None and any_inputs:
            x = {key: value for key, value in item.items() if key not in LABEL_KEYS} or None
        if x is None or y is None:
            raise UsageError(
                f"{locator} gives mappings with {', '.join(map(str, item))}; an input ({', '.join(INPUT_KEYS)}) and a label ({', '.join(LABEL_KEYS)}) are needed."
            )
        return x, y
    if isinstance(item, Sequence) and len(item) >= 2:
        return item[0], item[1]
    raise UsageError(f"{locator} gives items of type {type(item).__name__}; (input, label) is needed.")


class Pixels(NamedTuple):
    """How the numbers of a data set's images become 0..255: times `scale` plus `offset`. They lie in `low`..`high`."""

    scale: float
    offset: float
    low: float
    high: float


AS_THEY_ARE = Pixels(1, 0, 0, 255)


def _pixels(dataset: Any, locator: str) -> Pixels | None:
    """The one rule for all images, from items spread over the data set: a single dark image does not say what its numbers mean. None where they are no floats. Raises DataError for what is no image."""
    seen = [_channels_last(_item(dataset, row, locator)[0], f"{locator}: row {row}") for row in _some_rows(len(dataset), ITEMS_LOOKED_AT)]
    arrays = [array for array in seen if isinstance(array, np.ndarray) and array.dtype != np.uint8]
    if not arrays:
        return None
    low, high = min(float(array.min()) for array in arrays), max(float(array.max()) for array in arrays)
    kind = "f" if any(array.dtype.kind in "fb" for array in arrays) else arrays[0].dtype.kind
    if kind == "f" and low >= 1 - ABOUT_ONE and high <= ABOUT_ONE:
        return Pixels(255, 0, 1 - ABOUT_ONE, ABOUT_ONE)
    if kind == "f" and low < 0 and max(-low, high) <= FARTHEST:
        return Pixels(64, 128, -np.inf, np.inf)  # two deviations each way
    pixel_scale(low, high, kind, f"{locator}: images")
    return AS_THEY_ARE if kind == "f" else None


def _is_image(value: Any) -> bool:
    """Whether an input has the form of an image, whatever its numbers are."""
    if not (hasattr(value, "shape") or hasattr(value, "numpy")):
        return isinstance(value, Image.Image)
    return _has_form(_turned(value))


def _turned(value: Any) -> np.ndarray:
    """A tensor or array as an array, one of (C, H, W) as (H, W, C)."""
    array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    channels = _channels(array)
    return array.transpose(1, 2, 0) if array.ndim == 3 and array.shape[0] in channels and array.shape[2] not in channels else array


def _channels(array: np.ndarray) -> tuple[int, ...]:
    return (1, 3, 4) if array.dtype == np.uint8 else (1, 3)  # the fourth is transparency


def _has_form(array: np.ndarray) -> bool:
    return bool(array.size) and array.dtype.kind in "fiub" and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in _channels(array)))


def _channels_last(value: Any, where: str) -> Any:
    """A tensor (C, H, W) or array as (H, W, C) or (H, W); PIL images as they are. Raises DataError for other shapes and for what is not finite."""
    if not (hasattr(value, "shape") or hasattr(value, "numpy")):
        return value
    array = _turned(value)
    if not _has_form(array):
        raise DataError(f"{where} has shape {array.shape} and type {array.dtype}; images are (H, W), (H, W, C) or (C, H, W) with C 1 or 3.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{where} holds NaN or infinity. Mend it, or leave it out.")
    return array


def _as_image(value: Any, pixels: Pixels | None, where: str) -> Any:
    """An array (H, W, C) or (H, W) of uint8; PIL images as they are. Without a rule numbers lie in 0..255. Raises DataError for numbers outside those that the data set showed."""
    array = _channels_last(value, where)
    if not isinstance(array, np.ndarray) or array.dtype == np.uint8:
        return array
    pixels = pixels or AS_THEY_ARE
    low, high = float(array.min()), float(array.max())
    if low < pixels.low or high > pixels.high:
        raise DataError(
            f"{where}: values lie in [{low:g}, {high:g}], those of the items looked at first in [{pixels.low:g}, {pixels.high:g}]. Scale all images alike."
        )
    return np.round(np.clip(array.astype(np.float32) * pixels.scale + pixels.offset, 0, 255)).astype(np.uint8)
