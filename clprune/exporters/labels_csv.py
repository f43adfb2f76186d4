"""A labelling queue as a table that people fill in: one row a sample, in the order of priority."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

from clprune.datatypes import Source, rows_of
from clprune.families import exporter
from clprune.manifest import Manifest
from clprune.storage import write_bytes


@exporter(takes_unlabelled=True)
def labels_csv(manifest: Manifest, source: Source, destination: Path) -> dict[str, Any]:
    """to_label.csv: priority, sample_id, index (row of the source), path (where there are files) or text, guess, label. `clprune labels add` reads it when label is filled in.

    label holds what is known already; guess the class that the model expects, empty where nothing is known.
    """
    manifest.require_same_data(source)
    rows = rows_of(manifest.kept_ids, source.sample_ids)
    samples, names = manifest.samples, [str(name) for name in manifest.document.get("class_names", source.class_names)]
    guess = (
        dict(zip(samples["sample_id"].to_pylist(), samples["suggested_label"].to_pylist(), strict=True))
        if "suggested_label" in samples.column_names
        else {}
    )
    label = dict(zip(samples["sample_id"].to_pylist(), samples["label"].to_pylist(), strict=True))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["priority", "sample_id", "index", "text" if source.kind == "text" else "path", "guess", "label"])
    for priority, (name, row) in enumerate(zip(manifest.kept_ids.tolist(), rows.tolist(), strict=True), 1):
        shown = source.read_input(row) if source.kind == "text" else "" if source.paths is None else str(source.paths[row])
        words = [names[c] if c is not None and 0 <= c < len(names) else "" for c in (guess.get(name), label[name])]
        writer.writerow([priority, name, row, shown, *words])
    content = os.fsencode(text.getvalue()).decode("utf-8", "backslashreplace")  # a name of a file may be no UTF-8
    write_bytes(destination / "to_label.csv", content.encode())
    return {"files": 1, "bytes_written": (destination / "to_label.csv").stat().st_size, "link": None}
