"""Uniform random choice: the baseline that every strategy has to beat."""

import numpy as np
from jaxtyping import Int

from clprune.families import strategy
from clprune.strategies._quota import by_class, proportional_quota


@strategy("labels")
def random(labels: Int[np.ndarray, "N"], n_keep: int, rng: np.random.Generator, *, class_balanced: bool = False) -> Int[np.ndarray, "K"]:
    """Positions of `n_keep` samples drawn without replacement; `class_balanced` keeps each class's share of the whole.

    >>> random(np.zeros(5, dtype=int), 5, np.random.default_rng(0)).tolist() == np.random.default_rng(0).permutation(5).tolist()
    True
    """
    shuffled = rng.permutation(len(labels))
    if not class_balanced:
        return shuffled[:n_keep]
    quota = proportional_quota(np.bincount(labels), n_keep)
    return by_class(shuffled, labels, quota)
