"""Beta sampling of DUAL (Cho et al., 2025, arXiv:2502.06905): the less is kept, the easier the samples that are likely to be drawn."""

import numpy as np
from jaxtyping import Float, Int

from clprune.families import require_range, strategy

CONCENTRATION = 16.0  # a + b of the Beta density, as in the paper
N_TOP = 10  # highest scores whose mean confidence says where the hard samples lie


@strategy("difficulty", "value:confidence")
def beta_sampling(
    difficulty: Float[np.ndarray, "N"],
    confidence: Float[np.ndarray, "N"],
    n_keep: int,
    rng: np.random.Generator,
    *,
    score: str = "dual",
    c_d: float = 4.0,
) -> Int[np.ndarray, "K"]:
    """Positions drawn one after the other without replacement, with weights BetaPDF(confidence; a, b) x `score`, in the order drawn.

    With m the mean confidence of the ten highest scores and r the pruning rate, b = 15 (1 - m) (1 - r^c_d) and a = 16 - b; the paper takes
    c_d = 4 for CIFAR and 11 for ImageNet. Confidence is the mean probability of the label, kept 1e-6 away from 0 and 1. Samples without weight are drawn
    last, evenly. `score` must be at least 0: negative ones have no weight. Raises UsageError for a negative `c_d`.

    >>> beta_sampling(np.array([0.0, 0.1, 0.1]), np.array([0.5, 0.5, 0.5]), 2, np.random.default_rng(0))
    array([2, 1])
    """
    require_range("beta_sampling", 0, c_d=c_d)
    top = np.argsort(-difficulty, kind="stable")[:N_TOP]
    pruning_rate = 1 - n_keep / len(difficulty)
    b = (CONCENTRATION - 1) * (1 - confidence[top].mean()) * (1 - pruning_rate**c_d)
    a = CONCENTRATION - b
    p = np.clip(confidence, 1e-6, 1 - 1e-6)
    finite = np.clip(difficulty, 0, np.max(difficulty, where=np.isfinite(difficulty), initial=0))
    log_weight = (a - 1) * np.log(p) + (b - 1) * np.log1p(-p) + np.log(np.maximum(finite, 1e-300))  # the density's constant has no influence
    log_weight = np.where(finite > 0, log_weight, -1e6)
    return np.argsort(-(log_weight + rng.gumbel(size=len(p))), kind="stable")[:n_keep]  # the largest Gumbel-shifted weights are such a draw
