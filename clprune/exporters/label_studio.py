"""A labelling queue for Label Studio: task files in the order of priority, and the labelling page that fits them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
from jaxtyping import Int

from clprune.datatypes import Source
from clprune.errors import UsageError
from clprune.exporters._content import encoded
from clprune.families import exporter
from clprune.manifest import Manifest
from clprune.storage import to_json, write_bytes


@exporter(takes_unlabelled=True)
def label_studio(
    manifest: Manifest,
    source: Source,
    destination: Path,
    *,
    which: str = "kept",
    prefix: str = "/data/local-files/?d=",
    tasks_per_file: int = 10_000,
) -> dict[str, Any]:
    """tasks-00000.json ... and label_config.xml. A task has `data` (image or text, sample_id, label, reason) and a prediction with a score in (0, 1].

    `which="kept"` queues what the selection keeps, or what it asks a label for, best first, with the label that it has or the class it is guessed to be of; `which="suspects"` what was dropped for a label suspected
    wrong, most suspect first, with the label that clprune suggests. The prediction's score falls along the queue, so that sorting by it keeps
    the order. Import the files one after the other: servers time out on one large file.

    Images are named `prefix` + path below the data folder (serve that folder as Label Studio's local files); images without files are
    written to images/ below the destination, and named likewise. Raises UsageError for another `which`.
    """
    if which not in ("kept", "suspects"):
        raise UsageError(f"label_studio has which='kept' or 'suspects', not {which!r}.")
    if tasks_per_file < 1:
        raise UsageError(f"tasks_per_file is {tasks_per_file}; it must be at least 1.")
    rows, labels, reasons = _queue(manifest, source, which)
    kind = "text" if source.kind == "text" else "image"
    names, tasks = source.class_names, []
    for place, (row, label, reason) in enumerate(zip(rows.tolist(), labels.tolist(), reasons, strict=True)):
        choice = {"from_name": "label", "to_name": kind, "type": "choices", "value": {"choices": [names[label]]}} if label >= 0 else None
        known = int(source.labels[row])
        data = {kind: _shown(source, row, destination, prefix), "sample_id": str(source.sample_ids[row]), "label": names[known] if known >= 0 else ""}
        prediction = {"model_version": "clprune", "score": 1 - place / len(rows), "result": [choice] if choice else []}
        tasks.append({"data": data | {"priority": place + 1, "reason": reason}, "predictions": [prediction]})
    for number, start in enumerate(range(0, max(1, len(tasks)), tasks_per_file)):
        write_bytes(destination / f"tasks-{number:05d}.json", to_json(tasks[start : start + tasks_per_file]).encode())
    choices = "".join(f"    <Choice value={quoteattr(name)}/>\n" for name in names)
    tag = "Text" if kind == "text" else "Image"
    page = f'<View>\n  <{tag} name="{kind}" value="${kind}"/>\n  <Choices name="label" toName="{kind}" choice="single">\n{choices}  </Choices>\n</View>\n'
    write_bytes(destination / "label_config.xml", page.encode())
    files = [path for path in destination.rglob("*") if path.is_file()]
    return {"n_samples": len(tasks), "files": len(files), "bytes_written": sum(path.stat().st_size for path in files), "link": None}


def _queue(manifest: Manifest, source: Source, which: str) -> tuple[Int[np.ndarray, "M"], Int[np.ndarray, "M"], list[str]]:
    """Rows of the source in the order of priority, the label to show for each, and why it is there."""
    place = {str(name): row for row, name in enumerate(source.sample_ids.tolist())}
    manifest.require_same_data(source)
    samples = manifest.samples
    if which == "kept":
        rows = np.array([place[name] for name in manifest.kept_ids.tolist()], dtype=np.int64)
        by_id = (
            dict(
                zip(
                    samples["sample_id"].to_pylist(),
                    zip(*(samples[c].to_pylist() for c in ("label", "suggested_label", "reason")), strict=True),
                    strict=True,
                )
            )
            if "pool" in manifest.document
            else {}
        )
        told = [by_id.get(name, (int(source.labels[row]), -1, "kept")) for name, row in zip(manifest.kept_ids.tolist(), rows.tolist(), strict=True)]
        return rows, np.array([label if label >= 0 else guess for label, guess, _ in told]), [reason for _, _, reason in told]
    held = samples.select(["sample_id", "suspicion", "suggested_label", "reason"]).to_pylist() if "suspicion" in samples.column_names else []
    suspects = sorted((s for s in held if s["reason"] == "label suspected wrong"), key=lambda s: (-s["suspicion"], s["sample_id"]))
    rows = np.array([place[s["sample_id"]] for s in suspects], dtype=np.int64)
    return rows, np.array([s["suggested_label"] for s in suspects], dtype=np.int64), [s["reason"] for s in suspects]


def _shown(source: Source, row: int, destination: Path, prefix: str) -> str:
    """What a task shows: the text itself, or the address of an image."""
    if source.kind == "text":
        return str(source.read_input(row))
    if source.paths is not None:
        path, root = source.paths[row], Path(str(source.facts.get("root") or source.facts.get("paths_root") or "/"))
        return prefix + quote(os.fsencode(path.relative_to(root) if path.is_relative_to(root) else path.absolute()))
    content, suffix = encoded(source, row)
    (destination / "images").mkdir(exist_ok=True)
    name = f"images/{row:09d}{suffix}"
    (destination / name).write_bytes(content)
    return prefix + name
