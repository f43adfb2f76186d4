"""Slow plain versions that judge the fast ones: loops over single numbers, from the papers' definitions."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np


def softmax(z: list[float]) -> list[float]:
    top = max(z)
    e = [math.exp(v - top) for v in z]
    return [v / sum(e) for v in e]


def signals(z: list[float], label: int) -> dict[str, float]:
    p = softmax(z)
    onehot = [1.0 if c == label else 0.0 for c in range(len(z))]
    return {
        "loss": -math.log(p[label]),
        "p_label": p[label],
        "margin": z[label] - max(v for c, v in enumerate(z) if c != label),
        "error_l2": math.sqrt(sum((a - b) ** 2 for a, b in zip(p, onehot, strict=True))),
        "entropy": -sum(v * math.log(v) for v in p),
        "correct": float(max(range(len(z)), key=lambda c: z[c]) == label),
        "predicted": float(max(range(len(z)), key=lambda c: z[c])),
    }


def _seen(column: np.ndarray) -> list[float]:
    return [float(v) for v in column if not math.isnan(v)]


def score_forgetting(correct: np.ndarray) -> np.ndarray:
    result = []
    for i in range(correct.shape[1]):
        seen = _seen(correct[:, i])
        result.append(sum(1 for a, b in pairwise(seen) if a == 1 and b == 0) if 1 in seen else math.inf)
    return np.array(result, dtype=float)


def score_learned_epoch(correct: np.ndarray) -> np.ndarray:
    n_epochs, n = correct.shape
    result = []
    for i in range(n):
        first = n_epochs
        for t in range(n_epochs - 1, -1, -1):
            if correct[t, i] == 0:
                break
            first = t
        result.append(first)
    return np.array(result, dtype=float)


def score_retention_after_learning(correct: np.ndarray) -> np.ndarray:
    result = []
    for i in range(correct.shape[1]):
        seen = _seen(correct[:, i])
        if 1 not in seen:
            result.append(0.0)
        else:
            after = seen[seen.index(1) :]
            result.append(sum(after) / len(after))
    return np.array(result)


def _mean(values: np.ndarray) -> np.ndarray:
    return np.array([sum(_seen(values[:, i])) / len(_seen(values[:, i])) for i in range(values.shape[1])])


score_el2n = score_confidence = score_aum = _mean


def score_variability(p_label: np.ndarray) -> np.ndarray:
    result = []
    for i in range(p_label.shape[1]):
        seen = _seen(p_label[:, i])
        mean = sum(seen) / len(seen)
        result.append(math.sqrt(sum((v - mean) ** 2 for v in seen) / len(seen)))
    return np.array(result)


def score_dual(p_label: np.ndarray) -> np.ndarray:
    """Windows of ten epochs; an epoch that did not see the sample counts as its mean."""
    result = []
    for i in range(p_label.shape[1]):
        seen = _seen(p_label[:, i])
        p = [sum(seen) / len(seen) if math.isnan(v) else float(v) for v in p_label[:, i]]
        width = min(10, len(p))
        windows = [p[k : k + width] for k in range(len(p) - width + 1)]
        total = 0.0
        for window in windows:
            mean = sum(window) / width
            total += math.sqrt(sum((v - mean) ** 2 for v in window) / width) * (1 - mean)
        result.append(total / len(windows))
    return np.array(result)


def score_mean_loss(loss: np.ndarray) -> np.ndarray:
    return np.array([mean_of(column) for column in loss.T])


def score_loss_variability(loss: np.ndarray) -> np.ndarray:
    return np.array([math.sqrt(mean_of((column - mean_of(column)) ** 2)) for column in loss.T])


def mean_of(column: np.ndarray) -> float:
    seen = [v for v in column.tolist() if not math.isnan(v)]
    return sum(seen) / len(seen)
