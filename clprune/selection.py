"""Spend a budget: which samples are kept, best first, and why each of the others is not."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int

from clprune import families
from clprune.datatypes import Budget, Neighborhood, ScoreTable, Selection
from clprune.errors import DataError, GuardError, UsageError
from clprune.neighbors import require_finite
from clprune.suspects import limit_of

DEFAULT_STRATEGY = "blend"
DEFAULT_FOR_LOSSES = "blend(score='loss_variability')"  # the nearest to DUAL where there is no probability: what was learned or forgotten meanwhile
DEFAULT_FOR_TEXTS = "blend(scored_share=0.0)"  # a bag of n-grams learns its texts by heart within the run, and then what it finds hard is no guide (examples/benchmarks/text.py)
DEFAULT_TO_ASK = "uncertain_clusters"
DEFAULT_WITHOUT_LABELS = "cluster_medoids"


def default_strategy(table: ScoreTable, *, of_texts: bool = False) -> str:
    """The strategy of a run for which none was named: one whose score the run holds."""
    if "dual" in table.values:
        return DEFAULT_FOR_TEXTS if of_texts else DEFAULT_STRATEGY
    return DEFAULT_TO_ASK if "uncertainty" in table.values else DEFAULT_WITHOUT_LABELS if "typicality" in table.values else DEFAULT_FOR_LOSSES


def budget_for(keep: str | float | int, n_samples: int) -> Budget:
    """Read `--keep`: a share in (0, 1] ("0.5", "1.0"), or a whole number of samples ("30000", and 1 means one sample only as the int 1 or "1").

    Raises UsageError for anything else.
    """
    text = str(keep).strip()
    try:
        if isinstance(keep, int) or text.isdigit():
            n_keep = int(text)
            if not 1 <= n_keep <= n_samples:
                raise UsageError(f"keep is {n_keep}, but there are {n_samples} samples. Give a number from 1 to {n_samples}, or a share such as 0.5.")
            return Budget(n_keep / n_samples, n_keep, "given")
        fraction = float(text)
    except ValueError as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"keep is {text!r}. Give a share in (0, 1] such as 0.5, or a whole number of samples.") from None
    if not 0 < fraction <= 1:
        raise UsageError(f"keep is {text}. Give a share in (0, 1] such as 0.5, or a whole number of samples.")
    return Budget(fraction, max(1, round(fraction * n_samples)), "given")


def select(
    table: ScoreTable,
    budget: Budget,
    *,
    strategy: str = DEFAULT_STRATEGY,
    seed: int = 0,
    neighborhood: Neighborhood | None = None,
    vectors: np.ndarray | None = None,
    n_classes: int | None = None,
    min_per_class: int = 1,
) -> Selection:
    """Keep `budget.n_keep` samples by `strategy`. The strategy sees the samples in the order of their ids, so row order has no influence.

    At least `min_per_class` samples of every class that has as many are kept; samples without a label count as one class. Raises GuardError where the budget cannot hold them.
    """
    member, options, spelled = families.choose("strategies", strategy)
    order = np.argsort(table.sample_ids, kind="stable")
    labels = np.maximum(table.labels[order], 0)
    floor = floor_of(labels, min_per_class, n_classes or 0)
    require_room(floor, budget, labels, min_per_class)
    inputs = _inputs(member, options, table, neighborhood, vectors, order)
    rng = np.random.default_rng(seed)
    picked = np.asarray(member(*inputs, budget.n_keep, rng, **options))
    if len(picked) != budget.n_keep or len(np.unique(picked)) != len(picked):
        raise DataError(f"strategy '{spelled}' returned {len(picked)} positions ({len(np.unique(picked))} different) instead of {budget.n_keep}.")
    picked = _hold_floor(
        picked, labels, floor, lambda rows, n: np.asarray(member(*(_part(value, rows, len(order)) for value in inputs), n, rng, **options))
    )
    kept = order[picked]
    reasons = _reasons(member, spelled, table, neighborhood, kept, options)
    return Selection(table.sample_ids[kept], kept.astype(np.int64), np.ones(len(kept)), spelled, reasons)


def floor_of(labels: Int[np.ndarray, "N"], min_per_class: int, n_classes: int = 0) -> Int[np.ndarray, "C"]:
    """How many samples of each class have to be kept: `min_per_class`, or all where there are fewer."""
    return np.minimum(np.bincount(np.maximum(labels, 0), minlength=n_classes), min_per_class)


def require_room(floor: Int[np.ndarray, "C"], budget: Budget, labels: Int[np.ndarray, "N"], min_per_class: int) -> None:
    """Raise GuardError where a budget cannot hold the `floor` of every class."""
    if floor.sum() > budget.n_keep:
        raise GuardError(
            f"keeping {budget.n_keep} of {len(labels)} samples cannot hold {min_per_class} of each of the {np.count_nonzero(floor)} classes: some would vanish. "
            f"Keep at least {floor.sum()}, or pass --min-per-class 0."
        )


def require_share(keep: str, labels: Int[np.ndarray, "N"], min_per_class: int) -> None:
    """Raise as `budget_for` and `select` would, where a share that was given cannot be kept of these samples; those without a label are not chosen among."""
    known = labels[labels >= 0]
    if keep != "auto" and len(known):
        require_room(floor_of(known, min_per_class), budget_for(keep, len(known)), known, min_per_class)


def part_of(table: ScoreTable, neighborhood: Neighborhood, rows: Int[np.ndarray, "M"], *, by_guess: bool = False) -> tuple[ScoreTable, Neighborhood]:
    """Table and neighbourhood of some rows only; scores that one of them lacks are left out, and so is a pointer to a row that is not among them.

    With `by_guess` the label of a sample is the suggested one, 0 where there is none.
    """
    values = {name: value[rows] for name, value in table.values.items() if not np.isnan(value[rows]).any()}
    place = np.full(len(table.sample_ids), -1)
    place[rows] = np.arange(len(rows))
    pointers = neighborhood.duplicate_of[rows]
    duplicate_of = np.where(pointers >= 0, place[np.maximum(pointers, 0)], -1)
    hood = Neighborhood(
        duplicate_of, neighborhood.duplicate_distance[rows], neighborhood.suspicion[rows], neighborhood.suggested_label[rows], neighborhood.facts
    )
    labels = np.maximum(neighborhood.suggested_label[rows], 0) if by_guess else table.labels[rows]
    return ScoreTable(table.sample_ids[rows], labels, values, table.high_means), hood


def among_all(selection: Selection, rows: Int[np.ndarray, "M"], others: Sequence[str], *, taken: str = "kept") -> Selection:
    """A selection from `rows` as one from all samples; `others` (N,) says why each of the other rows could not be taken, `taken` what is said of the kept."""
    reasons = list(others)
    for row, reason in zip(rows.tolist(), selection.reasons, strict=True):
        reasons[row] = taken if reason == "kept" else reason
    return replace(selection, kept_indices=rows[selection.kept_indices], reasons=reasons)


def can_choose(strategy: str, table: ScoreTable, has_vectors: bool) -> bool:
    """Whether a run with these scores, and with features or without, holds all that a strategy declares."""
    member, options, _ = families.choose("strategies", strategy)
    held = {"labels", "suspicion", "suggested_label", "duplicate_of", *(f"value:{name}" for name in table.values)} | (
        {"vectors"} if has_vectors else set()
    )
    needs = {f"value:{_score_of(member, options)}" if need == "difficulty" else need for need in families.facts(member)["needs"]}
    return needs <= held


def _score_of(member, options) -> str:  # type: ignore[no-untyped-def]
    """The score that is the difficulty of a strategy."""
    return str(options.get("score", inspect.signature(member).parameters["score"].default))


def _inputs(member, options, table, neighborhood, vectors, order) -> list[np.ndarray]:  # type: ignore[no-untyped-def]
    """The arrays that a strategy declares, in the order of the ids."""
    inputs = []
    for need in families.facts(member)["needs"]:
        if need == "difficulty":
            inputs.append(table.difficulty(_score_of(member, options))[order])
        elif need == "labels":
            inputs.append(np.maximum(table.labels[order], 0))
        elif need == "vectors" and vectors is not None:
            require_finite(vectors)
            in_order = bool((order == np.arange(len(order))).all())
            inputs.append(vectors if in_order else vectors[order])  # what may be large is not copied in vain
        elif need == "suspicion":
            inputs.append(neighborhood.suspicion[order] if neighborhood is not None else np.zeros(len(order)))
        elif need == "suggested_label":
            inputs.append((neighborhood.suggested_label if neighborhood is not None else np.maximum(table.labels, 0))[order])
        elif need == "duplicate_of":
            inputs.append(_reordered(neighborhood.duplicate_of, order) if neighborhood is not None else np.full(len(order), -1))
        elif need.startswith("value:") and need[6:] in table.values:
            inputs.append(table.values[need[6:]][order])
        else:
            raise DataError(
                f"strategy '{member.__name__}' needs features (vectors), which this run does not hold. Score the data again with --embeddings, or with a proxy that gives some."
                if need == "vectors"
                else f"strategy '{member.__name__}' needs the score '{need[6:]}', which this run does not hold (it has: {', '.join(sorted(table.values))}). Choose another strategy."
            )
    return inputs


def _reordered(pointers: Int[np.ndarray, "N"], order: Int[np.ndarray, "N"]) -> Int[np.ndarray, "N"]:
    """Row pointers (-1: none) after the rows were put in `order`."""
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    moved = pointers[order]
    return np.where(moved >= 0, place[np.maximum(moved, 0)], -1)


def _part(value: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    return value[rows] if len(value) == n else value


def _hold_floor(picked, labels, floor, choose):  # type: ignore[no-untyped-def]
    """Put classes that fell below their floor back in, in place of the last picked samples of classes that can spare them."""
    have = np.bincount(labels[picked], minlength=len(floor))
    short = np.flatnonzero(have < floor)
    if not len(short):
        return picked
    left = np.ones(len(labels), dtype=bool)
    left[picked] = False
    rest = np.flatnonzero(left & np.isin(labels, short))
    rest = rest[np.argsort(labels[rest], kind="stable")]  # class by class at once: a look at all rows for each of many classes takes long
    added: list[int] = []
    for rows in np.split(rest, np.flatnonzero(np.diff(labels[rest])) + 1):
        label = labels[rows[0]]
        added += rows[choose(rows, int(floor[label] - have[label]))].tolist()
    spare = have - floor
    removed: set[int] = set()
    for row in picked[::-1]:
        if len(removed) == len(added):
            break
        if spare[labels[row]] > 0:
            spare[labels[row]] -= 1
            removed.add(row)
    return np.array([row for row in picked if row not in removed] + added)


def _reasons(member, spelled, table, neighborhood, kept, options) -> list[str]:  # type: ignore[no-untyped-def]
    """Why each sample (N,) is kept or dropped."""
    needs = families.facts(member)["needs"]
    reasons = np.full(len(table.sample_ids), f"not chosen by {member.__name__}", dtype=object)
    if neighborhood is not None and "duplicate_of" in needs:
        for row in np.flatnonzero(neighborhood.duplicate_of >= 0):
            reasons[row] = f"repeats {table.sample_ids[neighborhood.duplicate_of[row]]}"
    if neighborhood is not None and "suspicion" in needs:
        reasons[neighborhood.suspicion > limit_of(neighborhood.suspicion, options.get("suspect_above"))] = "label suspected wrong"
    reasons[kept] = "kept"
    return reasons.tolist()
