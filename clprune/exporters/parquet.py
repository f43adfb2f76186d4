"""One Parquet file with ids, encoded images (or texts) and labels, which Hugging Face `datasets` and clprune read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clprune.datatypes import Source
from clprune.exporters._content import encoded, hugging_face_features
from clprune.families import exporter
from clprune.manifest import Manifest

ROWS_AT_ONCE = 1000  # rows of a row group: what is in memory at once


@exporter
def parquet(manifest: Manifest, source: Source, destination: Path) -> dict[str, Any]:
    """DEST/train.parquet with `id`, `image` (struct of bytes and path) or `text`, and `label` as class numbers with their names in the schema."""
    metadata = {"huggingface": json.dumps(hugging_face_features(source))}
    value = pa.field("text", pa.string()) if source.kind == "text" else pa.field("image", pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    schema = pa.schema([pa.field("id", pa.string()), value, pa.field("label", pa.int64())], metadata)
    rows = manifest.indices(source)
    path = destination / "train.parquet"
    with pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as writer:
        for start in range(0, len(rows), ROWS_AT_ONCE):
            block = rows[start : start + ROWS_AT_ONCE]
            ids = source.sample_ids[block].tolist()
            if source.kind == "text":
                values: list[Any] = [source.read_input(int(row)) for row in block]
            else:
                content = [encoded(source, int(row)) for row in block]
                values = [
                    {"bytes": data, "path": name + ("" if name.endswith(suffix) else suffix)}
                    for name, (data, suffix) in zip(ids, content, strict=True)
                ]
            writer.write_table(pa.table([pa.array(ids), pa.array(values, value.type), pa.array(source.labels[block])], schema=schema))
    return {"files": 1, "bytes_written": path.stat().st_size, "link": None}
