"""A Parquet, CSV or JSONL file with one row a sample, or a folder of Parquet files that are one table: `FILE[?path=COLUMN&label=COLUMN]`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from clprune.datatypes import Source
from clprune.errors import DataError, UsageError
from clprune.families import source
from clprune.sources._common import options_of, shown
from clprune.sources._csv import encoding_of, head_of, line_of_other_encoding, separator_of
from clprune.sources._table import INPUTS, SUFFIXES, declared_classes, parts_of, source_of_table

OPTIONS = ("path", "image", "text", "label", "id", "split")  # what columns of other names can be
ARROWS = dict.fromkeys(("utf-8", "utf-8-sig"), "utf8")  # read without recoding; arrow passes over the mark by itself
BLOCK_BYTES = 1 << 26  # read at once: a row must fit into it, and an image in base64 may take many MB


def _claims(locator: str) -> bool:
    path = Path(locator.partition("?")[0])
    return path.suffix.lower() in SUFFIXES and (bool(parts_of(path)) or not path.is_dir())


@source(claims=_claims)
def table(locator: str, *, strict: bool = False, on_progress: Callable[[int, int], None] | None = None) -> Source:
    """Columns `path` or `file_name` (relative to the file), `image` (encoded bytes; base64 in .csv and .jsonl) or `text`; `label` (number or name).

    Text is UTF-8, UTF-16 or UTF-32, known by the mark at its beginning, UTF-16 also without one. The columns of .csv stand between commas, or where only so there are an input and a `label`
    between `;`, tabs or `|`. Columns of other names are named behind a `?`: `FILE.csv?path=COLUMN&label=COLUMN`, and so `image`, `text`, `id` and `split`.

    A folder FILE.parquet/ of part files, as Spark writes it, is one table, its parts in the order of their names; paths are relative to where it lies.

    More than a million `path` rows are listed without a look at the files, unless `strict`: a broken one is found when it is decoded, and sizes are those of a
    column `bytes`, 0 without it. Optional: `id`, and `split`, whose rows named test, val, valid, validation or dev become the test split (the others are named train or training). Ids, paths and
    texts are taken as they are written: `007` is not 7. Labels are numbers where all of them are, but for those written with a zero in front or with an exponent: `01` and `1e5` are names.
    """
    place, _, query = locator.partition("?")
    path, named = Path(place), options_of(query, OPTIONS, locator)
    parts = parts_of(path)
    if parts and (path.suffix.lower() != ".parquet" or any(part.parent != path for part in parts)):
        raise DataError(
            f"{path} is a folder ({shown([part.relative_to(path).as_posix() for part in parts], 3)}), not a file. Write its rows into one file, or as one folder of Parquet files, without folders in it."
        )
    content = _joined([_read(part, named) for part in parts], path) if parts else _read(path, named)
    classes, files = declared_classes(content, named["label"]) if "label" in named else None, [str(part) for part in parts or [path]]
    return source_of_table(
        _renamed(content, named, locator), locator, path.parent, strict=strict, class_names=classes, files=files, on_progress=on_progress
    )


def _read(path: Path, named: Mapping[str, str]) -> pa.Table:
    """The columns of one file. Raises DataError that says why it cannot be read."""
    suffix = path.suffix.lower()
    try:
        content = pa.parquet.read_table(path) if suffix == ".parquet" else _csv(path, named) if suffix == ".csv" else _jsonl(path, named)
        content.validate(full=True)  # arrow takes texts of Parquet and JSON as they come
        return content
    except FileNotFoundError:
        raise DataError(f"there is no file {path}. Check the path.") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        if (
            suffix != ".parquet"
            and isinstance(error, ValueError)
            and encoding_of(head_of(path)).startswith("utf-8")
            and (line := line_of_other_encoding(path))
        ):
            raise DataError(f"{path}: line {line} is not UTF-8. Save the file as UTF-8 (or as UTF-16), or convert it with iconv.") from error
        raise DataError(f"{path} cannot be read ({str(error).splitlines()[0]}).") from error


def _joined(parts: list[pa.Table], path: Path) -> pa.Table:
    """The rows of all parts; a column that a part lacks is empty there. Raises DataError where a column is of unlike types."""
    try:
        return pa.concat_tables(parts, promote_options="default")
    except pa.ArrowException as error:
        raise DataError(f"the files in {path} do not fit together ({str(error).splitlines()[0]}). Write them with the same columns.") from error


def _renamed(content: pa.Table, named: Mapping[str, str], locator: str) -> pa.Table:
    """The table with its `named` columns called by what they are. A column that had such a name, or that of another input, is left out. Raises UsageError for a column that is not there once."""
    found = content.column_names
    for name in named.values():
        if found.count(name) != 1:
            raise UsageError(
                f"{locator}: there {'is no column' if name not in found else 'are several columns'} '{name}' (there are: {', '.join(found)})."
            )
    if not named:
        return content
    taken = {*named, *named.values(), *(INPUTS if set(named).intersection(INPUTS) else ())}
    others = [at for at, name in enumerate(found) if name not in taken]  # by place: two of them may have one name
    columns = [*(content[name] for name in named.values()), *(content.column(at) for at in others)]
    return pa.Table.from_arrays(columns, names=[*named, *(found[at] for at in others)])


def _csv(path: Path, named: Mapping[str, str]) -> pa.Table:
    """The columns of a CSV file; a row may have line breaks in it."""
    head = head_of(path)
    encoding, label = encoding_of(head), named.get("label", "label")
    inputs = {named[name] for name in INPUTS if name in named} or set(INPUTS)
    separator, told = separator_of(head.decode(encoding, "replace"), lambda columns: label in columns and bool(columns.intersection(inputs)))
    as_written = {name: pa.string() for name in (*INPUTS, *OPTIONS, *named.values())}
    read = pa.csv.ReadOptions(block_size=BLOCK_BYTES, encoding=ARROWS.get(encoding, encoding), skip_rows=told)
    parse = pa.csv.ParseOptions(newlines_in_values=True, delimiter=separator)
    content = pa.csv.read_csv(path, read_options=read, parse_options=parse, convert_options=pa.csv.ConvertOptions(column_types=as_written))
    if content.column_names.count(label) != 1:
        return content
    at = content.column_names.index(label)
    return content.set_column(at, label, _as_numbers(content[label]))


def _as_numbers(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of texts as numbers or truth values where all of its texts are such; as it is where one is not, or is written with a zero in front or with an exponent."""
    trimmed = pc.utf8_trim_whitespace(texts)
    missing = pc.is_in(pc.utf8_lower(trimmed), pa.array(["", "na", "n/a", "#n/a", "nan", "null"]))
    held = pc.if_else(missing, None, trimmed)
    if pc.any(pc.match_substring_regex(held, r"^[+-]?(0\d|[\d.]+[eE])")).as_py():
        return texts
    for kind in (pa.int64(), pa.float64(), pa.bool_()):
        if kind != pa.bool_() or pc.all(pc.is_in(pc.utf8_lower(held.drop_null()), pa.array(["true", "false"]))).as_py():
            try:
                return held.cast(kind)
            except pa.ArrowInvalid:
                continue
    return texts


def _jsonl(path: Path, named: Mapping[str, str]) -> pa.Table:
    """The columns of a JSONL file. Texts that look like dates stay as they are written: such columns are read again as texts; so are ids that arrow takes for numbers with a point."""
    read, encoding, id_column = pa.json.ReadOptions(block_size=BLOCK_BYTES), encoding_of(head_of(path)), named.get("id", "id")
    content = pa.json.read_json(_in_utf8(path, encoding), read_options=read)
    dates = [field.name for field in content.schema if pa.types.is_timestamp(field.type)]
    if dates:
        texts = pa.schema([(name, pa.string()) for name in dates])
        content = pa.json.read_json(_in_utf8(path, encoding), read_options=read, parse_options=pa.json.ParseOptions(explicit_schema=texts))
    if id_column in content.column_names and pa.types.is_floating(content.schema.field(id_column).type):
        content = content.set_column(content.column_names.index(id_column), id_column, pa.chunked_array([_ids_as_written(path, encoding, id_column)]))
    return content


def _in_utf8(path: Path, encoding: str) -> pa.NativeFile:
    """A file of text as arrow reads JSON, without a mark at its beginning."""
    file = pa.OSFile(str(path))
    return file if encoding == "utf-8" else pa.transcoding_input_stream(file, encoding, "utf8")


def _ids_as_written(path: Path, encoding: str, id_column: str) -> pa.Array:
    """The numbers under `id_column` of a JSONL file, as texts: one that is larger than 64 bits would lose its last digits, and a 1 beside a 2.5 would become 1.0."""
    with open(path, encoding=encoding) as file:
        rows = (json.loads(line, parse_int=str, parse_float=str) for line in file if line.strip())
        return pa.array([row.get(id_column) for row in rows], pa.string())
