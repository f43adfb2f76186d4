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
from clprune.decoding import suffix_of
from clprune.errors import DataError
from clprune.sources._common import (
    TEST_SPLITS,
    TRAIN_SPLITS,
    Look,
    among,
    holds_names,
    integer_labels,
    look_at_each,
    refuse_skipped,
    require_classes,
    require_ids,
    require_range,
    row_ids,
    shown,
    text_of,
)

SUFFIXES = (".parquet", ".csv", ".jsonl")
INPUTS = ("image", "path", "file_name", "text")  # columns; `file_name` is `path` as Hugging Face calls it
LOOKED_AT = 1_000_000  # rows of paths up to which listing opens every file: about 40 microseconds each where the files are near
ROWS_AT_ONCE = 65_536  # strings that exist as Python objects at once


def parts_of(place: Path) -> list[Path]:
    """The files of a table that was written as a folder called like one file, as Spark does, sorted; none where the folder holds something else, such as classes of images."""
    suffix = place.suffix.lower()
    if suffix not in SUFFIXES or not place.is_dir():
        return []
    found = (*place.glob("*"), *place.glob("*=*/**/*"))
    return sorted(path for path in found if path.suffix.lower() == suffix and path.name[0] not in "._" and path.is_file())


def source_of_table(
    table: pa.Table,
    locator: str,
    root: Path,
    *,
    strict: bool,
    class_names: tuple[str, ...] | None = None,
    is_test: bool = False,
    files: Sequence[str] = (),
    on_progress: Callable[[int, int], None] | None = None,
) -> Source:
    """A source from a table in memory, which was read from these `files`. Paths are relative to `root`; rows of a `split` column named as in TEST_SPLITS become the test split.

    Raises DataError or LabelError that names the row or the id; labels of a test split must be among `class_names`, those of the training part.
    """
    if "path" not in table.column_names and "file_name" in table.column_names:
        table = table.rename_columns(["path" if name == "file_name" else name for name in table.column_names])
    columns = table.column_names
    input_column = next((name for name in INPUTS if name in columns), None)
    if input_column is None or "label" not in columns:
        raise DataError(
            f"{locator} needs a column `path`, `image` or `text`, and a column `label`, in these letters; it has {', '.join(f'`{name}`' for name in columns)}. Say which are meant: `FILE?path=COLUMN&label=COLUMN`."
        )
    if twice := [name for name in ("label", "id", "split", "image", "path", "text", "bytes") if columns.count(name) > 1]:
        raise DataError(f"{locator} has several columns of one name ({shown(twice)}). Rename or remove all but one of each.")
    if not len(table):
        raise DataError(f"{locator} holds no rows.")
    table = _of_usual_types(table)
    if "split" in columns:
        train_table, test_table = _parts(table, locator)
        train = source_of_table(train_table, locator, root, strict=strict, class_names=class_names, files=files, on_progress=on_progress)
        if not len(test_table):
            return train
        return replace(
            train,
            load_test=lambda: source_of_table(test_table, locator, root, strict=strict, class_names=train.class_names, is_test=True, files=files),
        )
    ids = _ids(table, input_column, locator)
    labels, names = _labels_among(table["label"], class_names or declared_classes(table), locator, ids, is_test=is_test)
    skipped: list[tuple[str, str]] = []
    not_looked: list[str] = []
    good: Sequence[int]
    sizes: Any
    if input_column == "text":
        texts = _as_texts(table["text"], locator)
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
        contents = _Contents(*_contents(table["image"], locator), root)
        good, skipped, sizes, shapes = _looked_at(ids, look_at_each(contents, on_progress, missing="the image is missing"))
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
    facts = {"notes": notes, "columns": by_name, "files": files}
    common |= {"sample_bytes": np.array(sizes, dtype=np.int64), "skipped": tuple(skipped), "facts": facts}
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
    common["facts"] |= {"files": [*files, *contents.files(good)]}
    read = lambda index: contents.read(int(rows[index]))  # noqa: E731
    return Source(**common, read_input=lambda index: _image(io.BytesIO(read(index))), read_bytes=lambda index: (read(index), suffix_of(read(index))))


def _parts(table: pa.Table, locator: str) -> tuple[pa.Table, pa.Table]:
    """Rows of the training part and of the test part by the column `split`. Raises DataError for a split of an unknown name, or where no row is for training."""
    told = pc.utf8_lower(pc.utf8_trim_whitespace(pc.fill_null(pc.cast(table["split"], pa.string()), "")))
    held_out, learned_from = pc.is_in(told, pa.array(TEST_SPLITS)), pc.is_in(told, pa.array(TRAIN_SPLITS))
    known = f"Known are {', '.join((*TRAIN_SPLITS, *TEST_SPLITS))}"
    unknown = table["split"].filter(pc.invert(pc.or_(held_out, learned_from)))
    if len(unknown):
        names = ["(empty)" if name in (None, "") else repr(name) for name in unknown.unique().to_pylist()]
        raise DataError(
            f"{locator}: the column `split` of {len(unknown)} rows holds {shown(names)}. {known}: write one of them, or leave the column out."
        )
    train, test = table.filter(learned_from).drop_columns("split"), table.filter(held_out).drop_columns("split")
    if not len(train):
        names = table["split"].unique().to_pylist()
        raise DataError(f"{locator}: all {len(table)} rows are of the split {shown(names)}, none is left for training. {known}.")
    return train, test


def _ids(table: pa.Table, input_column: str, locator: str) -> np.ndarray:
    """The ids of the rows as they are written: the column `id`, else the paths, else the row numbers. Raises DataError where `id` is empty in a row."""
    if "id" in table.column_names:
        ids = _texts(table["id"])
        if len(empty := np.flatnonzero(np.strings.str_len(ids) == 0)):
            raise DataError(
                f"{locator}: the column `id` is empty in {len(empty)} rows (rows {shown(empty.tolist())}). Give every row an id, or leave it out."
            )
        return ids
    return _texts(table["path"]) if input_column == "path" else np.array(row_ids(len(table)), StringDType())


def _labels_among(
    column: pa.ChunkedArray, class_names: tuple[str, ...] | None, locator: str, ids: np.ndarray, *, is_test: bool
) -> tuple[Int[np.ndarray, "N"], tuple[str, ...]]:
    """Class numbers and names: `class_names` where they are given, else those that are found. Raises LabelError for what is none of them."""
    labels, found, are_names = _labels(column, locator)
    if not class_names:
        return labels, found
    if are_names:
        labels = among(labels, found, class_names, locator, ids=ids, known="the classes of the training part" if is_test else "the classes")
    if is_test:
        require_range(labels, class_names, f"{locator}, test part", ids=ids)
    return labels, class_names


def declared_classes(table: pa.Table, column: str = "label") -> tuple[str, ...] | None:
    """Class names of a column from the Hugging Face metadata of a Parquet schema, if it has them."""
    metadata = (table.schema.metadata or {}).get(b"huggingface")
    if metadata is None:
        return None
    try:
        names = json.loads(metadata)["info"]["features"][column].get("names")
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


class _Contents(Sequence[Any]):
    """The images of a column by row: their encoded bytes; where there are none the file that is named beside them, as Hugging Face leaves images in their files; None where one is missing."""

    def __init__(self, contents: pa.ChunkedArray, names: pa.ChunkedArray | None, root: Path) -> None:
        self.contents, self.names, self.root = contents, names, root

    def __len__(self) -> int:
        return len(self.contents)

    def __getitem__(self, row: Any) -> Any:
        content = self.contents[row].as_py()
        if content is not None or self.names is None:
            return content
        name = self.names[row].as_py()
        return self.root / str(name) if name else None

    def files(self, rows: Sequence[int]) -> list[str]:
        """The files of those of some rows that lie in one each."""
        apart = pc.is_null(self.contents).to_numpy() if self.names is not None and self.contents.null_count else None
        return [] if apart is None else [str(self[row]) for row in rows if apart[row]]

    def read(self, row: int) -> bytes:
        """The encoded bytes, wherever they are."""
        held = self[row]
        return bytes(held.read_bytes() if isinstance(held, Path) else held)


def _looked_at(ids: np.ndarray, looks: list[Look | str]) -> tuple[list[int], list[tuple[str, str]], Int[np.ndarray, "M"], Int[np.ndarray, "M 3"]]:
    """Rows that can be used, what is wrong with the others, and of the usable ones their sizes in bytes and their shapes."""
    good = [row for row, look in enumerate(looks) if not isinstance(look, str)]
    held = np.array([look for look in looks if not isinstance(look, str)], dtype=np.int64).reshape(-1, 4)
    return good, [(str(ids[row]), look) for row, look in enumerate(looks) if isinstance(look, str)], held[:, 0], held[:, 1:]


def _of_usual_types(table: pa.Table) -> pa.Table:
    """The table with columns that arrow can filter, cast and take."""
    for at, field in enumerate(table.schema):
        column = _usual(table.column(at))
        if column.type != field.type:
            table = table.set_column(at, field.name, column)
    return table


def _usual(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Dictionaries, views and bytes of one length as a plain column of the same values; others as they are."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_string_view(kind):
        kind = pa.large_string()
    elif pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind):
        kind = pa.large_binary()
    return column if kind == column.type else column.cast(kind)


def _as_texts(column: pa.ChunkedArray, locator: str) -> pa.ChunkedArray:
    """A column of texts; of numbers and of bytes the texts that they are written as. Raises DataError for lists and the like."""
    if pa.types.is_nested(column.type):
        raise DataError(f"{locator}: the column `text` has type {column.type}; it must hold one text a row. Join words, or pick one field.")
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return column
    return pa.chunked_array([pa.array([None if value is None else text_of(value) for value in column.to_pylist()], pa.large_string())])


def _texts(column: pa.ChunkedArray) -> np.ndarray:
    """A column as an array of strings, as `str` writes its values, empty where one is missing. Strings are taken over part by part, so that millions of them do not exist as Python objects at once."""
    if column.null_count or not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return np.array([text_of(value) for value in column.to_pylist()], dtype=StringDType())
    whole = np.empty(len(column), dtype=StringDType())
    done = 0
    for chunk in column.chunks:
        for start in range(0, len(chunk), ROWS_AT_ONCE):
            part = chunk.slice(start, ROWS_AT_ONCE).to_pylist()
            whole[done : done + len(part)] = part
            done += len(part)
    return whole


def _labels(column: pa.ChunkedArray, locator: str) -> tuple[Int[np.ndarray, "N"], tuple[str, ...], bool]:
    """Class numbers, names, and whether the column holds names; of names each different one is looked at once."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        told = column.combine_chunks().dictionary_encode(null_encoding="encode")
        told = told.combine_chunks() if isinstance(told, pa.ChunkedArray) else told
        numbers, names = integer_labels(told.dictionary.to_pylist(), locator)
        return numbers[told.indices.to_numpy()], names, True
    values = column.to_pylist() if column.null_count or not pa.types.is_primitive(column.type) else column.to_numpy()
    return *integer_labels(values, locator), holds_names(values)


def _contents(column: pa.ChunkedArray, locator: str) -> tuple[pa.ChunkedArray, pa.ChunkedArray | None]:
    """The encoded bytes of an image column: bytes, Hugging Face's struct of bytes and path, or base64 in text; and the names of files of such a struct."""
    names = None
    if pa.types.is_struct(column.type):
        held = {field.name for field in column.type}
        names = pc.struct_field(column, "path") if "path" in held else None
        if "bytes" not in held and names is None:
            raise DataError(
                f"{locator}: the column `image` has type {column.type}; it must hold encoded bytes, under the name `bytes` if it is a struct."
            )
        column = _usual(pc.struct_field(column, "bytes")) if "bytes" in held else pa.chunked_array([pa.nulls(len(column))])
        column = column.cast(pa.binary()) if pa.types.is_null(column.type) else column
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
    return column, names


def _image(place: Any):  # type: ignore[no-untyped-def]
    from PIL import Image

    return Image.open(place)
