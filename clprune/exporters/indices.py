"""Rows and ids of the kept samples: .npy, .txt and .json, with the digest of the ordered ids that the rows belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clprune.datatypes import Source, digest_of_ids
from clprune.families import exporter
from clprune.manifest import Manifest
from clprune.storage import SCHEMA_VERSION, write_bytes, write_json, write_npy


@exporter(takes_unlabelled=True)
def indices(manifest: Manifest, source: Source, destination: Path) -> dict[str, Any]:
    """kept.npy (sorted int64 rows of the source as it is now), kept_indices.txt (the same, a line each), kept.json (ids, rows, digest of the order).

    A row list is only right for the order that `order_digest` names: sha256 of the ids joined by NUL.
    """
    rows = manifest.indices(source)
    write_npy(destination / "kept.npy", rows)
    write_bytes(destination / "kept_indices.txt", "".join(f"{row}\n" for row in rows.tolist()).encode())
    document = {"schema_version": SCHEMA_VERSION, "fingerprint": source.fingerprint, "order_digest": digest_of_ids(source.sample_ids)}
    write_json(destination / "kept.json", document | {"indices": rows.tolist(), "ids": source.sample_ids[rows].tolist()})
    files = sorted(destination.iterdir())
    return {"files": len(files), "bytes_written": sum(file.stat().st_size for file in files), "link": None}
