"""Which classes a selection may have damaged: by what it left of them, and by what was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

STARVED_BELOW = 0.5  # of the overall kept share: a class that keeps less than half as much as the set has borne the cut alone
DROP_POINTS = 0.02  # accuracy that a class may lose before it is called damaged; smaller losses are within what a change of seed does
N_ERRORS = 2.0  # ... and the loss must exceed this many standard errors
LESS_ACCURATE = "less accurate"


@dataclass(frozen=True)
class ClassHarm:
    """One class: samples, kept, accuracy by arm, its change against the reference arm, and what is wrong with it."""

    name: str
    n_samples: int
    n_kept: int
    accuracy: Mapping[str, float]
    change: float | None  # pruned minus reference, in accuracy
    standard_error: float | None
    flags: tuple[str, ...]

    @property
    def kept_share(self) -> float:
        """1 where the class has no samples: nothing of it is lost."""
        return self.n_kept / self.n_samples if self.n_samples else 1.0


def harm_by_class(
    class_names: Sequence[str],
    samples_per_class: Int[np.ndarray, "C"],
    kept_per_class: Int[np.ndarray, "C"],
    evaluation: Mapping[str, Any] | None = None,
) -> tuple[list[ClassHarm], str | None]:
    """Every class in order, and the arm that accuracies are compared with ("full", else "random", else None).

    `starved`: keeps less than STARVED_BELOW of the overall kept share. `less accurate`: accuracy fell by more than DROP_POINTS and by more than
    N_ERRORS standard errors (of the test samples and of the seeds). Where that is so against "full", but not against "random", fewer samples did it and not the
    choice of them: `less accurate, as with random samples`. A class of which nothing is left is `empty`.
    """
    arms = evaluation["arms"] if evaluation is not None else {}
    reference = next((arm for arm in ("full", "random") if arm in arms and "pruned" in arms), None)
    tested = (evaluation or {}).get("facts", {}).get("test_per_class")
    overall = float(kept_per_class.sum()) / max(1, int(samples_per_class.sum()))
    result = []
    for c, name in enumerate(class_names):
        n, kept = int(samples_per_class[c]), int(kept_per_class[c])
        by_seed = {arm: [run["per_class"][c] for run in value["runs"]] for arm, value in arms.items()}
        known = {arm: [float(v) for v in values] for arm, values in by_seed.items() if values and all(v is not None for v in values)}
        accuracy = {arm: float(np.mean(values)) for arm, values in known.items()}
        changes = {
            arm: (accuracy["pruned"] - accuracy[arm], _standard_error(known["pruned"], known[arm], tested[c] if tested else None))
            for arm in known
            if "pruned" in known and arm != "pruned"
        }
        flags = []
        if n and not kept:
            flags.append("empty")
        elif n and kept / n < STARVED_BELOW * overall:
            flags.append("starved")
        change, error = changes.get(reference or "", (None, None))
        if change is not None and error is not None and _fell(change, error):
            by_choice = reference == "random" or "random" not in changes or _fell(*changes["random"])
            flags.append(LESS_ACCURATE if by_choice else f"{LESS_ACCURATE}, as with random samples")
        result.append(ClassHarm(str(name), n, kept, accuracy, change, error, tuple(flags)))
    return result, reference


def _fell(change: float, error: float) -> bool:
    return change < -max(DROP_POINTS, N_ERRORS * error)


def _standard_error(mine: list[float], other: list[float], n_test: int | None) -> float:
    """Of the difference of two mean accuracies of one class: from the test samples (taken as independent, which is cautious) and from the seeds."""

    def variance(accuracies: list[float], n: int) -> float:
        """Of x / n, by (x + 1) / (n + 2) (Agresti and Caffo, 2000): of one or two samples, all right, nothing is certain."""
        p = (float(np.mean(accuracies)) * n + 1) / (n + 2)
        return p * (1 - p) / (n + 2) * ((n + 2) / n) ** 2

    of_test = variance(mine, n_test) + variance(other, n_test) if n_test else 0.0
    paired = np.array(mine) - np.array(other) if len(mine) == len(other) else np.zeros(1)
    of_seeds = float(paired.var(ddof=1)) / len(paired) if len(paired) > 1 else 0.0
    return math.sqrt(of_test + of_seeds)
