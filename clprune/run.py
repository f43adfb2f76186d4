"""The run folder that `clprune score` writes: what was recorded, found and scored, with the digest of every file.

run.json                the record; written last
scores.parquet          sample_id, index, label, one column a score
samples.parquet         sample_id, index, bytes, suspicion, suggested_label, duplicate_of, duplicate_distance; with a pool also still_open
trajectory/SIGNAL.npy   (E, N) float32 a signal
trajectory/curves.csv   the indicators, at several moments an epoch
embeddings.npy          (N, D) float16; float32 where the user gave larger numbers

A table of more than 50 million rows is a folder of that name with a file for each so many.
"""

from __future__ import annotations

import csv
import io
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool

from clprune.datatypes import CriticalPeriod, Embeddings, Neighborhood, ScoreTable, Source, Trajectory
from clprune.errors import DataError, IntegrityError, TrainingError
from clprune.storage import (
    SCHEMA_VERSION,
    ids_of,
    inventory,
    mapped_npy,
    move,
    read_json,
    read_npy,
    read_parquet,
    require_intact,
    verify_inventory,
    write_bytes,
    write_json,
    write_npy,
    write_parquet,
)

PARTS = ("run.json", "checkpoint", "trajectory", "scores.parquet", "samples.parquet", "embeddings.npy", "live.json", "clp-end.json", "trials")
REPLACED = ".replaced"  # in a run folder: the finished run that --force is about to replace


@dataclass(frozen=True)
class Run:
    """A finished run on disk; the tables are read, and checked against their digests, when they are first asked for."""

    folder: Path
    document: Mapping[str, Any]

    @cached_property
    def _scores(self) -> pa.Table:
        return self._read("scores.parquet")

    @cached_property
    def _samples(self) -> pa.Table:
        return self._read("samples.parquet")

    def _read(self, name: str) -> pa.Table:
        return read_parquet(self.folder, self.document["files"], name)

    @cached_property
    def table(self) -> ScoreTable:
        """The scores."""
        names = [name for name in self._scores.column_names if name not in ("sample_id", "index", "label")]
        ids = ids_of(self._scores["sample_id"])
        values = {name: self._scores[name].to_numpy() for name in names}
        return ScoreTable(ids, self._scores["label"].to_numpy(), values, self.document["high_means"])

    @cached_property
    def neighborhood(self) -> Neighborhood:
        """Duplicates and suspected labels."""
        rows = self._samples
        named = rows["duplicate_of"].drop_null().unique()
        at = pc.index_in(rows["sample_id"], value_set=named).to_numpy()  # of each sample its number among those that others repeat, else NaN
        row_of = np.empty(len(named), dtype=np.int64)
        row_of[at[~np.isnan(at)].astype(np.int64)] = np.flatnonzero(~np.isnan(at))
        number = pc.index_in(rows["duplicate_of"], value_set=named, skip_nulls=True).to_numpy()
        duplicate_of = np.full(len(rows), -1, dtype=np.int64)
        duplicate_of[~np.isnan(number)] = row_of[number[~np.isnan(number)].astype(np.int64)]
        distance = rows["duplicate_distance"].to_numpy()
        return Neighborhood(duplicate_of, distance, rows["suspicion"].to_numpy(), rows["suggested_label"].to_numpy())

    @property
    def id_columns(self) -> dict[str, pa.ChunkedArray]:
        """`sample_id` and `duplicate_of` of every sample as they are in the files."""
        return {"sample_id": self._scores["sample_id"], "duplicate_of": self._samples["duplicate_of"]}

    @cached_property
    def sample_bytes(self) -> np.ndarray:
        return self._samples["bytes"].to_numpy()

    @cached_property
    def still_open(self) -> np.ndarray:
        """Which samples (N,) an earlier round asked a label for and got none."""
        rows = self._samples
        return rows["still_open"].to_numpy() if "still_open" in rows.column_names else np.zeros(len(rows), dtype=bool)

    @cached_property
    def vectors(self) -> np.ndarray | None:
        """The embeddings (N, D), memory-mapped, or None."""
        if "embeddings.npy" not in self.document["files"]:
            return None
        require_intact(self.folder, {"embeddings.npy": self.document["files"]["embeddings.npy"]})
        return read_npy(self.folder / "embeddings.npy", mapped=True)

    @property
    def curves_file(self) -> Path:
        """The indicators as CSV, checked against its digest."""
        require_intact(self.folder, {"trajectory/curves.csv": self.document["files"]["trajectory/curves.csv"]})
        return self.folder / "trajectory" / "curves.csv"


def write_run(
    folder: Path,
    source: Source,
    trajectory: Trajectory,
    period: CriticalPeriod,
    table: ScoreTable,
    neighborhood: Neighborhood,
    embeddings: Embeddings | None,
    document: Mapping[str, Any],
    *,
    still_open: Bool[np.ndarray, "N"] | None = None,
) -> Run:
    """Write a run's files, and last its run.json, which makes it a run; the seconds of that are added to those of `document`."""
    began = time.perf_counter()
    ids, rows = source.sample_ids.tolist(), np.arange(len(source))
    scores = {"sample_id": ids, "index": rows, "label": table.labels} | {name: table.values[name] for name in sorted(table.values)}
    write_parquet(folder / "scores.parquet", pa.table(scores))
    repeats = neighborhood.duplicate_of >= 0
    samples = {
        "sample_id": ids,
        "index": rows,
        "bytes": source.sample_bytes,
        "suspicion": neighborhood.suspicion,
        "suggested_label": neighborhood.suggested_label.astype(np.int64),
        "duplicate_of": pa.array([ids[at] if at >= 0 else None for at in neighborhood.duplicate_of.tolist()], pa.string()),
        "duplicate_distance": pa.array(neighborhood.duplicate_distance, mask=~repeats),
    }
    if still_open is not None:
        samples["still_open"] = still_open
    write_parquet(folder / "samples.parquet", pa.table(samples))
    names = ["scores.parquet", "samples.parquet", "trajectory/curves.csv"]
    for name, values in trajectory.signals.items():
        write_npy(folder / "trajectory" / f"{name}.npy", values.astype(np.float32))
        names.append(f"trajectory/{name}.npy")
    write_bytes(folder / "trajectory" / "curves.csv", _curves_as_csv(trajectory).encode())
    if embeddings is not None:
        if not _is_stored(embeddings.vectors, folder / "embeddings.npy"):
            with mapped_npy(folder / "embeddings.npy", embeddings.vectors.shape, embeddings.vectors.dtype) as stored:
                stored[:] = embeddings.vectors
        names.append("embeddings.npy")
    full = dict(document) | {
        "schema_version": SCHEMA_VERSION,
        "kind": "run",
        "fingerprint": source.fingerprint,
        "n_samples": len(source),
        "n_classes": source.n_classes,
        "class_names": list(source.class_names),
        "clp": asdict(period),
        "high_means": dict(table.high_means),
        "files": inventory(folder, names),
    }
    seconds = time.perf_counter() - began
    full |= {"seconds": full["seconds"] + seconds, "timings": dict(full["timings"]) | {"writing_seconds": seconds}}
    write_json(folder / "run.json", full)
    return Run(folder, full)


def _is_stored(vectors: np.ndarray, path: Path) -> bool:
    """Whether these are the memory map of that very file."""
    return isinstance(vectors, np.memmap) and vectors.filename is not None and path.exists() and Path(vectors.filename).samefile(path)


def _curves_as_csv(trajectory: Trajectory) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = sorted(trajectory.curves)
    writer.writerow(["epoch", *names])
    for at, epoch in enumerate(trajectory.curve_epochs):
        values = [trajectory.curves[name][at] for name in names]
        writer.writerow([repr(float(epoch)), *("" if np.isnan(value) else repr(float(value)) for value in values)])
    return text.getvalue()


def read_run(folder: Path | str) -> Run:
    """Open a finished run. Raises DataError where it is missing or unfinished, SchemaError where it is newer than this clprune."""
    folder = Path(folder)
    if not (folder / "run.json").exists() and (folder / "checkpoint").is_dir():
        raise DataError(f"{folder} holds an unfinished run. Finish it with the same `clprune score` command.")
    document = read_json(folder / "run.json", what="run")
    missing = [key for key in ("fingerprint", "files", "clp", "high_means", "class_names") if key not in document]
    if document.get("kind") != "run" or missing:
        raise DataError(f"{folder / 'run.json'} is not a run (missing: {', '.join(missing) or 'kind'}). Restore it, or score again.")
    return Run(folder, document)


def finished_run(out: Path, source: Source, asked: dict[str, Any], force: bool) -> dict[str, Any] | None:
    """run.json's document where `out` holds the finished run that is asked for. Raises DataError where it holds another one, IntegrityError where it was changed since; `force` sets that aside until the new one is finished."""
    if (out / REPLACED).exists():  # a process was killed
        if (out / "run.json").exists():
            shutil.rmtree(out / REPLACED)
        elif not (out / "checkpoint" / "checkpoint.json").exists():
            _put_back(out)
    if (out / "run.json").exists() and not force:
        finished = read_run(out)
        same = finished.document["fingerprint"] == source.fingerprint and finished.document["asked"] == asked
        if same and (problems := verify_inventory(out, finished.document["files"])):
            raise IntegrityError(f"{out} holds this run, finished, but it was changed since. {' '.join(problems)} --force scores again.")
        if same:
            clear_up(out)  # of a process that was killed just after the end
            return dict(finished.document)
        other = "another data set" if finished.document["fingerprint"] != source.fingerprint else "other options"
        raise DataError(f"{out} holds a run of {other}. Choose another folder, or pass --force to replace it.")
    if force:
        _set_aside(out)
    return None


def clear_up(out: Path) -> None:
    """Remove what a finished run no longer needs: its checkpoint, and the run that it replaced."""
    for name in ("checkpoint", REPLACED):
        shutil.rmtree(out / name, ignore_errors=True)


def put_back(out: Path, error: BaseException | None) -> None:
    """After an `error` the run that was to be replaced comes back, where the new one had not come as far as its first checkpoint, or can't be trained."""
    if (
        error is not None
        and (out / REPLACED).exists()
        and (isinstance(error, TrainingError) or not (out / "checkpoint" / "checkpoint.json").exists())
    ):
        _put_back(out)


def _set_aside(out: Path) -> None:
    """Move the finished run in `out` to REPLACED inside it, run.json first; what is left of an unfinished one goes."""
    if (out / REPLACED).exists() or not (out / "run.json").exists():
        _remove_parts(out)
        return
    for name in PARTS:
        if (out / name).exists():
            move(out / name, out / REPLACED / name)


def _put_back(out: Path) -> None:
    """Undo `_set_aside`, run.json last."""
    _remove_parts(out)
    for name in reversed(PARTS):
        if (out / REPLACED / name).exists():
            move(out / REPLACED / name, out / name)
    shutil.rmtree(out / REPLACED)


def _remove_parts(folder: Path) -> None:
    for name in PARTS:
        shutil.rmtree(folder / name, ignore_errors=True) if (folder / name).is_dir() else (folder / name).unlink(missing_ok=True)
