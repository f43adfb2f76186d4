"""Score each sample from the epochs inside the critical period."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from clprune import families
from clprune.datatypes import CriticalPeriod, HighMeans, ScoreTable, Trajectory
from clprune.errors import DataError

ROUNDING = 1e-3  # nats: a cross-entropy of nothing may come out so far below zero


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
    if "p_label" not in signals and (p_label := p_label_of(trajectory)) is not None:
        signals["p_label"] = p_label[epochs]
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


def p_label_of(trajectory: Trajectory) -> Float[np.ndarray, "E N"] | None:
    """Probability of the label: recorded, or, where only losses were and they may be cross-entropy, exp(-loss). None where it is not known.

    They may be where every sample has a class, there are two or more, no loss is negative, and their median is no larger than that of a guess among the classes.
    """
    if "p_label" in trajectory.signals:
        return trajectory.signal("p_label")
    n_classes = len(np.unique(trajectory.labels))
    if "loss" not in trajectory.signals or trajectory.labels.min() < 0 or n_classes < 2:
        return None
    loss = trajectory.signal("loss").astype(np.float64)
    if np.nanmin(loss) < -ROUNDING or np.nanmedian(loss) > np.log(n_classes):
        return None
    return np.exp(-np.maximum(loss, 0))
