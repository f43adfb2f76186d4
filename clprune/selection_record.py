"""Write down a selection: the table of all samples and the record of how it came about, as a manifest folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from clprune import families
from clprune.datatypes import Budget, Selection
from clprune.errors import GuardError, UsageError
from clprune.manifest import Manifest, read_manifest, write_manifest
from clprune.run import Run, read_run
from clprune.storage import digest_in, read_json, require_free
from clprune.subject import is_run_of
from clprune.wording import counted

NEEDS_LABELS = "--keep auto and --strategy auto need a label for every sample of the run. Give a share and a strategy."


def require_place(out: Path, run: Path, *, force: bool) -> None:
    """Refuse a manifest folder `out` in whose place stands what `force` must not replace: UsageError for the run itself and for files that are no manifest, and without `force` for any; GuardError for labels that were added."""
    if run.resolve().is_relative_to(out.resolve()) or (out / "run.json").exists():
        raise UsageError(f"{out} is, or holds, the folder of a run; a manifest there would replace it. Choose another folder with --out.")
    require_free(out, force=force)
    if not out.exists():
        return
    held = sorted(path.name for path in out.iterdir()) if out.is_dir() else [out.name]
    if held and not ((out / "manifest.json").exists() and {"samples.parquet", "kept.npy"} & set(held)):
        raise UsageError(
            f"{out} holds no manifest, but {', '.join(held[:5])}{f' and {len(held) - 5} more' if len(held) > 5 else ''}, which --force does not remove. Choose another folder, or remove it yourself."
        )
    if (answers := out / "answers.json").exists():
        n = len(read_json(answers, what="answers").get("labels", {}))
        raise GuardError(
            f"{answers} holds {counted(n, 'label')} that {'was' if n == 1 else 'were'} added with `clprune labels add`, and --force does not remove them. Choose another folder with --out, or move that file away."
        )


def require_choice(out: Path, run: Path, strategy: str | None, *, force: bool) -> None:
    """Refuse at once a selection that could not be made or written: by a strategy that there is not (UsageError), or into a place that `require_place` refuses."""
    require_place(out, run, force=force)
    if strategy not in (None, "auto"):
        families.choose("strategies", str(strategy))


def question(
    keep: str, label_budget: int | None, strategy: str | None, seed: int, min_per_class: int, automatic: Mapping[str, Any]
) -> dict[str, Any]:
    """What a selection is asked beside its strategy, as its manifest holds it: the same question of the same run has the same answer. On which device `auto` is tried, and where the data are, is no part of it."""
    asked = {"keep": keep, "label_budget": label_budget, "seed": seed, "min_per_class": min_per_class}
    return asked | {name: automatic.get(name) for name in ("tolerance", "confidence", "trials", "trial_epochs") if "auto" in (keep, strategy)}


def finished_choice(out: Path, run: Path, strategy: str | None, asked: Mapping[str, Any], *, force: bool) -> Manifest | None:
    """The manifest in `out` that answers the `question` `asked` of the finished run in `run`; None where it is still to be made. Raises as `require_choice` does where it could not be, and with `force` as if nothing were there."""
    if not force and (out / "manifest.json").exists() and (run / "run.json").exists():
        manifest, scored = read_manifest(out), read_run(run)
        if manifest.document.get("asked") == asked and is_run_of(manifest.document, scored.document) and _is_by(manifest, scored, strategy):
            return manifest
    require_choice(out, run, strategy, force=force)
    return None


def _is_by(manifest: Manifest, scored: Run, strategy: str | None) -> bool:
    """Whether a selection from a run was made by the strategy that is asked for."""
    from clprune.selection import default_strategy

    if "strategy" in manifest.document.get("trials", {}) or strategy == "auto":
        return strategy == "auto" and "strategy" in manifest.document.get("trials", {})
    of_texts = (scored.document["image_rule"] or {}).get("kind") == "text"
    wanted = families.choose("strategies", strategy or default_strategy(scored.table, of_texts=of_texts))[2]
    return bool(manifest.document["strategy"] == wanted)


def candidates(scored: Run, ask: bool) -> tuple[Any, Any, Any, list[str]]:
    """Table and neighbourhood of what can be chosen, its rows (None: all), and what is said of each of the others."""
    from clprune.pool import candidates
    from clprune.selection import part_of

    table, neighborhood = scored.table, scored.neighborhood
    if scored.document.get("pool") is None:
        if ask:
            raise UsageError(f"{scored.folder} has no samples without a label, so there is nothing to ask for. Select with --keep.")
        return table, neighborhood, None, []
    rows, others = candidates(table, neighborhood, scored.still_open, ask=ask)
    if not len(rows):
        if ask:
            raise GuardError(f"{scored.folder}: every sample has a label or was asked for already.")
        raise GuardError(f"{scored.folder}: no sample has a label, so none can be kept. Ask for some with --label-budget.")
    return *part_of(table, neighborhood, rows, by_guess=ask), rows, others


def write_selection(
    out: Path,
    scored: Run,
    selection: Selection,
    budget: Budget,
    choices: Mapping[str, Any],
    *,
    asked: str,
    took: Mapping[str, float | None],
    force: bool = False,
) -> Manifest:
    """The manifest folder `out` of a selection from the run `scored`.

    Raises as `require_place` does. `choices` (seed, ...) are added to the record as they are, `asked` is the budget as the user wrote it, `took` holds the seconds of selecting and of trials, and the latter's kWh.
    """
    require_place(out, scored.folder, force=force)
    table, neighborhood, document = scored.table, scored.neighborhood, scored.document
    n = len(table.sample_ids)
    rank, weight = np.full(n, -1, dtype=np.int64), np.zeros(n)
    rank[selection.kept_indices] = np.arange(len(selection.kept_indices))
    weight[selection.kept_indices] = selection.weights
    kept, labelled = rank >= 0, table.labels >= 0
    asks = bool((kept & ~labelled).any())
    names = document["class_names"]
    columns: dict[str, Any] = {
        "sample_id": scored.id_columns["sample_id"],
        "index": np.arange(n),
        "label": table.labels,
        "class_name": pa.array([*names, ""], pa.string()).take(pa.array(np.where(labelled, table.labels, len(names)))),
        "bytes": scored.sample_bytes,
        "kept": kept,
        "rank": rank,
        "weight": weight,
        "reason": list(selection.reasons),
        "duplicate_of": scored.id_columns["duplicate_of"],
        "suspicion": neighborhood.suspicion,
        "suggested_label": neighborhood.suggested_label,
    }
    pool = document.get("pool")
    if pool is not None:
        columns["asked_before"], guessed = scored.still_open, neighborhood.suggested_label[kept & ~labelled]
        choices = dict(choices) | {
            "pool": dict(pool)
            | {
                "asks": asks,
                "guessed_per_class": np.bincount(guessed[guessed >= 0], minlength=len(names)),
            }
        }
    columns |= {name: table.values[name] for name in sorted(table.values)}
    summary = Counter("repeats another sample" if reason.startswith("repeats ") else reason for reason in selection.reasons)
    energy = [document["energy_kwh"], took["trial_kwh"]]
    record = dict(choices) | {
        "source": document["source"],
        "fingerprint": document["fingerprint"],
        "keep_fraction": len(selection.kept_ids) / n,
        "budget": {"asked": str(asked), "method": budget.method, "n_keep": budget.n_keep} | dict(budget.evidence),
        "strategy": selection.strategy,
        "class_names": names,
        "kept_per_class": np.bincount(table.labels[kept & labelled], minlength=len(names)),
        "samples_per_class": np.bincount(table.labels[labelled], minlength=len(names)),
        "reasons": summary,
        "unique_samples_kept": len(selection.kept_ids),
        "samples_seen_per_epoch": len(selection.kept_ids),
        "samples_seen_by_scoring": (document["epochs_run"] + (pool or {}).get("finishing_epochs", 0)) * int(labelled.sum()),
        "kept_bytes": int(scored.sample_bytes[kept].sum()),
        "dropped_bytes": int(scored.sample_bytes[~kept & (labelled | (pool is None) | asks)].sum()),
        "parent": {f"{name}_sha256": digest_in(document["files"], f"{name}.parquet") for name in ("scores", "samples")},
        "run": {
            key: document[key]
            for key in (
                "proxy",
                "seed",
                "epochs_run",
                "share_of_full_training",
                "share_is_of_epochs",
                "clp",
                "recipe",
                "device",
                "threads",
                "asked",
                "suspects",
                "image_rule",
            )
        },
        "versions": document["versions"],
        "timings": {
            "scored_at": document["timings"].get("scored_at"),
            "score_seconds": document["seconds"],
            "select_seconds": took["seconds"],
            "trial_seconds": took["trial_seconds"],
            "energy_kwh": None if None in energy else sum(energy),
            "energy_method": document["energy_method"],
        },
    }
    return write_manifest(out, pa.table(columns), record, force=force)
