"""Tar shards as webdataset and timm read them, with timm's `_info.json`; an export that was cut short goes on after its last whole shard."""

from __future__ import annotations

import io
import json
import math
import tarfile
from pathlib import Path
from typing import Any

from clprune.datatypes import Source
from clprune.errors import UsageError
from clprune.exporters._content import encoded
from clprune.families import exporter
from clprune.manifest import Manifest
from clprune.storage import new_file, write_json

FOR_TIMM = ("jpg", "png", "webp", "txt")  # image members that timm looks for by default, and texts


@exporter(resumes=True)
def webdataset(manifest: Manifest, source: Source, destination: Path, *, samples_per_shard: int = 1000) -> dict[str, Any]:
    """train-000000.tar ...: members KEY.jpg (the bytes as they are), KEY.cls (class number) and KEY.json (sample_id, label, class_name).

    Samples lie in the order of the source; keys and shard names count through, so they do not depend on ids, which may hold dots and
    slashes. The same selection gives the same bytes. Raises UsageError for less than one sample a shard.
    """
    if samples_per_shard < 1:
        raise UsageError(f"samples_per_shard is {samples_per_shard}; it must be at least 1.")
    for left in destination.glob(".*.tmp"):
        left.unlink()
    rows = manifest.indices(source)
    n_shards = math.ceil(len(rows) / samples_per_shard)
    names, lengths, strange = [], [], set()
    for shard in range(n_shards):
        part = rows[shard * samples_per_shard : (shard + 1) * samples_per_shard]
        names.append(f"train-{shard:06d}.tar")
        lengths.append(len(part))
        if (destination / names[-1]).exists():
            continue  # written whole by an export that was cut short
        with new_file(destination / names[-1]) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for place, row in enumerate(part.tolist(), start=shard * samples_per_shard):
                data, suffix = encoded(source, row)
                kind = {"jpeg": "jpg"}.get(suffix[1:], suffix[1:])
                strange |= {kind} - set(FOR_TIMM)
                label = int(source.labels[row])
                about = {"sample_id": str(source.sample_ids[row]), "label": label, "class_name": source.class_names[label]}
                for ending, held in ((kind, data), ("cls", str(label).encode()), ("json", json.dumps(about, sort_keys=True).encode())):
                    member = tarfile.TarInfo(f"{place:09d}.{ending}")
                    member.size = len(held)
                    tar.addfile(member, io.BytesIO(held))
    split = {"name": "train", "num_samples": len(rows), "filenames": names, "shard_lengths": lengths}
    write_json(destination / "_info.json", {"splits": {"train": split}, "class_names": list(source.class_names)})
    files = [destination / name for name in (*names, "_info.json")]
    told: dict[str, Any] = {"files": len(files), "bytes_written": sum(file.stat().st_size for file in files), "link": None}
    if strange:
        told["note"] = f"timm looks for jpg, png and webp; for {', '.join(sorted(strange))} pass its --input-key"
    return told
