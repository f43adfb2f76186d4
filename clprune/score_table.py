"""Score each sample from the epochs inside the critical period."""

from __future__ import annotations

import numpy as np

from clprune import families
from clprune.datatypes import CriticalPeriod, HighMeans, ScoreTable, Trajectory
from clprune.errors import DataError


def score_table(trajectory: Trajectory, period: CriticalPeriod) -> tuple[ScoreTable, dict[str, str]]:
    """All scores whose signals were recorded, and for each of the others why it is missing.

    Only epochs in [start_epoch, end_epoch) count. Raises DataError where a sample was never seen in them.
    """
    epochs = slice(period.start_epoch, period.end_epoch)
    signals = {name: values[epochs].astype(np.float64) for name, values in trajectory.signals.items()}
    for name, values in signals.items():
        unseen = np.flatnonzero(np.isnan(values).all(axis=0))
        if len(unseen):
            shown = ", ".join(trajectory.sample_ids[unseen[:5]].tolist())
            raise DataError(
                f"{len(unseen)} of {values.shape[1]} samples have no '{name}' in epochs {period.start_epoch} to {period.end_epoch - 1} ({shown} ...). "
                "Show every sample at least once (drop_last=False), or record more epochs."
            )
    scores: dict[str, np.ndarray] = {}
    directions: dict[str, HighMeans] = {}
    missing: dict[str, str] = {}
    for name, member in families.members("scores").items():
        facts = families.facts(member)
        if lacking := [signal for signal in facts["needs"] if signal not in signals]:
            missing[name] = f"needs {', '.join(lacking)}"
            continue
        scores[name] = np.asarray(member(*(signals[signal] for signal in facts["needs"])), dtype=np.float64)
        directions[name] = facts["high_means"]
    return ScoreTable(trajectory.sample_ids, trajectory.labels, scores, directions), missing
