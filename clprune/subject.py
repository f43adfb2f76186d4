"""What the report knows of one run or manifest, read from disk without torch; None stands for what is not at hand."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from clprune import families
from clprune.datatypes import Source
from clprune.errors import ClpruneError, DataError
from clprune.evaluation_record import read_evaluation
from clprune.manifest import read_manifest
from clprune.storage import digest_in, read_json, read_parquet, require_intact

NO_CLASS = "unlabelled"
NEIGHBORS_SEARCHED = 200  # folders beside a manifest that are looked at for its run


@dataclass(frozen=True)
class Subject:
    """One run or manifest. `samples` has a row a sample; `manifest`, `run`, `evaluation` are the JSON documents; `curves` maps a name to (T,)."""

    folder: Path
    samples: pa.Table
    manifest: Mapping[str, Any] | None
    run: Mapping[str, Any] | None
    curve_epochs: Float[np.ndarray, "T"] | None
    curves: Mapping[str, Float[np.ndarray, "T"]]
    evaluation: Mapping[str, Any] | None
    source: Source | None
    no_source: str  # why the data are not at hand
    scored_at: datetime | None
    scored_at_method: str

    @property
    def document(self) -> Mapping[str, Any]:
        """The manifest's document, else the run's."""
        document = self.manifest if self.manifest is not None else self.run
        assert document is not None
        return document

    @property
    def scoring(self) -> Mapping[str, Any]:
        """What is known of the proxy run: the run's document, else the part of it that the manifest holds."""
        return self.run if self.run is not None else self.document["run"]

    @property
    def of_logged_numbers(self) -> bool:
        """Whether there are no inputs at all, so that nothing can be trained on what is kept."""
        return str(self.scoring["proxy"]) == "logged"

    @property
    def n_samples(self) -> int:
        return len(self.samples)

    @cached_property
    def n_candidates(self) -> int:
        """How many samples can be kept: all, or with a pool those that have a label."""
        return int((self.labels >= 0).sum()) if self.scoring.get("pool") or self.document.get("pool") else self.n_samples

    @property
    def class_names(self) -> list[str]:
        return [str(name) for name in self.document["class_names"]]

    def class_name(self, label: int) -> str:
        """The name of a class number, that of no class where there is none."""
        return self.class_names[label] if 0 <= label < len(self.class_names) else NO_CLASS

    @cached_property
    def labels(self) -> Int[np.ndarray, "N"]:
        return self.samples["label"].to_numpy()

    def per_class(self, rows: np.ndarray) -> Int[np.ndarray, "C"]:
        """How many of some rows carry each class; those without a label count nowhere."""
        labels = self.labels[rows]
        return np.bincount(labels[labels >= 0], minlength=len(self.class_names))

    @cached_property
    def kept(self) -> Bool[np.ndarray, "N"] | None:
        """Whether a sample is kept; None before a selection."""
        return self.samples["kept"].to_numpy(zero_copy_only=False) if self.manifest is not None else None

    @cached_property
    def score_names(self) -> list[str]:
        """Scores of the table that this clprune knows."""
        return [name for name in families.names("scores") if name in self.samples.column_names]

    def score(self, name: str) -> Float[np.ndarray, "N"]:
        return self.samples[name].to_numpy()

    def high_means(self, name: str) -> str:
        """`hard` or `easy`."""
        return str(families.facts(families.find("scores", name))["high_means"])

    def difficulty(self, name: str) -> Float[np.ndarray, "N"]:
        return self.score(name) if self.high_means(name) == "hard" else -self.score(name)

    @property
    def deciding_score(self) -> str | None:
        """The score that the strategy used; DUAL or the first there is where it names none."""
        named = re.search(r"score='(\w+)'", str(self.manifest["strategy"])) if self.manifest is not None else None
        wanted = [named.group(1)] if named else []
        return next((name for name in [*wanted, "dual", *self.score_names] if name in self.score_names), None)


def read_subject(folder: Path, *, run_folder: Path | None = None, data: str | None = None, with_data: bool = True) -> Subject:
    """Read a run or manifest folder.

    The run of a manifest is `run_folder`, else a folder beside it whose scores have the digest that the manifest names. The data are those that
    were scored, or `data`; where they cannot be opened the subject says why. A recorded `module:function` is only imported when `data` names it.
    Raises DataError where the folder holds neither a run nor a manifest, IntegrityError where a file was changed, FingerprintError where `data` are other data.
    """
    if folder.name in ("manifest.json", "run.json"):
        folder = folder.parent
    if (folder / "manifest.json").exists():
        record = read_manifest(folder)
        manifest: Mapping[str, Any] | None = record.document
        samples = record.samples
        run_folder = run_folder or _run_beside(folder, record.document)
        run = read_json(run_folder / "run.json", what="run") if run_folder is not None else None
        if run is not None and not is_run_of(record.document, run):
            other = "a run of other data than" if run["fingerprint"] != record.fingerprint else "another run of these data than that of"
            raise DataError(f"{run_folder} is {other} the manifest {folder}. Give the run that it was selected from.")
    elif (folder / "run.json").exists():
        manifest, run_folder, run = None, folder, read_json(folder / "run.json", what="run")
        samples = _samples_of_run(folder, run)
    else:
        raise DataError(f"{folder} holds neither a run (run.json) nor a manifest (manifest.json). Check the path.")
    if run_folder is not None and run is not None and manifest is not None:
        samples = _with_distances(samples, run_folder, run)
    epochs, curves = _read_curves(run_folder, run) if run_folder is not None and run is not None else (None, {})
    document = manifest if manifest is not None else run
    assert document is not None
    evaluation = read_evaluation(folder, document)
    source, why = _open_data(document, data) if with_data else (None, "not asked for")
    when, how = _scored_at(folder, document)
    return Subject(folder, samples, manifest, run, epochs, curves, evaluation, source, why, when, how)


def _run_beside(folder: Path, document: Mapping[str, Any]) -> Path | None:
    """The folder beside a manifest that holds the run it was selected from, by digest."""
    try:
        places = sorted(folder.resolve().parent.iterdir())[:NEIGHBORS_SEARCHED]
    except OSError:  # a folder that may be passed through but not listed
        return None
    for place in places:
        try:
            if is_run_of(document, read_json(place / "run.json", what="run")):
                return place
        except ClpruneError:  # no run, or one that cannot be read, such as in a stranger's folder
            continue
    return None


def is_run_of(manifest: Mapping[str, Any], run: Mapping[str, Any]) -> bool:
    """Whether a manifest was selected from a run, by the digest of its scores."""
    wanted = manifest.get("parent", {}).get("scores_sha256")
    return bool(wanted) and digest_in(run.get("files", {}), "scores.parquet") == wanted


def _samples_of_run(folder: Path, run: Mapping[str, Any]) -> pa.Table:
    table, more = (read_parquet(folder, run["files"], name) for name in ("scores.parquet", "samples.parquet"))
    for name in more.column_names:
        if name not in table.column_names:
            table = table.append_column(name, more[name])
    return table


def _with_distances(samples: pa.Table, run_folder: Path, run: Mapping[str, Any]) -> pa.Table:
    """Add the distances of near-duplicates, which only the run has, where its rows are those of the manifest."""
    more = read_parquet(run_folder, run["files"], "samples.parquet", columns=["sample_id", "duplicate_distance"])
    if "duplicate_distance" in samples.column_names or not more["sample_id"].combine_chunks().equals(samples["sample_id"].combine_chunks()):
        return samples
    return samples.append_column("duplicate_distance", more["duplicate_distance"])


def _read_curves(folder: Path, run: Mapping[str, Any]) -> tuple[Float[np.ndarray, "T"] | None, dict[str, Float[np.ndarray, "T"]]]:
    name = "trajectory/curves.csv"
    if name not in run["files"]:
        return None, {}
    require_intact(folder, {name: run["files"][name]})
    with open(folder / name, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = {key: np.array([float(row[key]) if row[key] else np.nan for row in rows]) for key in (rows[0] if rows else {})}
    return columns.pop("epoch", None), columns


def _open_data(document: Mapping[str, Any], data: str | None) -> tuple[Source | None, str]:
    """The data set, or why it is not at hand."""
    from clprune.sources import open_source

    locator = data or str(document.get("source", ""))
    if data is None and re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", locator) and not locator.startswith("hf:"):
        return None, f"{locator} is a program that would have to be run; pass --data {locator} to allow it"
    try:
        source = open_source(locator)
        if source.fingerprint != document["fingerprint"]:
            raise DataError(f"{locator} is not the data set that was scored")
    except (ClpruneError, OSError) as error:
        if data is not None:
            raise
        if locator.startswith("this "):  # as `python_dataset` calls what was handed over as an object
            return (
                None,
                f"{locator} was in the memory of the program that recorded the run; pass --data with the same samples, in a form that is read",
            )
        return None, str(error)
    if source.kind == "logged":
        return None, f"{locator} holds logged numbers, no inputs"
    return source, ""


def _scored_at(folder: Path, document: Mapping[str, Any]) -> tuple[datetime | None, str]:
    """When the data were scored: from the record, else the date of the file."""
    recorded = document.get("timings", {}).get("scored_at")
    if recorded:
        return datetime.fromisoformat(str(recorded)), "recorded"
    name = "manifest.json" if (folder / "manifest.json").exists() else "run.json"
    return datetime.fromtimestamp((folder / name).stat().st_mtime, UTC), "date of the file"
