"""How a run stands against another run, or against a truth that is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from clprune.datatypes import Neighborhood, ScoreTable, rows_of
from clprune.errors import DataError
from clprune.ranking import mean_ranks


def compare(table_a: ScoreTable, run_a: Mapping[str, Any], table_b: ScoreTable, run_b: Mapping[str, Any]) -> dict[str, Any]:
    """How well two runs agree on the samples that both have: rank correlation of each score, overlap of the harder halves, ends.

    `run_a` and `run_b` are the documents of run.json. Ties share their mean rank, and in the overlap they count as if drawn by lot. A score that is equal for all has no correlation (null), unless it is the same in both.
    A sample without the score in either run (it has no label) takes no part: then `n_samples` says how many do, and with fewer than three both figures are null. Raises DataError where they share fewer than three samples.
    """
    order_b = np.argsort(table_b.sample_ids, kind="stable")  # in the order of ids, so that ties are broken alike
    place = rows_of(table_b.sample_ids[order_b], table_a.sample_ids)
    both = place >= 0
    if both.sum() < 3:
        raise DataError(f"the runs of {run_a['source']} and {run_b['source']} share {int(both.sum())} sample ids; there is nothing to compare.")
    rows_a, rows_b = place[both], order_b[both]
    scores: dict[str, dict[str, float | int | None]] = {}
    for name in sorted(set(table_a.values) & set(table_b.values)):
        difficulty_a, difficulty_b = table_a.difficulty(name)[rows_a], table_b.difficulty(name)[rows_b]
        known = ~(np.isnan(difficulty_a) | np.isnan(difficulty_b))  # NaNs would tie, so that being unlabelled in both would look like agreement
        scores[name] = _agreement(difficulty_a[known], difficulty_b[known]) | ({} if known.all() else {"n_samples": int(known.sum())})
    ends = {
        key: {
            "end_epoch": run["clp"]["end_epoch"],
            "end_samples_seen": run["clp"]["end_epoch"] * int((run.get("pool") or {}).get("n_labelled", run["n_samples"])),
            "settled": run["clp"]["settled"],
        }
        for key, run in (("a", run_a), ("b", run_b))
    }
    return {"n_shared": int(both.sum()), "same_data": run_a["fingerprint"] == run_b["fingerprint"], "scores": scores, "ends": ends}


def _agreement(difficulty_a: Float[np.ndarray, "N"], difficulty_b: Float[np.ndarray, "N"]) -> dict[str, float | int | None]:
    """Rank correlation and overlap of the harder halves of one score in two runs; null for fewer than three samples."""
    if len(difficulty_a) < 3:
        return {"rank_correlation": None, "hard_half_overlap": None}
    rank_a, rank_b, half = mean_ranks(difficulty_a), mean_ranks(difficulty_b), len(difficulty_a) // 2
    varies = np.ptp(rank_a) > 0 and np.ptp(rank_b) > 0
    correlation = float(np.corrcoef(rank_a, rank_b)[0, 1]) if varies else 1.0 if np.array_equal(difficulty_a, difficulty_b) else None
    overlap = float(_among_hardest(difficulty_a, half) @ _among_hardest(difficulty_b, half)) / half
    return {"rank_correlation": correlation, "hard_half_overlap": overlap}


def _among_hardest(difficulty: Float[np.ndarray, "N"], n: int) -> Float[np.ndarray, "N"]:
    """How surely each sample is among the hardest `n`: 1 or 0, and between them for those that tie at the border."""
    border = np.partition(difficulty, len(difficulty) - n)[len(difficulty) - n]
    above, at = difficulty > border, difficulty == border
    return above + at * ((n - above.sum()) / at.sum())


def planted_found(sample_ids: np.ndarray, hood: Neighborhood, suspect_above: float, kept_ids: np.ndarray, truth: Mapping[str, Any]) -> dict[str, Any]:
    """Recall and precision of suspects and near-duplicates against a truth file, and what a random choice of the same size would have kept."""
    ids, keep_fraction = sample_ids.tolist(), len(kept_ids) / len(sample_ids)
    wrong = np.isin(np.array(ids), list(truth["wrong_labels"]))
    n_top = round(0.05 * len(ids))
    top = np.argsort(-hood.suspicion, kind="stable")[:n_top]
    flagged = hood.suspicion > suspect_above
    planted = {frozenset(pair) for pair in truth["duplicates"].items()}
    pairs = {frozenset((ids[row], ids[at])) for row, at in enumerate(hood.duplicate_of.tolist()) if at >= 0}
    kept = set(kept_ids.tolist())
    return {
        "wrong_labels": {
            "planted": int(wrong.sum()),
            "recall_in_top_5_percent": float(wrong[top].sum() / wrong.sum()),
            "flagged": int(flagged.sum()),
            "recall": float(flagged[wrong].mean()),
            "precision": float(wrong[flagged].mean()),
            "kept": sum(name in kept for name in truth["wrong_labels"]),
            "kept_by_a_random_choice": keep_fraction * int(wrong.sum()),
        },
        "duplicates": {
            "planted": len(planted),
            "flagged": len(pairs),
            "recall": len(planted & pairs) / len(planted),
            "precision": len(planted & pairs) / max(1, len(pairs)),
            "kept_both": sum(a in kept and b in kept for a, b in truth["duplicates"].items()),
            "kept_both_by_a_random_choice": keep_fraction**2 * len(planted),
        },
    }
