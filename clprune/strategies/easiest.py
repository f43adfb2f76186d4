"""Easiest first: what little data is best spent on when there is very little of it (Sorscher et al., 2022, arXiv:2206.14486)."""

import numpy as np
from jaxtyping import Float, Int

from clprune.families import strategy


@strategy("difficulty")
def easiest(difficulty: Float[np.ndarray, "N"], n_keep: int, rng: np.random.Generator, *, score: str = "el2n") -> Int[np.ndarray, "K"]:
    """Positions of the `n_keep` smallest difficulties of `score`, easiest first; ties to the smaller id. Draws nothing.

    >>> easiest(np.array([0.1, 0.9, 0.1]), 2, np.random.default_rng(0))
    array([0, 2])
    """
    return np.argsort(difficulty, kind="stable")[:n_keep]
