"""A Parquet, CSV or JSONL file with one row a sample."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from clprune.datatypes import Source
from clprune.errors import DataError
from clprune.families import source
from clprune.sources._table import source_of_table


@source(claims=lambda locator: locator.endswith((".parquet", ".csv", ".jsonl")))
def table(locator: str, *, strict: bool = False) -> Source:
    """Columns `path` (relative to the file), `image` (encoded bytes) or `text`; `label` (number or name); optional `id`, `split`."""
    path = Path(locator)
    try:
        if path.suffix == ".parquet":
            content = pa.parquet.read_table(path)
        elif path.suffix == ".csv":
            content = pa.csv.read_csv(path)
        else:
            content = pa.json.read_json(path)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}. Check the path.") from None
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read ({str(error).splitlines()[0]}).") from error
    return source_of_table(content, locator, path.parent, strict=strict)
