"""A Parquet, CSV or JSONL file with one row a sample."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from clprune.datatypes import Source
from clprune.errors import DataError
from clprune.families import source
from clprune.sources._table import source_of_table

AS_WRITTEN = pa.csv.ConvertOptions(column_types={name: pa.string() for name in ("id", "path", "file_name", "image", "text", "split")})


@source(claims=lambda locator: locator.endswith((".parquet", ".csv", ".jsonl")))
def table(locator: str, *, strict: bool = False, on_progress: Callable[[int, int], None] | None = None) -> Source:
    """Columns `path` or `file_name` (relative to the file), `image` (encoded bytes; base64 in .csv and .jsonl) or `text`; `label` (number or name).

    More than a million `path` rows are listed without a look at the files, unless `strict`: a broken one is found when it is decoded, and sizes are those of a
    column `bytes`, 0 without it. Optional: `id`, and `split`, whose rows named test or val become the test split. Ids, paths and texts are taken as they are written: `007` is not 7.
    """
    path = Path(locator)
    try:
        if path.suffix == ".parquet":
            content = pa.parquet.read_table(path)
        elif path.suffix == ".csv":
            content = pa.csv.read_csv(path, parse_options=pa.csv.ParseOptions(newlines_in_values=True), convert_options=AS_WRITTEN)
        else:
            content = pa.json.read_json(path)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}. Check the path.") from None
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read ({str(error).splitlines()[0]}).") from error
    return source_of_table(content, locator, path.parent, strict=strict, on_progress=on_progress)
