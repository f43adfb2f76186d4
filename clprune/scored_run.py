"""Score what was recorded, look for neighbours, and write the run folder: the end of `score`, of a replay, and of a loop of the user's own."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from clprune.datatypes import FULL_TRAINING_EPOCHS, UNLABELLED, CriticalPeriod, Embeddings, Neighborhood, ScoreTable, Source, Trajectory
from clprune.energy import step_so_far
from clprune.errors import DataError
from clprune.neighborhood import find_neighborhood
from clprune.pool import HIGH_MEANS, PoolWatcher, nearness_scores, with_pool
from clprune.run import Run, write_run
from clprune.score_table import p_label_of, score_table
from clprune.suspects import suspect_above
from clprune.texts import digests_of_words

Notes = Callable[[Source, Mapping[str, str], Mapping[str, Any]], list[str]]


def scored_run(
    out: Path,
    source: Source,
    trajectory: Trajectory,
    period: CriticalPeriod,
    embeddings: Embeddings | None,
    images: UInt8[np.ndarray, "N H W C"] | Int[np.ndarray, "N L"] | None,
    *,
    asked: Mapping[str, Any],
    image_rule: Mapping[str, Any] | None,
    decode_seconds: float,
    notes: Notes,
    pool: PoolWatcher | None = None,
) -> Run:
    """Scores, suspected labels and near-duplicates of the samples; all of it written to `out`. Texts are compared by their words; without `images` vectors are.

    With a `pool` the trajectory is that of the labelled samples of `source`, and the others are those that the pool watched.
    """
    at = time.perf_counter()
    table, missing = score_table(trajectory, period)
    p_label, predicted = _dynamics(trajectory, slice(period.start_epoch, period.end_epoch))
    pixels = None if images is None or images.ndim == 2 else images
    words = digests_of_words(source) if images is not None and images.ndim == 2 else None
    neighborhood = find_neighborhood(
        trajectory.sample_ids,
        trajectory.labels,
        p_label,
        predicted,
        vectors=embeddings.vectors if embeddings else None,
        images=None if pool else pixels,
        words=None if pool else words,
    )
    if pool is not None:
        table, neighborhood, embeddings = with_pool(source, pool, table, neighborhood, embeddings.layer if embeddings else "", pixels, words)
    document = _document(source, trajectory, missing, neighborhood, asked, image_rule, decode_seconds, time.perf_counter() - at, notes, pool)
    return write_run(out, source, trajectory, period, table, neighborhood, embeddings, document, still_open=None if pool is None else pool.still_open)


def _dynamics(trajectory: Trajectory, epochs: slice) -> tuple[Float[np.ndarray, "E N"] | None, Float[np.ndarray, "E N"] | None]:
    """Probability of the label and predicted class in these epochs, where they are known. Of two classes the first tells the second."""
    if (p_label := p_label_of(trajectory)) is None:
        return None, None
    p_label, labels = p_label[epochs], trajectory.labels
    if "predicted" in trajectory.signals:
        return p_label, trajectory.signal("predicted")[epochs]
    return p_label, np.where(np.isnan(p_label), np.nan, np.where(p_label > 0.5, labels, 1 - labels)) if labels.max() == 1 else None


def unlabelled_run(
    out: Path,
    source: Source,
    embeddings: Embeddings,
    facts: Mapping[str, Any],
    images: UInt8[np.ndarray, "N H W C"] | Int[np.ndarray, "N L"],
    *,
    asked: Mapping[str, Any],
    image_rule: Mapping[str, Any] | None,
    decode_seconds: float,
    notes: Notes,
    pool: PoolWatcher,
) -> Run:
    """The run folder of data without any label: how typical each sample is of its neighbours, and near-duplicates. There is no critical period: nothing was memorized."""
    at = time.perf_counter()
    trajectory = Trajectory(source.sample_ids, source.labels, {}, {}, np.zeros(0), facts)
    values = nearness_scores(embeddings.vectors, embeddings.vectors[:0])
    table = ScoreTable(source.sample_ids, source.labels, values, {name: HIGH_MEANS[name] for name in values})
    kinds = np.zeros(len(source), dtype=np.int64)
    pixels, words = (images, None) if images.ndim == 4 else (None, digests_of_words(source))
    repeats = find_neighborhood(source.sample_ids, kinds, None, None, vectors=None, images=pixels, words=words)
    neighborhood = replace(repeats, suggested_label=source.labels)
    period = CriticalPeriod(
        0, trajectory.n_epochs, False, 0.0, None, None, None, {}, "not looked for: no sample has a label, so that nothing is memorized"
    )
    document = _document(source, trajectory, {}, neighborhood, asked, image_rule, decode_seconds, time.perf_counter() - at, notes, pool)
    return write_run(out, source, trajectory, period, table, neighborhood, embeddings, document, still_open=pool.still_open)


def _document(
    source: Source,
    trajectory: Trajectory,
    missing: Mapping[str, str],
    neighborhood: Neighborhood,
    asked: Mapping[str, Any],
    image_rule: Mapping[str, Any] | None,
    decode_seconds: float,
    neighbor_seconds: float,
    notes: Notes,
    pool: PoolWatcher | None,
) -> dict[str, Any]:
    """What run.json says of how the run came about."""
    facts, step, limit = trajectory.facts, step_so_far(), suspect_above(neighborhood.suspicion[source.labels != UNLABELLED])
    known_seconds = decode_seconds + facts["seconds"] + neighbor_seconds
    all_seconds = known_seconds if step is None else max(known_seconds, step.seconds + facts.get("seconds_before", 0.0))
    measured = step is not None and facts["energy_kwh"] is not None
    document = {
        "source": source.locator,
        "asked": asked,
        "proxy": facts["proxy"],
        "seed": facts["seed"],
        "epochs_run": trajectory.n_epochs,
        "share_of_full_training": 0.0
        if facts.get("already_paid")
        else (trajectory.n_epochs + facts.get("finishing_epochs", 0)) / FULL_TRAINING_EPOCHS,
        "share_is_of_epochs": FULL_TRAINING_EPOCHS,
        "seconds": all_seconds,
        "timings": {
            "scored_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "decode_seconds": decode_seconds,
            "proxy_seconds": facts["seconds"],
            "neighbor_seconds": neighbor_seconds,
            "other_seconds": all_seconds - known_seconds,  # the start of the process, the import of torch, the opening of the data
        },
        "energy_kwh": step.kwh if measured and step is not None else facts["energy_kwh"],  # of the whole step, where the training was measured
        "energy_method": step.method if measured and step is not None else facts["energy_method"],
        "device": facts["device"],
        "threads": facts["threads"],
        "number_format": facts.get("number_format", "the user's"),
        "recipe": facts["recipe"],
        "image_rule": image_rule,
        "scores_missing": missing,
        "suspects": {"n": int((neighborhood.suspicion > limit).sum()), "above": limit},
        "duplicates": dict(neighborhood.facts) | {"n": int((neighborhood.duplicate_of >= 0).sum())},
        "skipped": [list(pair) for pair in source.skipped],
        "notes": [*source.facts.get("notes", []), *(image_rule or {}).get("notes", []), *notes(source, missing, neighborhood.facts)],
        "has_test_split": source.load_test is not None,
        "pool": None
        if pool is None
        else dict(pool.facts) | {"watched_after_epochs": pool.epochs, "finishing_epochs": facts.get("finishing_epochs", 0)},
        "versions": _versions(),
    }
    if facts.get("processes", 1) > 1:
        document["processes"] = facts["processes"]
    return document


def of_own_loop(recorder: Any, source: Source, seconds: float) -> tuple[Trajectory, dict[str, Any]]:
    """A recorder's trajectory under the ids and labels of `source`, whose rows it was told, and what a run folder says of its making.

    Raises DataError where the numbers of samples differ, or where the labels that were observed are not those of the source: rows in another order, or classes
    numbered in another way, would give samples each other's scores.
    """
    if len(source) != recorder.n_samples:
        raise DataError(f"the recorder was made for {recorder.n_samples} samples, but {source.locator} has {len(source)}.")
    facts = {"proxy": "own loop", "seed": 0, "device": "the user's", "recipe": {}, "threads": 0, "seconds": seconds, "already_paid": seconds == 0}
    facts |= {"energy_kwh": None, "energy_method": "not measured: the training was the user's own"}
    recorded = recorder.trajectory(**facts)
    seen = recorded.labels >= 0
    if len(wrong := np.flatnonzero(seen & (recorded.labels != source.labels))):
        row = int(wrong[0])
        raise DataError(
            f"{len(wrong)} of {len(source)} samples were observed with another label than {source.locator} has: row {row} ({source.sample_ids[row]}) with "
            f"{int(recorded.labels[row])} instead of {int(source.labels[row])}. Pass observe() the row in this data set, and number classes as it does."
        )
    asked = {"proxy": "own loop", "seed": 0, "max_epochs": recorded.n_epochs, "exact": False, "image_size": None}
    return Trajectory(source.sample_ids, source.labels, recorded.signals, recorded.curves, recorded.curve_epochs, recorded.facts), asked


def _versions() -> dict[str, str]:
    names = ("clprune", "torch", "torchvision", "numpy", "faiss-cpu", "pyarrow", "pillow")
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found | {"python": platform.python_version(), "cpu_count": str(os.cpu_count())}
