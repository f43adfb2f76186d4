"""The samples that the page shows: galleries with pictures or texts, and the bounded list that its search box looks through."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow.compute as pc
from jaxtyping import Int
from markupsafe import Markup

from clprune import figures
from clprune.subject import Subject

MOST_LISTED = 4_000  # samples that the search box knows
MOST_LIST_BYTES = 600_000
GALLERY = 24  # pictures, or pairs of them


def galleries(subject: Subject) -> tuple[list[dict[str, Any]], Int[np.ndarray, "M"]]:
    """The four galleries, and the rows of all samples in them."""
    score = subject.deciding_score
    chosen: list[tuple[str, str, str, list[list[int]]]] = []
    if score is not None:
        difficulty = subject.difficulty(score)
        pool = np.ones(subject.n_samples, dtype=bool) if subject.kept is None else subject.kept
        what = "Hardest" if subject.kept is None else "Hardest kept"
        chosen.append(("hardest", what, f"Highest difficulty by {score} first. What the training will work on.", _extremes(difficulty, pool)))
        pool = pool if subject.kept is None else ~subject.kept
        what = "Easiest" if subject.kept is None else "Easiest dropped"
        chosen.append(("easiest", what, f"Lowest difficulty by {score} first. Nothing should be missed here.", _extremes(-difficulty, pool)))
    pairs = _duplicate_pairs(subject)
    total = n_duplicates(subject)
    chosen.append(
        ("duplicates", "Near-duplicates", f"{min(GALLERY, total):,} of {total:,}, closest first: left the repeat, right what it repeats.", pairs)
    )
    suspicion = subject.samples["suspicion"].to_numpy()
    above = float(subject.scoring.get("suspects", {}).get("above", 0.8))
    suspects = _extremes(suspicion, suspicion > above)
    chosen.append(
        (
            "suspects",
            "Labels suspected wrong",
            f"{len(suspects):,} of {int((suspicion > above).sum()):,}, most suspect first. Have a person look before anything is changed.",
            suspects,
        )
    )
    rows = np.array(sorted({row for *_, groups in chosen for group in groups for row in group}), dtype=np.int64)
    described = _describe(subject, rows)
    result = []
    for name, title, text, groups in chosen:
        result.append(
            {
                "name": name,
                "title": title,
                "text": text,
                "items": [[described[row] for row in group] for group in groups],
                "suspects": name == "suspects",
            }
        )
    return result, rows


def _extremes(values: np.ndarray, pool: np.ndarray) -> list[list[int]]:
    """Rows of the pool with the largest values, each alone in its group; ties to the smaller row. Rows without a value (NaN) are left out."""
    rows = np.flatnonzero(pool & ~np.isnan(values))
    if len(rows) > GALLERY:
        some = rows[np.argpartition(-values[rows], GALLERY - 1)]
        rows = np.sort(rows[values[rows] >= values[some[GALLERY - 1]]])
    return [[int(row)] for row in rows[np.argsort(-values[rows], kind="stable")][:GALLERY]]


def _duplicate_pairs(subject: Subject) -> list[list[int]]:
    column = subject.samples["duplicate_of"]
    rows = np.flatnonzero(pc.is_valid(column).to_numpy(zero_copy_only=False))
    if "duplicate_distance" in subject.samples.column_names:
        rows = rows[np.argsort(subject.samples["duplicate_distance"].to_numpy()[rows], kind="stable")]
    rows = rows[:GALLERY]
    partners = pc.index_in(column.take(rows), value_set=subject.samples["sample_id"].combine_chunks()).to_pylist()
    return [[int(row), int(partner)] for row, partner in zip(rows, partners, strict=True) if partner is not None]


def _describe(subject: Subject, rows: Int[np.ndarray, "M"]) -> dict[int, dict[str, Any]]:
    """What is shown of each row: id, labels, fate, and its picture or text where the data are at hand."""
    table = subject.samples.take(rows).to_pylist()
    place: dict[str, int] = {}
    if subject.source is not None:
        wanted = {line["sample_id"] for line in table}
        place = {name: at for at, name in enumerate(subject.source.sample_ids.tolist()) if name in wanted}
    described = {}
    for row, line in zip(rows.tolist(), table, strict=True):
        shown = figures.thumbnail(subject.source, place[line["sample_id"]]) if line["sample_id"] in place and subject.source is not None else {}
        score = subject.deciding_score
        described[row] = {
            "id": line["sample_id"],
            "label": subject.class_name(line["label"]),
            "suggested": subject.class_name(int(line["suggested_label"])),
            "suspicion": line["suspicion"],
            "fate": "" if subject.kept is None else "kept" if line["kept"] else line["reason"],
            "score": "" if score is None or np.isnan(line[score]) else f"{score} {line[score]:.3g}",
            **{"image": None, "text": None, "missing": None, "width": 0, "height": 0},
            **shown,
        }
    return described


def search_list(subject: Subject, pictured: Int[np.ndarray, "M"]) -> dict[str, Any]:
    """The bounded list that the search box looks through: those in the galleries first, then others spread evenly over the rows."""
    n = subject.n_samples
    spread = (
        np.arange(n) if n <= MOST_LISTED else np.unique(np.linspace(0, n - 1, MOST_LISTED - min(len(pictured), MOST_LISTED // 2)).astype(np.int64))
    )
    rows = np.concatenate([pictured, np.setdiff1d(spread, pictured)])[:MOST_LISTED]
    score = subject.deciding_score
    columns = ["sample_id", "label", "suspicion", *(["reason"] if subject.manifest is not None else []), *([score] if score else [])]
    table = subject.samples.select(columns).take(rows).to_pylist()
    reasons: dict[str, int] = {}
    records: list[list[Any]] = []
    used = 0
    for line in table:
        reason = line.get("reason", "not selected yet")
        value = line[score] if score else None
        number = None if value is None or not np.isfinite(value) else float(f"{value:.3g}")
        records.append([line["sample_id"], line["label"], reasons.setdefault(reason, len(reasons)), number, round(line["suspicion"], 3)])
        used += len(line["sample_id"].encode("utf-8", "replace")) + len(reason.encode()) * (reasons[reason] == len(reasons) - 1) + 30
        if used > MOST_LIST_BYTES:
            break
    everything = len(records) == n
    where = f"{subject.folder.name}/samples.parquet" + ("" if subject.manifest is not None else f" and {subject.folder.name}/scores.parquet")
    note = (
        f"All {n:,} samples are in this list."
        if everything
        else f"This list holds {len(records):,} of {n:,} samples: those in the galleries, and others spread evenly over the rows. Every sample is in {where}."
    )
    document = {
        "classes": subject.class_names if len(subject.class_names) <= 2000 else None,
        "reasons": list(reasons),
        "score": score or "",
        "records": records,
    }
    return {"note": note, "json": _script_json(document), "score": score or "score", "complete": everything}


def _script_json(document: Any) -> Markup:
    """JSON for a script element: no `<`, `>` or `&` that could end it or start a comment."""
    text = json.dumps(document, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e"))


def n_duplicates(subject: Subject) -> int:
    return len(subject.samples) - subject.samples["duplicate_of"].null_count
