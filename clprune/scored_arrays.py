"""Scores from logged numbers, with no model at all: the public function of Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from clprune.datatypes import CriticalPeriod, ScoreTable, Trajectory
from clprune.pipeline import score
from clprune.replay import replay
from clprune.score_table import score_table
from clprune.sources.logged import source_of_logged


@dataclass(frozen=True)
class ScoredArrays:
    """Scores of logged numbers, the signals and the critical period they rest on, and for each score that is missing the reason."""

    table: ScoreTable
    missing: dict[str, str]
    period: CriticalPeriod
    trajectory: Trajectory


def score_arrays(
    labels: Any,
    *,
    logits: Float[np.ndarray, "E N C"] | None = None,
    losses: Float[np.ndarray, "E N"] | None = None,
    embeddings: Float[np.ndarray, "N D"] | None = None,
    ids: Sequence[Any] | None = None,
    class_names: Sequence[str] | None = None,
    out: Path | str | None = None,
    force: bool = False,
) -> ScoredArrays:
    """Score N samples from what a training logged in E epochs: logits, or one loss a sample. `labels` (N,) may be None where losses are given.

    NaN marks what an epoch did not see. Logits give every score but those that need features, losses those of a loss trajectory, and where they may be cross-entropy
    (`p_label_of`) those of the label's probability. With `out` the run folder is written too, for `select`, `verify` and `savings`. Raises UsageError, DataError or LabelError for what does not fit.
    """
    source = source_of_logged(labels, logits=logits, losses=losses, embeddings=embeddings, ids=ids, class_names=class_names)
    trajectory, period, _ = replay(source)
    table, missing = score_table(trajectory, period)
    if out is not None:
        score(source, Path(out), force=force)
    return ScoredArrays(table, missing, period, trajectory)
