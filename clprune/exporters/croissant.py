"""Croissant metadata (https://mlcommons.org/croissant) over a Parquet file of the kept samples, for publishing them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clprune.datatypes import Source
from clprune.errors import MissingExtraError
from clprune.exporters.parquet import parquet
from clprune.families import exporter
from clprune.manifest import Manifest
from clprune.storage import digest_of_file, write_json


@exporter
def croissant(
    manifest: Manifest, source: Source, destination: Path, *, name: str = "pruned-training-set", url: str = "https://example.org", license: str = ""
) -> dict[str, Any]:
    """train.parquet, and croissant.json that names its columns, its sha256 and how it was made. `license` is an SPDX name or an address, yours to give.

    Raises MissingExtraError without mlcroissant, which writes and checks the metadata.
    """
    try:
        import mlcroissant as mlc
    except ImportError as error:
        raise MissingExtraError("mlcroissant", "export --to croissant") from error
    parquet(manifest, source, destination)
    kind = "text" if source.kind == "text" else "image"

    def field(column: str, kind_of: Any, told: str, **transform: Any) -> Any:
        steps = [mlc.Transform(**transform)] if transform else []
        origin = mlc.Source(file_object="train.parquet", extract=mlc.Extract(column=column), transforms=steps)
        return mlc.Field(id=f"samples/{column}", name=column, description=told, data_types=kind_of, source=origin)

    fields = [field("id", mlc.DataType.TEXT, "Stable name of the sample."), field("label", mlc.DataType.INTEGER, "Class number.")]
    if kind == "text":
        fields.append(field("text", mlc.DataType.TEXT, "The input."))
    else:
        fields.append(field("image", mlc.DataType.IMAGE_OBJECT, "The encoded image.", json_path="bytes"))
    document = manifest.document
    told = f"{manifest.n_kept} of {document['n_samples']} samples, kept by clprune with {document.get('strategy', 'a selection')}."
    metadata = mlc.Metadata(
        name=name,
        url=url,
        description=f"{told} Classes by number: {', '.join(source.class_names)}. Fingerprint of the whole set: {source.fingerprint}.",
        license=[license] if license else None,
        distribution=[
            mlc.FileObject(
                id="train.parquet", name="train.parquet", content_url="train.parquet", encoding_formats=["application/x-parquet"],
                sha256=digest_of_file(destination / "train.parquet"),
            )
        ],
        record_sets=[mlc.RecordSet(id="samples", name="samples", fields=fields)],
    )  # fmt: skip
    write_json(destination / "croissant.json", metadata.to_json())
    files = sorted(destination.iterdir())
    told_of = {"files": len(files), "bytes_written": sum(file.stat().st_size for file in files), "link": None}
    return told_of if license else told_of | {"note": "no license was given; before publishing, export again with croissant(license='...')"}
