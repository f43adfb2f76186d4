"""Coverage-centric coreset selection, CCS (Zheng et al., 2023, arXiv:2210.15809): cut the hardest, then cover all levels of difficulty."""

import numpy as np
from jaxtyping import Float, Int

from clprune.families import require_range, strategy
from clprune.strategies._quota import even_quota, n_cut

FINEST = 2**52  # strata: finer ones than float64 tells apart


@strategy("difficulty")
def stratified(
    difficulty: Float[np.ndarray, "N"], n_keep: int, rng: np.random.Generator, *, score: str = "aum", n_strata: int = 50, cutoff: float | None = None
) -> Int[np.ndarray, "K"]:
    """Drop the hardest `cutoff` share (less where too few would be left; None: the paper's for the kept share, see `n_cut`), cut the rest into `n_strata` ranges of equal
    width, spend evenly over the strata that hold anything, at random inside each. Infinite difficulties count as the largest finite one.
    Raises UsageError for no stratum, and a `cutoff` outside 0 to 1.
    """
    require_range("stratified", 1, n_strata=n_strata)
    require_range("stratified", 0, 1, cutoff=cutoff)
    n = len(difficulty)
    n_strata = min(n_strata, FINEST)
    order = np.argsort(-difficulty, kind="stable")
    left = np.sort(order[n_cut(n, n_keep, cutoff) :])
    finite = difficulty[np.isfinite(difficulty)]
    values = np.clip(difficulty[left], finite.min(), finite.max()) if len(finite) else np.zeros(len(left))
    low, high = values.min(), values.max()
    stratum = (
        np.minimum((values - low) / (high - low) * n_strata, n_strata - 1).astype(np.int64) if high > low else np.zeros(len(left), dtype=np.int64)
    )
    _, sizes = np.unique(stratum, return_counts=True)  # of those that hold anything, of however many
    filled = np.split(left[np.argsort(stratum, kind="stable")], np.cumsum(sizes)[:-1])
    picked = [rng.permutation(rows)[:quota] for rows, quota in zip(filled, even_quota(sizes, n_keep), strict=True)]
    return rng.permutation(np.concatenate(picked))
