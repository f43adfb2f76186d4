"""The record of a selection: what is kept, how that was decided, and the digests that prove it.

A manifest is a folder: `manifest.json` (every choice, seeds, versions, digests; written last), `samples.parquet` (a row a sample) and
`kept.npy` (sorted rows). Paths in it are relative to its folder, so that the folder can be moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from clprune import families
from clprune.datatypes import Source, digest_of_ids, rows_of
from clprune.errors import DataError, FingerprintError
from clprune.storage import (
    SCHEMA_VERSION,
    files_of,
    ids_of,
    inventory,
    new_folder,
    read_json,
    read_parquet,
    require_intact,
    verify_inventory,
    write_json,
    write_npy,
    write_parquet,
)


@dataclass(frozen=True)
class Manifest:
    """A manifest on disk. `document` is manifest.json; the tables are read when they are first asked for."""

    folder: Path
    document: Mapping[str, Any]

    @cached_property
    def samples(self) -> pa.Table:
        """One row a sample, in the order of the source when it was scored."""
        require_intact(self.folder, files_of(self.document["files"], "kept.npy"))
        return read_parquet(self.folder, self.document["files"], "samples.parquet")

    @cached_property
    def kept_ids(self) -> np.ndarray:
        """Ids of the kept samples (K,), best first."""
        kept = self.samples.filter(pa.compute.field("kept")).sort_by("rank")
        return ids_of(kept["sample_id"])

    @cached_property
    def weights(self) -> Float[np.ndarray, "K"]:
        """Loss weights of the kept samples, in the order of `kept_ids`; their mean is 1."""
        kept = self.samples.filter(pa.compute.field("kept")).sort_by("rank")
        return kept["weight"].to_numpy()

    @property
    def fingerprint(self) -> str:
        return str(self.document["fingerprint"])

    @property
    def n_kept(self) -> int:
        return int(self.document["n_kept"])

    @property
    def asks(self) -> bool:
        """Whether this is a round of labelling: then the kept samples are those that a label is wanted for."""
        return bool(self.document.get("pool") and self.document["pool"]["asks"])

    def require_same_data(self, source: Source) -> None:
        """Raise FingerprintError unless `source` holds the samples, labels and sizes that were scored, in whatever order."""
        if source.fingerprint != self.fingerprint:
            raise FingerprintError(
                f"{source.locator} is not the data set of {self.folder}: it has {len(source)} samples and fingerprint {source.fingerprint[:12]}, "
                f"the manifest was made from {self.document['n_samples']} samples with {self.fingerprint[:12]}. Point to the data that was scored, or score this one."
            )

    def indices(self, source: Source) -> Int[np.ndarray, "K"]:
        """Rows of `source`, as it is ordered now, that are kept; sorted. Raises FingerprintError for other data."""
        self.require_same_data(source)
        return np.sort(rows_of(self.kept_ids, source.sample_ids))

    def subset(self, dataset: Any, *, source: Source | None = None) -> Any:
        """The kept samples of a data set that you have open, nothing copied: `dataset.select(...)` of Hugging Face, else a torch `Subset`; rows in order.

        The data set must be the one that was scored: its ids, labels and sizes are compared, in whatever order. `source` (from `open_source`)
        stands for one whose items cannot show that, such as tensors in memory; then its length and its labels, where it has
        them as `targets`, `labels` or the last of `tensors`, must be those of `source`. Raises FingerprintError for other data.
        """
        rows = self.indices(self._behind(dataset, source))
        if hasattr(dataset, "select") and hasattr(dataset, "features"):
            return dataset.select(rows)
        from torch.utils.data import Subset

        return Subset(dataset, rows.tolist())

    def sampler(self, dataset: Any, *, seed: int = 0, source: Source | None = None) -> Any:
        """A torch sampler that shows the kept rows of the whole data set in random order, once an epoch; for a loader that takes `sampler=`."""
        import torch

        rows = self.indices(self._behind(dataset, source)).tolist()
        return torch.utils.data.SubsetRandomSampler(rows, generator=torch.Generator().manual_seed(seed))

    def row_weights(self, dataset: Any, *, source: Source | None = None) -> Float[np.ndarray, "N"]:
        """Loss weights by row of the whole data set as it is ordered now; 0 for what was dropped, 1 on average over what was kept."""
        behind = self._behind(dataset, source)
        self.require_same_data(behind)
        weights = np.zeros(len(behind))
        weights[rows_of(self.kept_ids, behind.sample_ids)] = self.weights
        return weights

    def _behind(self, dataset: Any, source: Source | None) -> Source:
        """The Source that a data set object is, or that stands for it."""
        if source is None:
            return dataset if isinstance(dataset, Source) else families.adapted(dataset, like=str(self.document["source"]))
        seen = next((getattr(dataset, name) for name in ("targets", "labels") if getattr(dataset, name, None) is not None), None)
        seen = dataset.tensors[-1] if seen is None and getattr(dataset, "tensors", None) else seen
        if hasattr(dataset, "select") and hasattr(dataset, "features"):  # of Hugging Face: its columns show what it holds
            shown = families.adapted(dataset, like=source.locator)
            numbers = {name: c for c, name in enumerate(source.class_names)}
            seen = [numbers.get(shown.class_names[c], -2) if c >= 0 else c for c in shown.labels.tolist()]
        if len(dataset) != len(source) or (seen is not None and not np.array_equal(np.asarray(seen), source.labels)):
            raise FingerprintError(
                f"this data set has {len(dataset)} samples{'' if len(dataset) != len(source) else ' and other labels'}, {source.locator} has {len(source)}. "
                "Pass the data set whose rows are those of the source."
            )
        return source


def write_manifest(folder: Path, samples: pa.Table, document: Mapping[str, Any], *, force: bool = False) -> Manifest:
    """Write a manifest folder, complete or not at all. `samples` has `index` and `kept` columns among others."""
    kept = np.sort(samples["index"].filter(samples["kept"]).to_numpy()).astype(np.int64)
    with new_folder(folder, force=force) as side:
        write_parquet(side / "samples.parquet", samples)
        write_npy(side / "kept.npy", kept)
        full = dict(document) | {
            "schema_version": SCHEMA_VERSION,
            "kind": "manifest",
            "order_digest": digest_of_ids(ids_of(samples["sample_id"])),
            "n_samples": len(samples),
            "n_kept": len(kept),
            "files": inventory(side, ["samples.parquet", "kept.npy"]),
        }
        write_json(side / "manifest.json", full)
    return Manifest(folder, full)


def read_manifest(folder: Path | str) -> Manifest:
    """Open a manifest folder (or its manifest.json). Raises DataError, SchemaError or IntegrityError."""
    folder = Path(folder)
    if folder.name == "manifest.json":
        folder = folder.parent
    document = read_json(folder / "manifest.json", what="manifest")
    missing = [key for key in ("fingerprint", "files", "n_samples", "n_kept", "source") if key not in document]
    if document.get("kind") != "manifest" or missing:
        raise DataError(f"{folder / 'manifest.json'} is not a manifest (missing: {', '.join(missing) or 'kind'}). Restore it, or select again.")
    return Manifest(folder, document)


def verify_manifest(manifest: Manifest, source: Source | None = None) -> list[str]:
    """What is wrong with a manifest, one sentence each: its files, their agreement, and the data if `source` is given."""
    if problems := verify_inventory(manifest.folder, manifest.document["files"]):
        return problems
    kept = np.load(manifest.folder / "kept.npy", allow_pickle=False)
    rows = manifest.samples.filter(pa.compute.field("kept"))["index"].to_numpy()
    if not np.array_equal(kept, np.sort(rows)) or len(kept) != manifest.n_kept:
        problems.append("kept.npy and samples.parquet do not name the same rows. Select again.")
    if source is not None:
        try:
            manifest.require_same_data(source)
        except FingerprintError as error:
            problems.append(str(error))
    return problems
