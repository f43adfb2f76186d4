"""Tables with an input column (`path` or `file_name`, `image` or `text`), `label`, optional `id` and `split`; shared by the sources that hold one."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clprune.datatypes import Source
from clprune.errors import DataError
from clprune.sources._common import integer_labels, numbered, problem_of_image, refuse_skipped, require_classes, require_ids, row_ids

TEST_SPLITS = ("test", "val", "valid", "validation")


def source_of_table(
    table: pa.Table, locator: str, root: Path, *, strict: bool, class_names: tuple[str, ...] | None = None, is_test: bool = False
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
        train = source_of_table(train_table, locator, root, strict=strict, class_names=class_names)
        if not len(test_table):
            return train
        return replace(
            train, load_test=lambda: source_of_table(test_table, locator, root, strict=strict, class_names=train.class_names, is_test=True)
        )
    class_names = class_names or _declared_classes(table)
    label_values = (
        table["label"].to_pylist() if table["label"].null_count or not pa.types.is_primitive(table["label"].type) else table["label"].to_numpy()
    )
    labels, found = integer_labels(label_values, locator)
    if class_names and not pa.types.is_primitive(table["label"].type):
        if unknown := sorted(set(found) - set(class_names)):
            raise DataError(f"{locator}: unknown classes {', '.join(unknown[:5])} (known: {', '.join(class_names)}).")
        labels = numbered([found[c] if c >= 0 else "" for c in labels.tolist()], class_names)
    names = class_names or found
    ids = (
        [str(value) for value in table["id"].to_pylist()]
        if "id" in columns
        else table["path"].to_pylist()
        if input_column == "path"
        else row_ids(len(table))
    )
    skipped: list[tuple[str, str]] = []
    if input_column == "text":
        texts = table["text"]
        good = [row for row, text in enumerate(texts.to_pylist()) if text is not None]
        skipped = [(ids[row], "the text is missing") for row in sorted(set(range(len(table))) - set(good))]
        sizes, paths = [len(str(texts[row].as_py()).encode()) for row in good], None
    elif input_column == "path":
        every = [_resolved(root, value) for value in table["path"].to_pylist()]
        problems = [problem_of_image(path) if path.is_file() else "there is no such file" for path in every]
        good = [row for row, problem in enumerate(problems) if problem is None]
        skipped = [(ids[row], problem) for row, problem in enumerate(problems) if problem]
        paths = [every[row] for row in good]
        sizes = [path.stat().st_size for path in paths]
    else:
        contents = _contents(table["image"], locator)
        problems = [problem_of_image(content.as_py()) if content.is_valid else "the image is missing" for content in contents]
        good = [row for row, problem in enumerate(problems) if problem is None]
        skipped = [(ids[row], problem) for row, problem in enumerate(problems) if problem]
        sizes, paths = pc.binary_length(contents).to_numpy(zero_copy_only=False)[good].tolist(), None
    refuse_skipped(skipped, locator, strict=strict, n_left=len(good))
    kept_labels = labels[good]
    notes = [] if is_test else require_classes(kept_labels, names, locator)
    sample_ids = require_ids([ids[row] for row in good], locator)
    common: dict[str, Any] = {"locator": locator, "sample_ids": sample_ids, "labels": kept_labels, "class_names": names}
    rows = np.array(good)
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


def _resolved(root: Path, value: Any) -> Path:
    return root / str(value)


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
