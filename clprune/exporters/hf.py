"""A Hugging Face data set folder, as `datasets.load_from_disk` reads it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from clprune.datatypes import Source
from clprune.errors import MissingExtraError
from clprune.exporters.parquet import parquet
from clprune.families import exporter
from clprune.manifest import Manifest


@exporter
def hf(manifest: Manifest, source: Source, destination: Path) -> dict[str, Any]:
    """`id`, `image` (Image) or `text`, `label` (ClassLabel with the names of all classes, empty ones too), in the order of the source."""
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", "export --to hf") from error
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        with tempfile.TemporaryDirectory(dir=destination) as work:
            parquet(manifest, source, Path(work))
            loaded = datasets.Dataset.from_parquet(str(Path(work) / "train.parquet"), cache_dir=str(Path(work) / "cache"))
            loaded.save_to_disk(str(destination))
            del loaded
    finally:
        if bars:
            datasets.enable_progress_bars()
    files = [file for file in destination.rglob("*") if file.is_file()]
    return {"files": len(files), "bytes_written": sum(file.stat().st_size for file in files), "link": None}
