"""What was dropped, and why: a list for whoever cleans up storage or reviews the choice. Nothing is deleted."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from clprune.datatypes import UNLABELLED, Source, digest_of_ids, rows_of
from clprune.families import exporter
from clprune.manifest import Manifest
from clprune.storage import SCHEMA_VERSION, ids_of, write_bytes, write_json


@exporter  # not for what asks for labels: that drops nothing
def removal_list(manifest: Manifest, source: Source, destination: Path) -> dict[str, Any]:
    """dropped.csv (sample_id, index, path, bytes, reason, duplicate_of), dropped_ids.txt (an id a line) and removal-list.json (counts, bytes, digest).

    Rows are those of the source as it is now, in the order of ids. `path` is the file behind a sample where there is one. An id that holds a line
    break is only right in the CSV, which quotes it. `duplicate_of` names the kept sample that a dropped one repeats, where there is one.
    A sample that has no label yet is not dropped: what is kept was chosen among those that have one.
    """
    manifest.require_same_data(source)
    samples = manifest.samples
    here = rows_of(ids_of(samples["sample_id"]), source.sample_ids)
    blank = [""] * len(samples)
    reasons = samples["reason"].to_pylist() if "reason" in samples.column_names else blank
    repeats = samples["duplicate_of"].to_pylist() if "duplicate_of" in samples.column_names else blank
    dropped = np.flatnonzero(~samples["kept"].to_numpy() & (samples["label"].to_numpy() != UNLABELLED)).tolist()
    dropped.sort(key=lambda row: str(source.sample_ids[here[row]]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["sample_id", "index", "path", "bytes", "reason", "duplicate_of"])
    for row in dropped:
        at = int(here[row])
        path = os.fsencode(source.paths[at]).decode("utf-8", "backslashreplace") if source.paths is not None else ""
        writer.writerow([str(source.sample_ids[at]), at, path, int(source.sample_bytes[at]), reasons[row], repeats[row] or ""])
    rows = here[dropped]
    write_bytes(destination / "dropped.csv", text.getvalue().encode())
    write_bytes(destination / "dropped_ids.txt", "".join(f"{name}\n" for name in source.sample_ids[rows].tolist()).encode())
    document = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": source.fingerprint,
        "order_digest": digest_of_ids(source.sample_ids),
        "n_dropped": len(rows),
        "dropped_bytes": int(source.sample_bytes[rows].sum()),
    }
    write_json(destination / "removal-list.json", document)
    files = sorted(destination.iterdir())
    return {"n_samples": len(rows), "files": len(files), "bytes_written": sum(file.stat().st_size for file in files), "link": None}
