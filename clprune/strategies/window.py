"""A window of difficulty: skip the hardest, keep the next ones (the form of BWS, Choi et al., 2024, arXiv:2406.03057, with a fixed place)."""

import numpy as np
from jaxtyping import Float, Int

from clprune.families import require_range, strategy


@strategy("difficulty")
def window(
    difficulty: Float[np.ndarray, "N"], n_keep: int, rng: np.random.Generator, *, score: str = "el2n", skip: float = 0.1
) -> Int[np.ndarray, "K"]:
    """Positions of `n_keep` samples after the hardest `skip` share, hardest first; the skipped share shrinks where too few would be left.

    Raises UsageError for a `skip` outside 0 to 1.

    >>> window(np.array([0.5, 0.9, 0.1, 0.7]), 2, np.random.default_rng(0), skip=0.25)
    array([3, 0])
    """
    require_range("window", 0, 1, skip=skip)
    n = len(difficulty)
    start = min(round(skip * n), n - n_keep)
    return np.argsort(-difficulty, kind="stable")[start : start + n_keep]
