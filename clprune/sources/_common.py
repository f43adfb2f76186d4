"""Checks that every source goes through."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int
from numpy.dtypes import StringDType

from clprune.datatypes import UNLABELLED
from clprune.decoding import in_blocks, shape_of
from clprune.errors import DataError, LabelError, UsageError

TRAIN_SPLITS = ("train", "training")
TEST_SPLITS = ("test", "val", "valid", "validation", "dev")  # the first one found is the test part
MOST_CLASSES = 1_000_000  # a larger class number is taken for something else than a class
IDS_A_LOOK = 100_000  # joined and looked through at once
MAX_PIXELS = 64_000_000  # an image with more is refused before it is decoded


def shown(items: Sequence[Any], n: int = 5) -> str:
    """The first few items for a message."""
    return ", ".join(str(item) for item in items[:n]) + (f" and {len(items) - n} more" if len(items) > n else "")


def split_among(names: Iterable[str], wanted: Sequence[str]) -> str | None:
    """The first of the `wanted` names of splits that is there, in any case, as it is written in `names`.

    >>> split_among(["Train", "Valid"], TEST_SPLITS)
    'Valid'
    """
    written = {name.lower(): name for name in names}
    return next((written[name] for name in wanted if name in written), None)


def options_of(query: str, known: Sequence[str], locator: str) -> dict[str, str]:
    """The options behind the `?` of a locator, `a=1&b=2`. Raises UsageError for one that is not `known`."""
    options = dict(part.partition("=")[::2] for part in query.split("&") if part)
    if unknown := [name for name in options if name not in known]:
        raise UsageError(f"{locator}: there is no option {shown(unknown)} (options: {', '.join(known) or 'none'}).")
    return options


def text_of(value: Any) -> str:
    """An id, a label or a class name as text: bytes are UTF-8 (what is not is written as escapes), None is empty."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else "" if value is None else str(value)


def require_ids(sample_ids: Sequence[str] | np.ndarray, locator: str) -> np.ndarray:
    """Ids as an array of strings. Raises DataError that names duplicates, empty ids and ids with a NUL in them, or where there are no samples."""
    ids = np.asarray(sample_ids, dtype=StringDType())
    if not len(ids):
        raise DataError(f"{locator} holds no samples.")
    for start in range(0, len(ids), IDS_A_LOOK):  # numpy takes strings that differ behind a NUL only for equal
        block = sample_ids[start : start + IDS_A_LOOK]
        block = block.tolist() if isinstance(block, np.ndarray) else block
        if "\0" in "".join(block):
            seen = [f"row {start + row}: {name!r}" for row, name in enumerate(block) if "\0" in name]
            raise DataError(f"{locator}: ids must not hold the character NUL ({shown(seen)}). Take it out.")
    if len(empty := np.flatnonzero(np.strings.str_len(ids) == 0)):
        raise DataError(f"{locator}: {len(empty)} samples have no id (rows {shown(empty.tolist())}). Give every sample one, or leave the ids out.")
    ordered = ids if (ids[1:] > ids[:-1]).all() else np.sort(ids)  # most listings are in order: then there is nothing to sort
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if len(twice):
        raise DataError(
            f"{locator}: ids must be unique, these occur more than once: {shown(twice.tolist())}. Take what is there twice out, or give every sample an id of its own."
        )
    return ids


def row_ids(n: int) -> list[str]:
    """Ids for samples that have none: the row number, padded so that the order of ids is the order of rows."""
    width = len(str(max(n - 1, 0)))
    return [f"{row:0{width}d}" for row in range(n)]


def require_distinct(class_names: Sequence[str], locator: str) -> None:
    """Raise LabelError where two classes have one name."""
    if twice := sorted({name for name, n in Counter(class_names).items() if n > 1}):
        raise LabelError(f"{locator}: class names must differ, these occur more than once: {shown(twice)}. Give every class its own name.")


def require_range(
    labels: Int[np.ndarray, "N"],
    class_names: Sequence[str],
    locator: str,
    *,
    ids: Sequence[str] | np.ndarray | None = None,
    all_labelled: bool = False,
) -> None:
    """Raise LabelError where labels are no number of a class, with `all_labelled` also where some are missing (-1). Names rows, or the `ids` of them."""
    n_classes = len(class_names)
    wrong = np.flatnonzero((labels >= n_classes) | (labels < (0 if all_labelled else UNLABELLED)))
    if len(wrong):
        seen = shown([f"row {row}: {labels[row]}" if ids is None else f"'{ids[row]}': {labels[row]}" for row in wrong.tolist()])
        kind = "missing (-1)" if (labels[wrong] == UNLABELLED).all() else f"outside 0..{n_classes - 1}" if n_classes else "negative"
        wanted = f"one of its {n_classes} classes" if n_classes else "a class number from 0 on"
        raise LabelError(f"{locator}: {len(wrong)} labels are {kind} ({seen}). Give every sample {wanted}, or leave those rows out.")


def require_classes(labels: Int[np.ndarray, "N"], class_names: Sequence[str], locator: str, *, all_labelled: bool = False) -> list[str]:
    """Notes on the classes. Raises LabelError where labels are out of range, or of one class only; with `all_labelled` also where some are missing (-1)."""
    require_distinct(class_names, locator)
    require_range(labels, class_names, locator, all_labelled=all_labelled)
    n_classes = len(class_names)
    unlabelled = np.flatnonzero(labels == UNLABELLED)
    if len(unlabelled) == len(labels):
        return ["no sample has a label"]
    sizes = np.bincount(labels[labels >= 0], minlength=n_classes)
    if np.count_nonzero(sizes) < 2:
        raise LabelError(
            f"{locator}: all {int(sizes.sum())} labelled samples are of one class ({class_names[int(sizes.argmax())]}); there is nothing to learn. Check the labels."
        )
    notes = []
    if len(unlabelled):
        notes.append(
            f"{len(unlabelled):,} of {len(labels):,} samples {'has' if len(unlabelled) == 1 else 'have'} no label (rows {shown(unlabelled.tolist())}): they are looked at, not learned from"
        )
    if len(empty := np.flatnonzero(sizes == 0)):
        notes.append(f"no samples of {shown([class_names[c] for c in empty.tolist()])}")
    if len(single := np.flatnonzero(sizes == 1)):
        notes.append(f"a single sample of {shown([class_names[c] for c in single.tolist()])}: it is always kept, and its scores mean little")
    alike = Counter(name.strip().casefold() for name in class_names)
    if twice := [repr(name) for name in class_names if alike[name.strip().casefold()] > 1]:
        notes.append(f"classes {shown(twice)} differ by spaces or by case only: mend the labels if some of them are one class")
    return notes


def integer_labels(values: Any, locator: str, column: str = "label") -> tuple[Int[np.ndarray, "N"], tuple[str, ...]]:
    """Class numbers and names from a column of whole numbers or of texts (then classes are the sorted texts); missing ones (-1, NaN, None, empty) are UNLABELLED.

    Bytes are UTF-8. Raises LabelError that names the first rows with broken values, and for several labels a sample.
    """
    array = _one_each(values, locator, column)
    if array.dtype.kind in "iu":
        if len(wrong := np.flatnonzero(array >= MOST_CLASSES)):  # before the cast: what lies above int64 would come out negative
            seen = shown([f"row {row}: {array[row]}" for row in wrong])
            raise LabelError(
                f"{locator}: {len(wrong)} values of '{column}' are too large for class numbers ({seen}). Number the classes from 0, or give their names."
            )
        labels = array.astype(np.int64)
        return labels, tuple(str(c) for c in range(int(labels.max(initial=UNLABELLED)) + 1))
    if array.dtype.kind == "c":
        raise LabelError(f"{locator}: '{column}' holds complex numbers, which are not whole numbers. Give class numbers or class names.")
    if array.dtype.kind == "b":
        return array.astype(np.int64), ("false", "true")
    if array.dtype.kind == "f":
        missing = np.isnan(array)
        bad = np.flatnonzero(~missing & (~np.isfinite(array) | (array != np.round(array))))
        if len(bad):
            seen = shown([f"row {row}: {array[row]}" for row in bad])
            raise LabelError(f"{locator}: {len(bad)} values of '{column}' are not whole numbers ({seen}). Give class numbers or class names.")
        if len(wrong := np.flatnonzero(array >= MOST_CLASSES)):  # a float above int64 would wrap in the cast
            seen = shown([f"row {row}: {array[row]:g}" for row in wrong])
            raise LabelError(f"{locator}: {len(wrong)} values of '{column}' are too large for class numbers ({seen}). Number the classes from 0.")
        return integer_labels(np.where(missing, UNLABELLED, array).astype(np.int64), locator, column)
    held = array.tolist()
    if all(value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)) for value in held):
        return integer_labels(np.array([np.nan if value is None else value for value in held], dtype=np.float64), locator, column)
    if all(value is None or isinstance(value, bool) for value in held):
        return np.array([UNLABELLED if value is None else int(value) for value in held], dtype=np.int64), ("false", "true")
    texts = ["" if not (text := text_of(value)).strip() or text == "nan" else text for value in held]
    names = sorted(set(texts) - {""})
    return numbered(texts, names), tuple(names)


def _one_each(values: Any, locator: str, column: str) -> np.ndarray:
    """Labels as an array (N,). Raises LabelError that names the first rows where a sample has several, or something else than a number or a text."""
    try:
        array = np.asarray(values)
    except ValueError:  # lists of unlike lengths
        array = np.empty(len(values), dtype=object)
        array[:] = values
    if array.ndim == 1 and array.dtype.kind != "O":
        return array
    several = (
        list(range(len(array))) if array.ndim > 1 else [row for row, value in enumerate(array) if np.ndim(value) or isinstance(value, (dict, set))]
    )
    if several:
        seen = shown([f"row {row}: {str(array[row])[:40]}" for row in several], 3)
        raise LabelError(
            f"{locator}: {len(several)} values of '{column}' are not one label ({seen}). clprune needs one class a sample: a number or a name."
        )
    return array


def numbered(texts: Sequence[str], class_names: Sequence[str]) -> Int[np.ndarray, "N"]:
    """The number of each text among the class names, UNLABELLED for empty ones. Every other text must be there."""
    number = {name: c for c, name in enumerate(class_names)} | {"": UNLABELLED}
    return np.array([number[text] for text in texts], dtype=np.int64)


def holds_names(values: Any) -> bool:
    """Whether `integer_labels` takes these labels for names rather than for numbers."""
    array = np.asarray(values)
    return array.dtype.kind not in "iufb" and not all(value is None or isinstance(value, (int, float)) for value in array.tolist())


def among(
    labels: Int[np.ndarray, "N"],
    found: Sequence[str],
    class_names: Sequence[str],
    locator: str,
    *,
    ids: Sequence[str] | np.ndarray | None = None,
    known: str = "class_names",
) -> Int[np.ndarray, "N"]:
    """Labels that number the names `found`, numbered as `class_names` number them. Raises LabelError that names classes which are not there, with rows or `ids`."""
    number = {name: c for c, name in enumerate(class_names)}
    translated = np.array([*(number.get(name, -2) for name in found), UNLABELLED], dtype=np.int64)[labels]  # -1 points to the last
    if len(wrong := np.flatnonzero(translated < UNLABELLED)):
        seen = shown([f"row {row}: {found[labels[row]]}" if ids is None else f"'{ids[row]}': {found[labels[row]]}" for row in wrong.tolist()])
        missing = shown(sorted({found[c] for c in labels[wrong].tolist()}))
        raise LabelError(
            f"{locator}: labels {missing} are not among {known} ({shown(class_names)}): {len(wrong)} samples ({seen}). Name classes alike, or leave these out."
        )
    return translated


ABOUT_ONE = 1.01  # what was resized by splines leaves [0, 1] a little


def pixel_scale(low: float, high: float, kind: str, where: str) -> int:
    """What pixels of type `kind` in [low, high], those of a whole set, are to be multiplied by for 0..255. Raises DataError where they are no pixels."""
    if kind not in "fiu":
        raise DataError(f"{where}: images must be numbers.")
    if kind == "f" and 1 - ABOUT_ONE <= low and high <= ABOUT_ONE:
        return 255
    if not (low >= 0 and high <= 255):  # NaN lies nowhere
        raise DataError(f"{where}: values lie in [{low:g}, {high:g}]; give pixels in [0, 1] or [0, 255].")
    return 1


def text_of_name(name: str) -> str:
    """A file name as text that can be stored: bytes that are not UTF-8 are written as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


class Look(NamedTuple):
    """What the head of an image file says: its size in bytes, and width, height and channels (1 gray, else 3) as it is shown."""

    n_bytes: int
    width: int
    height: int
    channels: int


def look_at(head: Any) -> Look | str:
    """What an image file (path or bytes) is, from its header and its end; a sentence where it is not a whole image of a sane size. A small file is read once."""
    from PIL import Image

    try:
        size, content, tail = _ends(head)
        if size == 0:
            return "the file is empty"
        with Image.open(io.BytesIO(content) if len(content) == size else head) as image:
            width, height, channels = shape_of(image)
            if width * height > MAX_PIXELS:
                return f"{image.size[0]} x {image.size[1]} pixels are more than {MAX_PIXELS:,}"
            if image.format == "PNG":
                image.verify()
            elif image.format not in ("JPEG", "MPO"):
                image.load()
            elif b"\xff\xd9" not in tail and not _ends_before(head if isinstance(head, bytes) else Path(head).read_bytes()):
                return "the file is cut off"
        return Look(size, width, height, channels)
    except Exception as error:  # PIL raises OSError, SyntaxError, ValueError, struct.error, its own bomb error, ...
        return f"not a readable image ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"


def _ends_before(content: bytes) -> bool:
    """Whether a JPEG picture ends somewhere before the end of its file: phones write a film, or notes of their own, behind it. An end inside of what precedes its pixels is that of a thumbnail."""
    at = 2
    while content[at : at + 1] == b"\xff":
        if content[at + 1 : at + 2] == b"\xda":
            return content.find(b"\xff\xd9", at) >= 0
        at += 1 if content[at + 1 : at + 2] == b"\xff" else 2 + max(2, int.from_bytes(content[at + 2 : at + 4], "big"))
    return False


def look_at_each(
    heads: Sequence[Any], on_progress: Callable[[int, int], None] | None = None, *, missing: str = "there is no such file"
) -> list[Look | str]:
    """`look_at` for paths or bytes; `missing` where there is None or no file."""

    def look(row: int) -> Look | str:
        head = heads[row]
        return missing if head is None or (isinstance(head, Path) and not head.is_file()) else look_at(head)

    return [one for block in in_blocks(look, len(heads), on_progress) for one in block]


SMALL = 65_536  # bytes: a file up to this size is read whole, so that it is opened once


def _ends(head: Any) -> tuple[int, bytes, bytes]:
    """Size of a file or of bytes, its beginning (all of it where it is small), and its last bytes."""
    if isinstance(head, bytes):
        return len(head), head, head[-64:]
    with open(head, "rb", buffering=0) as file:
        content = file.read(SMALL)
        if len(content) < SMALL:
            return len(content), content, content[-64:]
        size = file.seek(0, 2)
        file.seek(size - 64)
        return size, content, file.read(64)


def refuse_skipped(skipped: Sequence[tuple[str, str]], locator: str, *, strict: bool, n_left: int) -> None:
    """Raise DataError where inputs were left out and `strict` is set, or nothing is left."""
    if skipped and (strict or not n_left):
        listed = "; ".join(f"{name}: {reason}" for name, reason in skipped[:10])
        more = f"; and {len(skipped) - 10} more" if len(skipped) > 10 else ""
        raise DataError(
            f"{locator}: {len(skipped)} inputs cannot be used ({listed}{more}). Mend or remove them" + (", or leave out --strict." if n_left else ".")
        )
