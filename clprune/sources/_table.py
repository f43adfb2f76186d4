"""Tables with an input column (`path` or `file_name`, `image` or `text`), `label`, optional `id` and `split`; shared by the sources that hold one."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int
from numpy.dtypes import StringDType

from clprune.datatypes import Source
from clprune.errors import DataError
from clprune.sources._common import Look, integer_labels, look_at_each, numbered, refuse_skipped, require_classes, require_ids, row_ids

LOOKED_AT = 1_000_000  # rows of paths up to which listing opens every file: about 40 microseconds each where the files are near
ROWS_AT_ONCE = 65_536  # strings that exist as Python objects at once
TEST_SPLITS = ("test", "val", "valid", "validation")


def source_of_table(
    table: pa.Table,
    locator: str,
    root: Path,
    *,
    strict: bool,
    class_names: tuple[str, ...] | None = None,
    is_test: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Source:
    """A source from a table in memory. Paths are relative to `root`; rows of a `split` column named test or val become the test split."""
    if "path" not in table.column_names and "file_name" in table.column_names:
        table = table.rename_columns(["path" if name == "file_name" else name for name in table.column_names])
    columns = table.column_names
    input_column = next((name for name in ("image", "path", "text") if name in columns), None)
    if input_column is None or "label" not in columns:
        raise DataError(f"{locator} needs a column `path`, `image` or `text`, and a column `label`; it has {', '.join(columns)}.")
    if not len(table):
        raise DataError(f"{locator} holds no rows.")
    if "split" in columns:
        held_out = pc.is_in(pc.utf8_lower(pc.cast(table["split"], pa.string())), pa.array(TEST_SPLITS))
        test_table, train_table = table.filter(held_out).drop_columns("split"), table.filter(pc.invert(held_out)).drop_columns("split")
        train = source_of_table(train_table, locator, root, strict=strict, class_names=class_names, on_progress=on_progress)
        if not len(test_table):
            return train
        return replace(
            train, load_test=lambda: source_of_table(test_table, locator, root, strict=strict, class_names=train.class_names, is_test=True)
        )
    class_names = class_names or _declared_classes(table)
    labels, found = _labels(table["label"], locator)
    if class_names and not pa.types.is_primitive(table["label"].type):
        if unknown := sorted(set(found) - set(class_names)):
            raise DataError(f"{locator}: unknown classes {', '.join(unknown[:5])} (known: {', '.join(class_names)}).")
        labels = numbered([found[c] if c >= 0 else "" for c in labels.tolist()], class_names)
    names = class_names or found
    ids = (
        _texts(table["id" if "id" in columns else "path"])
        if "id" in columns or input_column == "path"
        else np.array(row_ids(len(table)), StringDType())
    )
    skipped: list[tuple[str, str]] = []
    not_looked: list[str] = []
    good: Sequence[int]
    sizes: Any
    if input_column == "text":
        texts = table["text"]
        good = [row for row, text in enumerate(texts.to_pylist()) if text is not None]
        skipped = [(ids[row], "the text is missing") for row in sorted(set(range(len(table))) - set(good))]
        sizes, paths, shapes = [len(str(texts[row].as_py()).encode()) for row in good], None, None
    elif input_column == "path":
        every = PathsBelow(root, ids if "id" not in columns else _texts(table["path"]))
        if len(every) > LOOKED_AT and not strict:
            good = range(len(table))
            sizes, paths, shapes = table["bytes"].to_numpy() if "bytes" in columns else np.zeros(len(table)), every, None
            not_looked = [f"the files of more than {LOOKED_AT:,} rows are not looked at before they are decoded; --strict does"]
        else:
            good, skipped, sizes, shapes = _looked_at(ids, look_at_each(every, on_progress))
            paths = every.part(np.array(good, dtype=np.int64))
    else:
        contents = _contents(table["image"], locator)
        heads = _Bytes(contents)
        good, skipped, sizes, shapes = _looked_at(ids, look_at_each(heads, on_progress, missing="the image is missing"))
        paths = None
    refuse_skipped(skipped, locator, strict=strict, n_left=len(good))
    kept_labels = labels[good]
    notes = [] if is_test else require_classes(kept_labels, names, locator)
    sample_ids = require_ids(ids[good], locator)
    common: dict[str, Any] = {"locator": locator, "sample_ids": sample_ids, "labels": kept_labels, "class_names": names, "shapes": shapes}
    rows = np.array(good)
    notes = [*notes, *not_looked]
    others = [name for name in columns if name not in (input_column, "label", "id")]
    by_name = {name: (lambda name=name: table[name].take(rows).to_pylist()) for name in others}  # read when they are asked for
    common |= {"sample_bytes": np.array(sizes, dtype=np.int64), "skipped": tuple(skipped), "facts": {"notes": notes, "columns": by_name}}
    if input_column == "text":
        return Source(**common, kind="text", read_input=lambda index: texts[int(rows[index])].as_py())
    if paths is not None:
        common["facts"] |= {"paths_root": str(root)}
        return Source(
            **common,
            paths=paths,
            read_input=lambda index: _image(io.BytesIO(paths[index].read_bytes())),
            read_bytes=lambda index: (paths[index].read_bytes(), paths[index].suffix.lower()),
        )
    read = lambda index: contents[int(rows[index])].as_py()  # noqa: E731
    return Source(**common, read_input=lambda index: _image(io.BytesIO(read(index))), read_bytes=lambda index: (read(index), _suffix(read(index))))


def _declared_classes(table: pa.Table) -> tuple[str, ...] | None:
    """Class names from the Hugging Face metadata of a Parquet schema, if it has them."""
    metadata = (table.schema.metadata or {}).get(b"huggingface")
    if metadata is None:
        return None
    try:
        names = json.loads(metadata)["info"]["features"]["label"].get("names")
    except (ValueError, KeyError, AttributeError):
        return None
    return tuple(str(name) for name in names) if names else None


class PathsBelow(Sequence[Path]):
    """Files of a table by their names below `root`: a path is made when it is asked for, since millions of them would fill the memory."""

    def __init__(self, root: Path, names: np.ndarray) -> None:
        self.root, self.names = root, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: Any) -> Any:
        return self.part(row) if isinstance(row, slice) else self.root / str(self.names[row])

    def part(self, rows: Any) -> PathsBelow:
        return PathsBelow(self.root, self.names[rows])


class _Bytes(Sequence[Any]):
    """The entries of a binary column by row, None where one is missing."""

    def __init__(self, contents: pa.ChunkedArray) -> None:
        self.contents = contents

    def __len__(self) -> int:
        return len(self.contents)

    def __getitem__(self, row: Any) -> Any:
        return self.contents[row].as_py()


def _looked_at(ids: np.ndarray, looks: list[Look | str]) -> tuple[list[int], list[tuple[str, str]], Int[np.ndarray, "M"], Int[np.ndarray, "M 3"]]:
    """Rows that can be used, what is wrong with the others, and of the usable ones their sizes in bytes and their shapes."""
    good = [row for row, look in enumerate(looks) if not isinstance(look, str)]
    held = np.array([look for look in looks if not isinstance(look, str)], dtype=np.int64).reshape(-1, 4)
    return good, [(str(ids[row]), look) for row, look in enumerate(looks) if isinstance(look, str)], held[:, 0], held[:, 1:]


def _texts(column: pa.ChunkedArray) -> np.ndarray:
    """A column as an array of strings, as `str` writes its values. Strings are taken over part by part, so that millions of them do not exist as Python objects at once."""
    if column.null_count or not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return np.array([str(value) for value in column.to_pylist()], dtype=StringDType())
    whole = np.empty(len(column), dtype=StringDType())
    done = 0
    for chunk in column.chunks:
        for start in range(0, len(chunk), ROWS_AT_ONCE):
            part = chunk.slice(start, ROWS_AT_ONCE).to_pylist()
            whole[done : done + len(part)] = part
            done += len(part)
    return whole


def _labels(column: pa.ChunkedArray, locator: str) -> tuple[Int[np.ndarray, "N"], tuple[str, ...]]:
    """Class numbers and names; of names each different one is looked at once."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        told = column.combine_chunks().dictionary_encode(null_encoding="encode")
        told = told.combine_chunks() if isinstance(told, pa.ChunkedArray) else told
        numbers, names = integer_labels(told.dictionary.to_pylist(), locator)
        return numbers[told.indices.to_numpy()], names
    return integer_labels(column.to_pylist() if column.null_count or not pa.types.is_primitive(column.type) else column.to_numpy(), locator)


def _contents(column: pa.ChunkedArray, locator: str) -> pa.ChunkedArray:
    """The encoded bytes of an image column: bytes, Hugging Face's struct of bytes and path, or base64 in text."""
    if pa.types.is_struct(column.type):
        column = pc.struct_field(column, "bytes")
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        try:
            column = pa.chunked_array(
                [[None if value is None else base64.b64decode(value, validate=True) for value in column.to_pylist()]], pa.binary()
            )
        except ValueError:
            pass  # names of files, most likely: said below
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise DataError(
            f"{locator}: the column `image` has type {column.type}; it must hold encoded bytes, or base64. For file names call the column `path`."
        )
    return column


def _image(place: Any):  # type: ignore[no-untyped-def]
    from PIL import Image

    return Image.open(place)


def _suffix(content: bytes) -> str:
    """The usual suffix of encoded image bytes."""
    for start, suffix in ((b"\x89PNG", ".png"), (b"\xff\xd8", ".jpg"), (b"GIF8", ".gif"), (b"BM", ".bmp"), (b"RIFF", ".webp")):
        if content.startswith(start):
            return suffix
    return ".bin"
