"""Hardest first: the classic rule, good when much is kept and labels are clean, harmful otherwise (Sorscher et al., 2022, arXiv:2206.14486)."""

import numpy as np
from jaxtyping import Float, Int

from clprune.families import strategy


@strategy("difficulty")
def hardest(difficulty: Float[np.ndarray, "N"], n_keep: int, rng: np.random.Generator, *, score: str = "el2n") -> Int[np.ndarray, "K"]:
    """Positions of the `n_keep` largest difficulties of `score`, hardest first; ties to the smaller id. Draws nothing.

    >>> hardest(np.array([0.1, 0.9, 0.9]), 2, np.random.default_rng(0))
    array([1, 2])
    """
    return np.argsort(-difficulty, kind="stable")[:n_keep]
